package rollout

import "fmt"

// Conflict is why an action does not fit the world. It is what an operator is
// answered with 409.
type Conflict struct {
	Kind Kind
	Why  string
}

func (c *Conflict) Error() string { return fmt.Sprintf("%s: %s", c.Kind, c.Why) }

// Apply applies one action. An action that does not fit gives a *Conflict and
// changes nothing.
func Apply(w *World, a Action) error {
	if err := a.Body.check(w); err != nil {
		return err
	}
	w.Ready = max(w.Ready, a.Ready)
	a.Body.apply(w, stamp{at: a.At, ready: a.Ready})
	return nil
}
