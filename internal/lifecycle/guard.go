package lifecycle

// GuardActed is what tells that the guard has taken the host back to prior while
// the agent could not: to be committed at the agent's start before the machine is
// looked at, because what the guard did is no drift. It is empty where the rollout
// has no guard.
func GuardActed(h Host, detail string) []Body {
	told := []Body{Notice{Code: NoticeGuardActed, Detail: detail}}
	switch {
	case h.State == Activating && h.Mutated:
		told = append(told, h.gives(CauseDeadline, 0))
	case h.State == Deferred:
		told = append(told, ActivationFailed{ExitCode: noExit, StderrTail: detail, Phase: PhaseBoot, Mutated: true})
	case h.State == Soaking:
		told = append(told, h.gives(CauseConfirm, h.Active-h.CompletedActive))
	case h.State == Failed && h.RollbackOwed:
	default:
		return nil
	}
	return append(told, RollbackComplete{RevertedToClosure: h.Prior})
}
