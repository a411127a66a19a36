package lifecycle

// After convergence nothing is rolled back any more; changes are told, and how
// often it went to and fro in between.

func (h *Host) healthChanged(b HealthChanged) string {
	if h.State != Converged {
		return wrongState
	}
	at := h.Active
	h.Unhealthy, h.Drifted = !b.Healthy, b.Drifted
	h.HealthChangedActive, h.HealthChanges = &at, 0
	return ""
}

// watchHealth makes a change and, after convergence, counts it when it changed
// the host's health.
func (h *Host) watchHealth(change func()) {
	if h.State != Converged {
		change()
		return
	}
	before := h.health()
	change()
	if h.health() != before {
		h.HealthChanges++
	}
}

// health is what HealthChanged reports.
type health struct{ unhealthy, drifted bool }

func (h *Host) health() health {
	now := health{drifted: h.Current != h.Target || h.BootDefault != "" && h.BootDefault != h.Target}
	for _, p := range h.Probes {
		if p.failing() {
			now.unhealthy = true
		}
	}
	return now
}

// failingProbes are the names of the probes that count and fail.
func (h *Host) failingProbes() []string {
	names := []string{} // empty, not null, on the wire
	for _, p := range h.Probes {
		if p.failing() {
			names = append(names, p.Name)
		}
	}
	return names
}
