package core

import (
	"encoding/json"
	"fmt"

	"nixfleet/internal/controlplane/store"
)

// kindDiverged is a decision of the core's own: the planner does not look at it.
const kindDiverged = "diverged"

// diverged is the body of such a decision.
type diverged struct {
	Rollout string `json:"rollout"`
	Host    string `json:"host"`
	Why     string `json:"why"`
}

// conflict marks a host whose numbering contradicts what is stored: its machine
// was restored from a snapshot. Once is enough.
func (b *batch) conflict(a arrival, last int64) {
	if tr := b.state.known(a.track); tr != nil && tr.Conflict != "" {
		return
	}
	why := fmt.Sprintf("sent another event %d than the one that is stored (up to %d are)", a.event.Seq, last)
	body, err := json.Marshal(diverged{a.track.rollout, a.track.host, why})
	if err != nil {
		panic("core: three strings cannot fail to encode: " + err.Error())
	}
	b.log(store.Record{Decision: &store.Decision{Kind: kindDiverged, Hostname: a.track.host, Rollout: a.track.rollout, Body: body}})
	b.Log.Warn("host has diverged", "host", a.track.host, "rollout", a.track.rollout, "why", why)
}

func (s *state) applyDiverged(body []byte) error {
	var d diverged
	if err := json.Unmarshal(body, &d); err != nil {
		return fmt.Errorf("diverged: %w", err)
	}
	s.track(track{d.Rollout, d.Host}).Conflict = d.Why
	return nil
}
