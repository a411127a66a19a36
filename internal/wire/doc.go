// Package wire is the protocol between agents, the control plane and operators:
// the paths, the headers, the messages, and the flat JSON form of lifecycle
// events.
//
// It promises that every message has exactly the published names and casing:
// dispatch and heartbeat in snake_case, everything else in camelCase. Fields
// are only ever added, and a reader ignores those that it does not know.
//
// It needs from its caller the transport: mutual TLS, the limits below, and the
// order of checks. What is signed (events, tokens) stays raw JSON here, so that
// what is verified is what was received.
//
// It never decides anything and does no I/O.
package wire

import "time"

// ProtocolVersion is the version that HeaderProtocol carries.
const ProtocolVersion = 1

// Headers. HeaderProtocol is required on /v1/enroll and /v1/agent/*: another
// integer is answered with 426, garbage or nothing with 400. Elsewhere it is
// checked when it is present. HeaderAgentVersion only informs.
const (
	HeaderProtocol     = "X-Nixfleet-Protocol"
	HeaderAgentVersion = "X-Nixfleet-Agent-Version"
)

// Limits on request bodies, in bytes; more is answered with 413.
const (
	MaxEventBody = 256 << 10
	MaxBatchBody = 4 << 20
	MaxBody      = 64 << 10 // of every other request
)

// MaxWait is the longest that a dispatch poll may stay parked.
const MaxWait = 60 * time.Second

// ContentType of every JSON body.
const ContentType = "application/json"
