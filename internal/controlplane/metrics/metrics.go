// Package metrics names everything that the control plane counts.
//
// Each control plane has a registry of its own, so that many can live in one
// process. What is derived from the fleet's state (hosts by state, rollouts,
// deferrals, ages of documents) is read when it is scraped, by the collector
// that the wiring registers.
package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const namespace = "nixfleet_control_plane"

// Metrics are the counters of one control plane.
type Metrics struct {
	Registry *prometheus.Registry

	Commit         prometheus.Histogram // seconds in the store
	BatchRecords   prometheus.Histogram
	CommitFailures prometheus.Counter
	Plan           prometheus.Histogram // seconds
	Events         *prometheus.CounterVec
	SecurityAlerts *prometheus.CounterVec
	Parked         prometheus.Gauge
	Orders         *prometheus.CounterVec
	Issued         *prometheus.CounterVec
	Problems       *prometheus.CounterVec
	Requests       *prometheus.HistogramVec // seconds
}

// New makes the metrics and their registry.
func New() *Metrics {
	m := &Metrics{
		Registry: prometheus.NewRegistry(),
		Commit: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "commit_seconds",
			Help: "Time that the store took for one batch.", Buckets: prometheus.ExponentialBuckets(0.0002, 2, 16)}),
		BatchRecords: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "batch_records",
			Help: "Records that one batch stored.", Buckets: prometheus.ExponentialBuckets(1, 2, 14)}),
		CommitFailures: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "commit_failures_total",
			Help: "Batches that the store did not take."}),
		Plan: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: "plan_seconds",
			Help: "Time that one plan took.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		Events: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "events_total",
			Help: "Events received, by kind and by what became of them."}, []string{"kind", "status"}),
		SecurityAlerts: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "security_alerts_total",
			Help: "What somebody should look at: wrong signatures, revoked keys, tokens of strangers."}, []string{"what"}),
		Parked: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: "parked_polls",
			Help: "Hosts that wait for an order now."}),
		Orders: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "orders_total",
			Help: "Orders handed out, by kind; an order that is offered again counts again."}, []string{"kind"}),
		Issued: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "certificates_issued_total",
			Help: "Certificates issued, by the reason."}, []string{"for"}),
		Problems: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "document_problems_total",
			Help: "Polls in which a published document was not good, by the reason."}, []string{"reason"}),
		Requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "request_seconds",
			Help: "Requests by route and status; dispatch polls are as long as they are parked.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9)}, []string{"route", "code"}),
	}
	m.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.Commit, m.BatchRecords, m.CommitFailures, m.Plan, m.Events, m.SecurityAlerts,
		m.Parked, m.Orders, m.Issued, m.Problems, m.Requests,
	)
	return m
}
