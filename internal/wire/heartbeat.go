package wire

import (
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
)

// HeartbeatRequest is the host's sign of life. It never changes a rollout's
// state. BootID and AckedSeqByRollout are sent every time. The fields after
// them are sent when they changed, and at least every tenth time: a nil or
// empty one means "as before", never "zero".
type HeartbeatRequest struct {
	Hostname          string           `json:"hostname"`
	RolloutID         string           `json:"rollout_id,omitempty"`
	CurrentClosure    fleet.Closure    `json:"current_closure,omitempty"`
	At                time.Time        `json:"at"`
	BootID            string           `json:"boot_id,omitempty"`
	AckedSeqByRollout map[string]int64 `json:"acked_seq_by_rollout,omitzero"`

	LastSeqByRollout map[string]int64            `json:"last_seq_by_rollout,omitzero"`
	AgentVersion     string                      `json:"agent_version,omitempty"`
	UptimeSecs       *int64                      `json:"uptime_secs,omitempty"`
	BootedClosure    fleet.Closure               `json:"booted_closure,omitempty"`
	BootDefault      fleet.Closure               `json:"boot_default,omitempty"`
	Phase            string                      `json:"phase,omitempty"`
	WaitingOn        []WaitingOn                 `json:"waiting_on,omitzero"`
	PendingReboot    *bool                       `json:"pending_reboot,omitempty"`
	Drifted          *bool                       `json:"drifted,omitempty"`
	OutboxDepth      *int                        `json:"outbox_depth,omitempty"`
	DeadLetters      *int                        `json:"dead_letters,omitempty"`
	Clock            *Clock                      `json:"clock,omitempty"`
	Disk             *Disk                       `json:"disk,omitempty"`
	Probes           map[string]lifecycle.Status `json:"probes,omitzero"`
}

// Clock is what the host knows about its clock.
type Clock struct {
	Synchronized bool  `json:"synchronized"`
	OffsetMs     int64 `json:"offset_ms"` // against the control plane's Date header; positive: the host is ahead
}

// Disk is the free space in bytes.
type Disk struct {
	NixFree  int64 `json:"nix_free"`
	BootFree int64 `json:"boot_free"`
}

// HeartbeatResponse tells the host when to report again and what the control
// plane misses. BootstrapRollouts is the answer to a host whose journal was
// lost: only the numbers in it are ever used.
type HeartbeatResponse struct {
	ReceivedAt        time.Time          `json:"received_at"`
	NextHeartbeatSecs int                `json:"next_heartbeat_secs,omitempty"`
	Replay            []Replay           `json:"replay,omitempty"`
	Documents         *Documents         `json:"documents,omitempty"`
	BootstrapRollouts []BootstrapRollout `json:"bootstrap_rollouts,omitempty"`
}

// Replay asks for a rollout's acknowledged events again, from FromSeq on.
type Replay struct {
	RolloutID string `json:"rollout_id"`
	FromSeq   int64  `json:"from_seq"`
}

// Documents are the ETags of what the control plane serves to this host.
type Documents struct {
	Fleet    string `json:"fleet,omitempty"`
	Manifest string `json:"manifest,omitempty"`
	// Rollout is whose manifest that is: the newest that names this host. It is a
	// hint, and no order.
	Rollout string `json:"rollout,omitempty"`
}

// BootstrapRollout is the last stored event of a rollout.
type BootstrapRollout struct {
	RolloutID    string `json:"rolloutId"`
	LastEventSeq int64  `json:"lastEventSeq"`
}
