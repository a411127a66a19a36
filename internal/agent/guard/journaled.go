package guard

import (
	"context"
	"encoding/json"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/lifecycle"
)

// Journaled is what a guard must know of the agent's journal.
type Journaled struct {
	Known  bool `json:"known"`  // the rollout is in it
	Wanted bool `json:"wanted"` // its state wants a guard
	// Steps are the marks that the activation left.
	Steps map[string]json.RawMessage `json:"steps,omitempty"`
}

// View reads what a guard must know about a rollout. A damaged file may end the
// process, beyond any recover.
func View(file, rollout string) (Journaled, error) {
	var v Journaled
	err := journal.Read(file, func(tx *journal.Tx) error {
		r, known, err := tx.Rollout(rollout)
		if err != nil || !known {
			return err
		}
		v = Journaled{Known: true, Wanted: lifecycle.Want(r.Host).Guard != nil, Steps: r.Steps}
		return nil
	})
	return v, err
}

// recorder gives activation the marks of a journal that is only read.
type recorder map[activation.Step]activation.Mark

// recorderOf has the marks of the journal. When that tells nothing it says that a
// switch may have been begun in this boot: then the machine is asked.
func recorderOf(v Journaled, known bool, boot string) recorder {
	if !known {
		return recorder{activation.StepSwitch: {BootID: boot}}
	}
	marks := recorder{}
	for step, raw := range v.Steps {
		var m activation.Mark
		if err := json.Unmarshal(raw, &m); err != nil {
			return recorderOf(v, false, boot)
		}
		marks[activation.Step(step)] = m
	}
	return marks
}

// Recall gives a step's mark.
func (r recorder) Recall(_ context.Context, _ string, s activation.Step) (activation.Mark, error) {
	return r[s], nil
}

// Record keeps it for as long as this guard lives.
func (r recorder) Record(_ context.Context, _ string, s activation.Step, m activation.Mark) error {
	r[s] = m
	return nil
}
