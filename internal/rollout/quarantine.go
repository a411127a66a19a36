package rollout

import (
	"fmt"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// quarantine bars the host's target from its channel. Of several rollouts that
// gave a closure up, the one that was signed last counts: an attempt is free
// only when it was signed after all of them.
func (w *World) quarantine(h lifecycle.Host) {
	q := Quarantine{
		Channel: h.Channel, Closure: h.Target, Rollout: h.Rollout, Host: h.Hostname,
		FirstSignedAt: h.FirstSignedAt,
	}
	for i, old := range w.Quarantines {
		if old.Channel == q.Channel && old.Closure == q.Closure {
			if q.FirstSignedAt.After(old.FirstSignedAt) {
				w.Quarantines[i] = q
			}
			return
		}
	}
	w.Quarantines = append(w.Quarantines, q)
}

func (q Quarantine) why() string {
	return fmt.Sprintf("%s was given up by %s in %s", q.Closure, q.Host, q.Rollout)
}

// barred are the quarantines, to be looked up.
type barred map[barKey]Quarantine

type barKey struct {
	channel string
	closure fleet.Closure
}

func (w *World) quarantines() barred {
	b := make(barred, len(w.Quarantines))
	for _, q := range w.Quarantines {
		b[barKey{q.Channel, q.Closure}] = q
	}
	return b
}

// bars finds the quarantine that keeps the closure out of the rollout. Free of
// it is an attempt after the first that was signed later.
func (b barred) bars(r *Rollout, closure fleet.Closure) (Quarantine, bool) {
	q, ok := b[barKey{r.Channel, closure}]
	if ok && r.Manifest.Attempt > 1 && r.FirstSignedAt.After(q.FirstSignedAt) {
		ok = false
	}
	return q, ok
}
