package agent

import (
	"net/http"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/lifecycle"
)

func (a *Agent) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(a.Metrics()) // whoever asked has gone away
}

// Metrics is the answer to a scrape, in Prometheus' text format, from what is in
// memory: it costs no read of the journal and no look at the machine. Each metric
// is told in docs/metrics.md. It may be asked once the agent has said that it is
// ready.
func (a *Agent) Metrics() []byte {
	s := a.reducer.view()
	st := a.status(s)
	var x exposition
	x.tellHost(st)
	x.tellRollout(st)
	x.tellProbes(st)
	a.tellUplink(&x, s, st)
	a.tellJournal(&x, s, st)
	return x.Bytes()
}

func (x *exposition) tellHost(st Status) {
	x.metric("nixfleet_agent_info", "gauge", "The agent's version and what the machine runs and boots; always 1.")(1,
		"version", st.Version, "current", string(st.Current), "boot_default", string(st.BootDefault))
	x.gauge("nixfleet_agent_start_timestamp_seconds", "When this agent started.", timestamp(st.StartedAt))
	x.gauge("nixfleet_agent_boot_default_verified", "Whether a boot loader was asked what it boots.", truth(st.BootDefaultVerified))
	x.gauge("nixfleet_agent_clock_synchronised", "Whether the kernel's clock is synchronised.", truth(st.ClockSynchronised))
	x.gauge("nixfleet_agent_clock_suspect", "Whether the clock is not believed, so that no new targets are taken.", truth(st.ClockSuspect != ""))
	x.gauge("nixfleet_agent_clock_offset_seconds", "How far the clock is ahead of the control plane's.", float64(st.ClockOffsetMs)/1000)
	x.counter("nixfleet_agent_worker_panics_total", "Workers that panicked and were started again.", float64(st.WorkerPanics))
}

// states are the values of the label state, of which one is 1.
var states = []string{
	"Idle", string(lifecycle.Pending), string(lifecycle.Activating), string(lifecycle.Deferred), string(lifecycle.Soaking),
	string(lifecycle.Converged), string(lifecycle.Failed), string(lifecycle.Reverted), string(lifecycle.Superseded),
}

func (x *exposition) tellRollout(st Status) {
	state := x.metric("nixfleet_agent_state", "gauge", "1 for the state of the rollout that is live, comes next or ended last; 0 for the others.")
	for _, name := range states {
		state(truth(st.State == name), "state", name)
	}
	x.metric("nixfleet_agent_rollout_info", "gauge", "The rollout that the state is of; always 1.")(1,
		"rollout", st.Rollout, "target", string(st.Target), "prior", string(st.Prior))
	if !st.Since.IsZero() {
		x.gauge("nixfleet_agent_state_timestamp_seconds", "Since when the rollout has been in its state.", timestamp(st.Since))
	}
	if !st.Deadline.IsZero() {
		x.gauge("nixfleet_agent_deadline_timestamp_seconds", "When the state is left if nothing else happens.", timestamp(st.Deadline))
	}
	if st.Phase != "" {
		x.metric("nixfleet_agent_phase", "gauge", "What the agent is busy with in the rollout; always 1.")(1, "phase", string(st.Phase))
	}
	waiting := x.metric("nixfleet_agent_waiting_on", "gauge", "What the agent waits for, in the words of its status; always 1.")
	for _, on := range st.waitingOn() {
		waiting(1, "on", string(on))
	}
	x.gauge("nixfleet_agent_drifted", "Whether somebody else changed what runs or boots.", truth(st.Drifted))
	x.gauge("nixfleet_agent_pending_reboot", "Whether the target is staged and waits for a boot.", truth(st.State == string(lifecycle.Deferred)))
	x.gauge("nixfleet_agent_held", "Whether an administrator holds the host, so that no new targets are taken.", truth(st.Hold != nil))
	x.gauge("nixfleet_agent_quarantined_closures", "Closures that are not tried again here for now.", float64(len(st.Quarantine)))
}

func (x *exposition) tellProbes(st Status) {
	passing := x.metric("nixfleet_agent_probe_passing", "gauge", "Whether a probe passed, as last committed.")
	for _, p := range st.Probes {
		passing(truth(p.Status == lifecycle.Pass), "probe", p.Name, "kind", p.Kind, "mode", string(p.Mode))
	}
	duration := x.metric("nixfleet_agent_probe_duration_seconds", "gauge", "How long the probe's last run took.")
	for _, p := range st.Probes {
		if p.Last != nil {
			duration(p.Last.Duration.Seconds(), "probe", p.Name)
		}
	}
	at := x.metric("nixfleet_agent_probe_run_timestamp_seconds", "gauge", "When the probe's last run ended.")
	for _, p := range st.Probes {
		if p.Last != nil {
			at(timestamp(p.Last.At), "probe", p.Name)
		}
	}
}

func (a *Agent) tellUplink(x *exposition, s *state, st Status) {
	if !st.ControlPlaneSeenAt.IsZero() {
		x.gauge("nixfleet_agent_control_plane_answer_timestamp_seconds", "When the control plane answered last.", timestamp(st.ControlPlaneSeenAt))
	}
	if cert, err := a.uplink.Certificate(); err == nil {
		x.gauge("nixfleet_agent_certificate_expiry_timestamp_seconds", "When the client certificate expires.", timestamp(cert.NotAfter))
	}
	if signed := s.self.Marks.Manifest.SignedAt; !signed.IsZero() {
		x.gauge("nixfleet_agent_manifest_signed_timestamp_seconds", "When the newest accepted manifest was signed.", timestamp(signed))
	}
	if stale := a.staleAt.Load(); stale != nil {
		x.gauge("nixfleet_agent_manifest_stale_timestamp_seconds", "When the newest manifest that was seen is too old to be accepted.", timestamp(*stale))
	}
	x.counter("nixfleet_agent_fetched_bytes_total", "Bytes of store paths that arrived, unpacked.", float64(a.fetched.Load()))
}

func (a *Agent) tellJournal(x *exposition, s *state, st Status) {
	x.gauge("nixfleet_agent_outbox_events", "Events that the control plane has not stored.", float64(st.OutboxDepth))
	x.gauge("nixfleet_agent_dead_letters", "Events that the control plane refused.", float64(s.deadLetters()))
	n, took := a.journal.Commits()
	x.metric("nixfleet_agent_commit_seconds", "summary", "Time that commits to the journal took.")
	x.sample("nixfleet_agent_commit_seconds_sum", took.Seconds())
	x.sample("nixfleet_agent_commit_seconds_count", float64(n))
}

func timestamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// fetching notes how far a fetch has come. What arrives is counted over all
// fetches; each begins its own progress at nothing.
func (a *Agent) fetching(p host.FetchProgress) {
	before := a.progress.Swap(&p)
	if before == nil || before.Bytes > p.Bytes {
		before = &host.FetchProgress{}
	}
	a.fetched.Add(p.Bytes - before.Bytes)
}
