package wire

import "nixfleet/internal/fleet"

// ActionRequest is the body of an operator's action. Why is required and kept in
// the audit log; who is asking comes from the certificate.
type ActionRequest struct {
	Why string `json:"why"`
	// Hosts, for skip: whom to skip; for resume: whose failure is accepted.
	Hosts []string `json:"hosts,omitempty"`
}

// RollbackResponse answers a rollback: hosts that were asked to go back, hosts
// that stay because they have converged, and the command that moves those.
type RollbackResponse struct {
	GoingBack []string `json:"goingBack"`
	Staying   []string `json:"staying"`
	Command   string   `json:"command,omitempty"`
}

// QuarantineClearRequest lifts one quarantine.
type QuarantineClearRequest struct {
	Why     string        `json:"why"`
	Channel string        `json:"channel"`
	Closure fleet.Closure `json:"closure"`
}
