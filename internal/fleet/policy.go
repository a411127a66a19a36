package fleet

// Policy is everything that decides about one rollout after its dispatch. It is
// frozen with the plan and never taken from the control plane's word. A decoded
// Policy has the defaults of DefaultPolicy in the fields that were absent.
type Policy struct {
	OnHealthFailure        string        `json:"onHealthFailure"` // halt, rollback-and-halt
	SoakSecsByWave         []int         `json:"soakSecsByWave,omitempty"`
	HealthFailureSecs      int           `json:"healthFailureSecs"`
	Confirm                string        `json:"confirm"` // required, off
	ConfirmWindowSecs      int           `json:"confirmWindowSecs"`
	AliveSecs              int           `json:"aliveSecs"`
	Persist                string        `json:"persist"` // confirmed, converged
	PersistFailureSecs     int           `json:"persistFailureSecs"`
	ActivationDeadlineSecs int           `json:"activationDeadlineSecs"`
	HealthGate             HealthGate    `json:"healthGate"`
	Reboot                 string        `json:"reboot"` // manual, window
	RebootWindow           *RebootWindow `json:"rebootWindow,omitempty"`
	Guard                  string        `json:"guard"` // required, optional: a target without our units may be switched to

	OnNewRelease        string    `json:"onNewRelease"` // supersede, queue
	OfflineAfterMinutes int       `json:"offlineAfterMinutes"`
	HaltAfter           HaltAfter `json:"haltAfter"`
	DeferredAdvances    bool      `json:"deferredAdvances"`
}

// The values of Policy's enumerations.
const (
	HealthHalt            = "halt"
	HealthRollbackAndHalt = "rollback-and-halt"
	ConfirmRequired       = "required"
	ConfirmOff            = "off"
	PersistConfirmed      = "confirmed"
	PersistConverged      = "converged"
	RebootManual          = "manual"
	RebootInWindow        = "window"
	OnNewSupersede        = "supersede"
	OnNewQueue            = "queue"
	GuardRequired         = "required"
	GuardOptional         = "optional"
)

// HealthGate limits what the switch itself may break.
type HealthGate struct {
	SystemdFailedUnits *FailedUnits `json:"systemdFailedUnits,omitempty"`
}

// FailedUnits is the number of newly failed units that a switch may leave.
type FailedUnits struct {
	Max int `json:"max"`
}

// HaltAfter is how many failed or lost hosts halt a rollout: a number, or a
// percentage of the rollout's hosts (at least one). Hosts wins when both are set.
type HaltAfter struct {
	Hosts int `json:"hosts,omitzero"`
	Pct   int `json:"pct,omitzero"`
}

// RebootWindow is when a staged system may be booted into.
type RebootWindow struct {
	Days    []string `json:"days"`  // mon … sun; empty means every day
	Start   string   `json:"start"` // "HH:MM"
	Minutes int      `json:"minutes"`
	TZ      string   `json:"tz"` // IANA name; empty means UTC
}

// DefaultPolicy is what holds where a document says nothing.
func DefaultPolicy() Policy {
	return Policy{
		OnHealthFailure:        HealthRollbackAndHalt,
		HealthFailureSecs:      60,
		Confirm:                ConfirmRequired,
		ConfirmWindowSecs:      360,
		AliveSecs:              120,
		Persist:                PersistConfirmed,
		PersistFailureSecs:     1800,
		ActivationDeadlineSecs: 21600,
		Reboot:                 RebootManual,
		Guard:                  GuardRequired,
		OnNewRelease:           OnNewSupersede,
		OfflineAfterMinutes:    1440,
		HaltAfter:              HaltAfter{Hosts: 1},
	}
}

// SoakSecs is how long a host of the wave soaks. Hosts that no wave lists are in
// a wave after the last, which has no soak.
func (p Policy) SoakSecs(wave int) int {
	if wave < 0 || wave >= len(p.SoakSecsByWave) {
		return 0
	}
	return p.SoakSecsByWave[wave]
}

// MaxFailedUnits is how many newly failed units the switch may leave.
func (p Policy) MaxFailedUnits() int {
	if p.HealthGate.SystemdFailedUnits == nil {
		return 0
	}
	return p.HealthGate.SystemdFailedUnits.Max
}

// Of is how many failed or lost hosts, of n in the rollout, halt it.
func (a HaltAfter) Of(n int) int {
	if a.Hosts > 0 {
		return a.Hosts
	}
	return percent(a.Pct, n)
}
