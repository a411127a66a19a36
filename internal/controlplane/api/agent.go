package api

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"nixfleet/internal/crashpoint"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// When the control plane stops, parked polls end spread over a time: so long for
// each of them, and so long at most.
const (
	drainEach = 5 * time.Millisecond
	drainMost = 5 * time.Second
)

// minWait is the shortest that a poll is parked: orders are handed to parked
// polls alone.
const minWait = time.Second

func (a *API) dispatch(w http.ResponseWriter, r *http.Request, who caller) error {
	wait, err := waitOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	a.parked.Add(1)
	defer a.parked.Add(-1)
	stop := context.AfterFunc(a.Draining, func() {
		// Not all at once: they come back to whoever is next.
		time.AfterFunc(rand.N(min(time.Duration(a.parked.Load())*drainEach+1, drainMost)), cancel)
	})
	defer stop()
	order, err := a.Core.Poll(ctx, who.host())
	switch {
	case err != nil && ctx.Err() == nil:
		return err
	case order == nil:
		return noContent(w)
	}
	crashpoint.Here("api/order-answered", "the delivery of an order is stored; its answer is not sent")
	return answer(w, order)
}

func waitOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get(wire.QueryWait)
	if text == "" {
		return minWait, nil
	}
	secs, err := strconv.Atoi(text)
	if err != nil || secs < 0 {
		return 0, wire.Errorf(wire.SlugBadRequest, "wait=%.20q: seconds from 0 to %d are allowed", text, int(wire.MaxWait.Seconds()))
	}
	return max(minWait, min(wire.MaxWait, time.Duration(secs)*time.Second)), nil
}

func (a *API) reject(w http.ResponseWriter, r *http.Request, who caller) error {
	var reject wire.Reject
	if err := readJSON(r, &reject); err != nil {
		return err
	}
	if err := a.Core.Reject(r.Context(), who.host(), reject); err != nil {
		return err
	}
	return noContent(w)
}

func (a *API) event(w http.ResponseWriter, r *http.Request, who caller) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return readError(err)
	}
	results, err := a.Core.Ingest(r.Context(), who.host(), []json.RawMessage{raw})
	if err != nil {
		return err
	}
	switch result := results[0]; result.Status {
	case wire.StatusStored, wire.StatusRepeated, wire.StatusUnknown, wire.StatusUnmirrored:
		return noContent(w)
	default:
		return result.Error
	}
}

func (a *API) events(w http.ResponseWriter, r *http.Request, who caller) error {
	var batch struct {
		Events []json.RawMessage `json:"events"`
	}
	if err := readJSON(r, &batch); err != nil {
		return err
	}
	results, err := a.Core.Ingest(r.Context(), who.host(), batch.Events)
	if err != nil {
		return err
	}
	crashpoint.Here("api/events-answered", "events are stored; the host does not know it")
	return answer(w, wire.BatchResponse{Results: results})
}

func (a *API) heartbeat(w http.ResponseWriter, r *http.Request, who caller) error {
	var beat wire.HeartbeatRequest
	if err := readJSON(r, &beat); err != nil {
		return err
	}
	if beat.Hostname != who.host() {
		return wire.Errorf(wire.SlugForbidden, "the heartbeat is of host %q, the certificate of %s", beat.Hostname, who.host())
	}
	if beat.AgentVersion == "" {
		beat.AgentVersion = r.Header.Get(wire.HeaderAgentVersion)
	}
	reply, err := a.Core.Heartbeat(r.Context(), who.host(), beat)
	if err != nil {
		return err
	}
	return answer(w, reply)
}

func (a *API) closure(http.ResponseWriter, *http.Request, caller) error {
	return wire.Errorf(wire.SlugNoUpstream, "this control plane passes on no binary cache")
}

func (a *API) whoami(w http.ResponseWriter, _ *http.Request, who caller) error {
	v := wire.Whoami{CN: who.cert.Subject.CommonName, Role: string(who.role.Kind), NotAfter: who.cert.NotAfter}
	if who.role.Kind == identity.Agent {
		v.Host = who.host()
	}
	return answer(w, v)
}
