package agent

import (
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
)

// committed passes the crash points of a turn that was committed and that nobody
// knows of yet: nothing has been done about it.
func (t *turn) committed() {
	for _, e := range t.events {
		switch e.event.Body.Kind() {
		case lifecycle.KindDispatchAck:
			crashpoint.Here("agent/accepted", "the rollout is accepted; nothing of it has begun")
		case lifecycle.KindActivationStarted:
			crashpoint.Here("agent/activation-started", "prior and target are fixed; the machine was not touched")
		case lifecycle.KindActivationCompleted:
			crashpoint.Here("agent/activation-completed", "the target runs, and that is committed; prior boots")
		case lifecycle.KindActivationDeferred:
			crashpoint.Here("agent/activation-deferred", "the target boots, and that is committed; prior runs")
		case lifecycle.KindActivationFailed:
			crashpoint.Here("agent/activation-failed", "that the switch failed is committed; nothing of the rollback is done")
		case lifecycle.KindConfirmed:
			crashpoint.Here("agent/confirmed", "that the new system is reached is committed; prior boots")
		case lifecycle.KindPersisted:
			crashpoint.Here("agent/persisted", "the target runs and boots, and that is committed")
		case lifecycle.KindConverged:
			crashpoint.Here("agent/converged", "the rollout has ended well, and that is committed; the lease is still there")
		case lifecycle.KindFailed:
			crashpoint.Here("agent/gave-up", "that the target is given up is committed; nothing of the rollback is done")
		case lifecycle.KindRollbackComplete:
			crashpoint.Here("agent/rolled-back", "prior runs and boots, and that is committed; the lease is still there")
		}
	}
}
