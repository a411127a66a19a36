package api

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"nixfleet/internal/wire"
)

// planStale is how old the last plan may be in a healthy control plane.
const planStale = 60 * time.Second

func (a *API) awaiting() []string {
	var all []string
	if a.Draining.Err() != nil {
		all = append(all, "it is stopping")
	}
	h := a.Core.Health()
	if h.PlannedAt.IsZero() {
		all = append(all, "the first plan")
	}
	if !h.Documents {
		all = append(all, "a fleet document that verifies")
	}
	return all
}

func (a *API) healthz(w http.ResponseWriter, _ *http.Request, _ caller) error {
	planned := a.Core.Health().PlannedAt
	h := wire.Health{
		OK: time.Since(planned) <= planStale, Version: a.Version,
		Ready: len(a.awaiting()) == 0, LastPlanAt: planned.UTC().Truncate(time.Millisecond),
	}
	writeJSON(w, statusIf(h.OK), h)
	return nil
}

func (a *API) readyz(w http.ResponseWriter, _ *http.Request, _ caller) error {
	r := wire.Readiness{Awaiting: a.awaiting()}
	r.Ready = len(r.Awaiting) == 0
	writeJSON(w, statusIf(r.Ready), r)
	return nil
}

func statusIf(good bool) int {
	if good {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

func (a *API) metrics(w http.ResponseWriter, r *http.Request, _ caller) error {
	promhttp.HandlerFor(a.Metrics.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}
