// Package lifecycle says what can happen to one host in one rollout. It is the
// state machine that the agent runs and the control plane mirrors: the same
// events, stepped by the same code, give the same Host on both sides.
//
// It promises that every host ends: on its target (Converged), on what ran before
// (Reverted), given up with nothing owed (Failed), or taken over by a newer
// rollout (Superseded). It needs events that report what was observed. It never
// does I/O, asks a clock, or decides by a difference of wall times: all durations
// are differences of running time, the seconds that the machine has been awake
// since it accepted the rollout, which travel with each event.
//
// There are no effects that a crash could lose. Step takes an event, Want says
// what should be under way as a function of the Host alone, and Due says which
// event time or an observation has made true. What a crash interrupted is still
// wanted after it.
//
// # Rules for the caller
//
//  1. One goroutine owns a Host and is the only one to step it.
//  2. Number an event when it is committed: Seq is the Host's Seq + 1. The control
//     plane steps the numbers as they were sent. Never number twice what was
//     refused here: do not commit it.
//  3. Commit the new Host and its event in one transaction, and only then act on
//     it, send it or answer for it.
//  4. A number that was taken before gives the same Host and no error. Compare the
//     bytes: other bytes under the same number are another history.
//  5. After a *Gap fetch what is missing. After a *Refused keep the Host that came
//     with the error: the event has had its number, and nothing else changed.
//  6. Active never falls below the Host's. Save it with the Host every few minutes
//     while the rollout is not terminal, and go on from there after a restart.
//  7. After each commit, at each start and when the time that Due named has passed,
//     ask Due until it gives nothing, committing what it gives, and compare
//     Want with what is under way. Give Due an observation whenever there is one:
//     without it nothing converges and no drift is seen.
//  8. Ask Due for the rollout that is live, or else the newest that has ended, and
//     for the accepted one beside it. Roots and Fetch come from both, all other
//     work from the live one.
//  9. When the guard has acted, commit what GuardActed says before anything else.
//  10. A rollout begins to change the machine by what TakeOver says, in one
//     transaction with the end of the older one.
//
// # Transitions
//
// What has no row here is refused. A rollback is owed only where the target is not
// prior, and "owed" means Failed with it until RollbackComplete.
//
//	from                       event                              to
//	Pending                    DispatchAck                        Activating
//	Activating, not mutated    ActivationStarted                  Activating, mutated
//	Activating, mutated        ActivationCompleted on the target  Soaking
//	Activating, mutated        ActivationDeferred                 Deferred
//	  with a signal pending    either, or a boot into prior       Failed{signal}, owed
//	Activating, Deferred       ActivationFailed                   Failed; owed if mutated, or not standing on prior
//	Activating                 Failed{deadline,signal,drift}      Failed; owed if mutated, never for drift
//	Deferred                   Failed{signal,drift}               Failed; owed for signal
//	Deferred                   ActivationCompleted after a boot   Soaking
//	Deferred                   RebootStarted                      Deferred
//	Activating mutated or      Observed, a boot into prior,       Activating, mutated, retried;
//	Soaking not persisted        the first time                     the soak is forgotten
//	Activating mutated         Observed, a boot into what ran     the same
//	                             before, where it is not prior
//	Soaking                    probe events, Confirmed,           Soaking
//	                             Persisted, PersistFailed
//	Soaking                    Observed, a boot into target       Soaking, confirmation wanted again
//	Soaking                    ActivationFailed{boot} on prior    Failed, owed
//	Soaking                    Failed                             Failed; owed but for drift, and for
//	                                                                probes under the policy halt
//	Soaking                    Converged, invariants hold         Converged
//	Converged                  probe events, HealthChanged        Converged
//	Failed, owed               RollbackFailed, RebootStarted      Failed
//	Failed, owed               RollbackComplete to prior          Reverted
//	Pending, Activating not    Superseded                         Superseded
//	  mutated, Soaking
//	Deferred, prior boots      Superseded                         Superseded
//	Failed, not owed or after  Superseded                         Superseded
//	  a RollbackFailed
//	Activating not mutated,    RollbackSignal obeyed              Failed{signal}; owed if mutated
//	  Deferred, Soaking
//	Activating, mutated        RollbackSignal obeyed              the same, signal pending
//	any                        RollbackSignal not obeyed,         the same; Observed updates the facts
//	                             Observed, Notice
//
// Invariants of Converged: the target runs; the probes were declared and every
// enforced one's latest result is a pass, since the activation; an uplink was
// reached from the target in this boot, if the policy wants that; the soak has
// passed; the target is the boot default. An unchanged host (its target is what
// ran, and what it would go back to) has no soak and no confirmation.
package lifecycle
