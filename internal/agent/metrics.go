package agent

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// serveMetrics writes the metrics in Prometheus' text format. They are few and
// all known from the state, so that no library has to be resident for them.
func (a *Agent) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	s := a.reducer.view()
	st := a.status(s)
	var b bytes.Buffer
	gauge := func(name, help string, value float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n%s %s\n", name, help, name, name, number(value))
	}
	labelled := func(name, help string, samples func(sample func(labels string, value float64))) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
		samples(func(labels string, value float64) { fmt.Fprintf(&b, "%s{%s} %s\n", name, labels, number(value)) })
	}
	labelled("nixfleet_agent_info", "The agent and what the machine runs.", func(sample func(string, float64)) {
		sample(fmt.Sprintf("version=%q,current=%q,boot_default=%q", st.Version, st.Current, st.BootDefault), 1)
	})
	labelled("nixfleet_agent_rollout_state", "The state of the rollout that is live, comes next or ended last.", func(sample func(string, float64)) {
		sample(fmt.Sprintf("rollout=%q,state=%q", st.Rollout, st.State), 1)
	})
	labelled("nixfleet_agent_waiting_on", "What the agent waits for.", func(sample func(string, float64)) {
		for _, on := range st.waitingOn() {
			sample(fmt.Sprintf("on=%q", on), 1)
		}
	})
	labelled("nixfleet_agent_probe_passing", "Whether a probe passed, as last committed.", func(sample func(string, float64)) {
		for _, p := range st.Probes {
			sample(fmt.Sprintf("probe=%q,mode=%q", p.Name, p.Mode), truth(p.Status == "pass"))
		}
	})
	gauge("nixfleet_agent_outbox_events", "Events that the control plane has not stored.", float64(st.OutboxDepth))
	gauge("nixfleet_agent_dead_letters", "Events that the control plane refused.", float64(s.deadLetters()))
	gauge("nixfleet_agent_quarantined_closures", "Closures that are not tried again here for now.", float64(len(st.Quarantine)))
	gauge("nixfleet_agent_clock_synchronised", "Whether the kernel's clock is synchronised.", truth(st.ClockSynchronised))
	gauge("nixfleet_agent_clock_offset_seconds", "How far the clock is ahead of the control plane's.", float64(st.ClockOffsetMs)/1000)
	if !st.ControlPlaneSeenAt.IsZero() {
		gauge("nixfleet_agent_control_plane_answer_seconds", "Time since the control plane answered.", time.Since(st.ControlPlaneSeenAt).Seconds())
	}
	if cert, err := a.uplink.Certificate(); err == nil {
		gauge("nixfleet_agent_certificate_expiry_timestamp_seconds", "When the client certificate expires.", float64(cert.NotAfter.Unix()))
	}
	gauge("nixfleet_agent_worker_panics", "Workers that panicked and were started again.", float64(st.WorkerPanics))
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // whoever asked has gone away
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
