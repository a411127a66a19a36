package wire

import (
	"encoding/json"
	"time"
)

// EnrollRequest asks for a first certificate. Token is the bootstrap token as it
// was minted; its claims are verified over these bytes.
type EnrollRequest struct {
	Token  json.RawMessage `json:"token"`
	CSRPem string          `json:"csrPem"`
}

// RenewRequest asks for the next certificate of the presented one's name.
type RenewRequest struct {
	CSRPem string `json:"csrPem"`
}

// CertificateResponse answers EnrollRequest and RenewRequest. CertPem is the
// certificate, followed by intermediates when there are any.
type CertificateResponse struct {
	CertPem  string    `json:"certPem"`
	NotAfter time.Time `json:"notAfter"`
}

// BootstrapReport tells why a host that has no certificate cannot get one. It
// does not consume the token.
type BootstrapReport struct {
	Token        json.RawMessage `json:"token"`
	AgentVersion string          `json:"agentVersion"`
	OccurredAt   time.Time       `json:"occurredAt"`
	Event        BootstrapEvent  `json:"event"`
}

// BootstrapEvent is what went wrong.
type BootstrapEvent struct {
	Kind   BootstrapEventKind `json:"kind"`
	Reason string             `json:"reason"`
}

// BootstrapEventKind classifies a BootstrapEvent.
type BootstrapEventKind string

// The kinds of bootstrap events.
const (
	BootstrapTrustError       BootstrapEventKind = "TrustError"
	BootstrapEnrollmentFailed BootstrapEventKind = "EnrollmentFailed"
)

// Whoami is what the control plane takes the caller for. Role is empty when the
// certificate has none; Host is set for agents only.
type Whoami struct {
	CN       string    `json:"cn"`
	Role     string    `json:"role"`
	Host     string    `json:"host,omitempty"`
	NotAfter time.Time `json:"notAfter"`
}
