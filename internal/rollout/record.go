package rollout

import "nixfleet/internal/lifecycle"

// Record takes what lifecycle.Step made of an event of a host: the row's new
// mirror, and what follows from it. Body is nil when Step refused the event.
func Record(w *World, after lifecycle.Host, body lifecycle.Body) {}

// MayAcknowledge tells whether a DispatchAck may be stored: the host holds a
// slot, needs none, or there is one for it. When it tells false the host is
// answered no-slot and does not start.
func MayAcknowledge(w *World, rollout, host string, ack lifecycle.DispatchAck) bool { return false }
