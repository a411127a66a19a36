package core

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collectTimeout bounds how long a scrape waits for the core.
const collectTimeout = 5 * time.Second

// Gauges of the fleet's state, read when they are scraped.
var (
	descHosts       = describe("hosts", "Hosts of the channels' newest rollouts, by state.", "channel", "state")
	descConditions  = describe("host_conditions", "Hosts with a condition, such as diverged, drifted, lost or unseen.", "condition")
	descDeferrals   = describe("deferrals", "Hosts that a gate holds back.", "gate")
	descRollouts    = describe("rollouts", "Rollouts that are not pruned, by state.", "state")
	descQuarantines = describe("quarantines", "Closures that a channel does not roll out.", "channel")
	descRecovering  = describe("recovering", "1 while the database may know less than the hosts do.")
	descAge         = describe("document_age_seconds", "Age of the newest bytes of a rollout's manifest.", "rollout")
	descStale       = describe("document_stale_in_seconds", "Time until the newest bytes of a rollout's manifest are too old to be dispatched.", "rollout")
	descPlanned     = describe("last_plan_timestamp_seconds", "When the planner last ran.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("nixfleet_"+name, help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *Core) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHosts, descConditions, descDeferrals, descRollouts, descQuarantines, descRecovering, descAge, descStale, descPlanned} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. A core that does not answer in time
// has no gauges; that it has not, and the counters, are what an alert is for.
func (c *Core) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	var all []prometheus.Metric
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...))
	}
	err := c.view(ctx, func(s *state) {
		conditions, gates, states := map[string]int{}, map[string]int{}, map[string]int{}
		now := time.Now()
		for _, host := range s.hosts() {
			r, h := s.newest(host)
			for _, condition := range c.conditions(s, host, r, h) {
				conditions[condition]++
			}
		}
		for id, r := range s.world.Rollouts {
			states[string(r.State)]++
			if s.world.Channels[r.Channel].Newest != id {
				continue
			}
			for state, n := range byState(r.Hosts) {
				gauge(descHosts, float64(n), r.Channel, state)
			}
			for i := range r.Hosts {
				if d := r.Hosts[i].Deferral; d != nil {
					gates[string(d.Gate)]++
				}
			}
			gauge(descAge, now.Sub(r.SignedAt).Seconds(), id)
			if at := staleAt(r); !at.IsZero() {
				gauge(descStale, at.Sub(now).Seconds(), id)
			}
		}
		quarantines := map[string]int{}
		for _, q := range s.world.Quarantines {
			quarantines[q.Channel]++
		}
		for _, each := range []struct {
			desc   *prometheus.Desc
			counts map[string]int
		}{{descConditions, conditions}, {descDeferrals, gates}, {descRollouts, states}, {descQuarantines, quarantines}} {
			for label, n := range each.counts {
				gauge(each.desc, float64(n), label)
			}
		}
		recovering := 0.0
		if s.world.Recovery != nil {
			recovering = 1
		}
		gauge(descRecovering, recovering)
	})
	if err != nil {
		return
	}
	gauge(descPlanned, float64(c.Health().PlannedAt.UnixMilli())/1000)
	for _, m := range all {
		ch <- m
	}
}
