package lifecycle

// GuardActed is what tells that the guard has taken the host back to prior while
// the agent could not: to be committed at the agent's start before the machine is
// looked at, because what the guard did is no drift. A rollout that wants no guard
// only tells that it acted: it could not read that it was not wanted.
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
	case h.State == Reverted:
		return nil // told already, or nothing to tell
	default:
		return told
	}
	return append(told, RollbackComplete{RevertedToClosure: h.Prior})
}
