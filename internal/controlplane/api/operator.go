package api

import (
	"net/http"
	"strconv"
	"strings"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// The number of items in a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get(wire.QueryLimit)
	if text == "" {
		return defaultPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, wire.Errorf(wire.SlugBadRequest, "limit=%.20q: 1 to %d are allowed", text, maxPage)
	}
	return min(n, maxPage), nil
}

// afterName is the item to go on after, of lists that names order.
func afterName(r *http.Request) string { return r.URL.Query().Get(wire.QueryAfter) }

// afterLog is the place in the log to go on after.
func afterLog(r *http.Request) (int64, error) {
	text := afterName(r)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, wire.Errorf(wire.SlugBadRequest, "after=%.20q: the next of the page before is needed", text)
	}
	return n, nil
}

// answerPage answers one page; a full one may have another after it.
func answerPage[T any](w http.ResponseWriter, items []T, limit int, name func(T) string) error {
	next := ""
	if len(items) == limit {
		next = name(items[len(items)-1])
	}
	return answer(w, wire.NewPage(items, next))
}

// pageOf cuts a page out of a whole list.
func pageOf[T any](w http.ResponseWriter, r *http.Request, items []T, name func(T) string) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	if after := afterName(r); after != "" {
		for i := range items {
			if name(items[i]) == after {
				items = items[i+1:]
				break
			}
		}
	}
	return answerPage(w, items[:min(limit, len(items))], limit, name)
}

func (a *API) hosts(w http.ResponseWriter, r *http.Request, _ caller) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	hosts, err := a.Core.Hosts(r.Context(), afterName(r), limit)
	if err != nil {
		return err
	}
	return answerPage(w, hosts, limit, func(h wire.HostView) string { return h.Hostname })
}

func (a *API) host(w http.ResponseWriter, r *http.Request, _ caller) error {
	name := r.PathValue("host")
	v, ok, err := a.Core.Host(r.Context(), name)
	switch {
	case err != nil:
		return err
	case !ok:
		return noHost(name)
	}
	return answer(w, v)
}

func noHost(name string) error {
	return wire.Errorf(wire.SlugNotFound, "there is no host %.100q", name)
}

func (a *API) hostEvents(w http.ResponseWriter, r *http.Request, _ caller) error {
	return a.eventPage(w, r, store.EventFilter{Hostname: r.PathValue("host")})
}

func (a *API) rolloutEvents(w http.ResponseWriter, r *http.Request, _ caller) error {
	return a.eventPage(w, r, store.EventFilter{Rollout: r.PathValue("id")})
}

func (a *API) eventPage(w http.ResponseWriter, r *http.Request, f store.EventFilter) (err error) {
	if f.Limit, err = limitOf(r); err != nil {
		return err
	}
	if f.After, err = afterLog(r); err != nil {
		return err
	}
	events, err := a.Core.Events(r.Context(), f)
	if err != nil {
		return err
	}
	return answerPage(w, events, f.Limit, func(e wire.EventView) string { return strconv.FormatInt(e.LogID, 10) })
}

func (a *API) hostEvidence(w http.ResponseWriter, r *http.Request, _ caller) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	after, err := afterLog(r)
	if err != nil {
		return err
	}
	items, err := a.Core.Evidence(r.Context(), r.PathValue("host"), after, limit)
	if err != nil {
		return err
	}
	return answerPage(w, items, limit, func(e wire.EvidenceItem) string { return strconv.FormatInt(e.LogID, 10) })
}

func (a *API) channels(w http.ResponseWriter, r *http.Request, _ caller) error {
	all, err := a.Core.Channels(r.Context())
	if err != nil {
		return err
	}
	return pageOf(w, r, all, func(c wire.ChannelView) string { return c.Channel })
}

func (a *API) channel(w http.ResponseWriter, r *http.Request, _ caller) error {
	v, err := a.channelView(r)
	if err != nil {
		return err
	}
	return answer(w, v)
}

func (a *API) channelView(r *http.Request) (wire.ChannelView, error) {
	name := r.PathValue("channel")
	v, ok, err := a.Core.Channel(r.Context(), name)
	if err == nil && !ok {
		err = wire.Errorf(wire.SlugNotFound, "there is no channel %.100q", name)
	}
	return v, err
}

func (a *API) rollouts(w http.ResponseWriter, r *http.Request, _ caller) error {
	all, err := a.Core.Rollouts(r.Context())
	if err != nil {
		return err
	}
	return pageOf(w, r, all, func(v wire.RolloutView) string { return v.RolloutID })
}

func (a *API) rolloutLifecycle(w http.ResponseWriter, r *http.Request, _ caller) error {
	v, ok, err := a.Core.RolloutLifecycle(r.Context(), r.PathValue("id"))
	switch {
	case err != nil:
		return err
	case !ok:
		return noRollout(r)
	}
	return answer(w, v)
}

func noRollout(r *http.Request) error {
	return wire.Errorf(wire.SlugNotFound, "there is no rollout %.210q", r.PathValue("id"))
}

func (a *API) rolloutHosts(w http.ResponseWriter, r *http.Request, _ caller) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	hosts, ok, err := a.Core.RolloutHosts(r.Context(), r.PathValue("id"), afterName(r), limit)
	switch {
	case err != nil:
		return err
	case !ok:
		return noRollout(r)
	}
	return answerPage(w, hosts, limit, func(h wire.RolloutHost) string { return h.Hostname })
}

func (a *API) deferrals(w http.ResponseWriter, r *http.Request, _ caller) error {
	all, err := a.Core.Deferrals(r.Context())
	if err != nil {
		return err
	}
	return pageOf(w, r, all, func(d wire.Deferral) string { return d.RolloutID + "/" + d.Hostname })
}

func (a *API) quarantine(w http.ResponseWriter, r *http.Request, _ caller) error {
	all, err := a.Core.Quarantine(r.Context())
	if err != nil {
		return err
	}
	return pageOf(w, r, all, func(q wire.QuarantineView) string { return q.Channel + "/" + string(q.Closure) })
}

func (a *API) audit(w http.ResponseWriter, r *http.Request, _ caller) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	after, err := afterLog(r)
	if err != nil {
		return err
	}
	items, err := a.Core.Audit(r.Context(), after, limit)
	if err != nil {
		return err
	}
	return answerPage(w, items, limit, func(v wire.AuditView) string { return strconv.FormatInt(v.LogID, 10) })
}

func (a *API) certificates(w http.ResponseWriter, r *http.Request, _ caller) error {
	all, err := a.Core.Certificates(r.Context())
	if err != nil {
		return err
	}
	return pageOf(w, r, all, func(c wire.CertificateView) string { return c.Serial })
}

func (a *API) recovery(w http.ResponseWriter, r *http.Request, _ caller) error {
	v, err := a.Core.Recovery(r.Context())
	if err != nil {
		return err
	}
	return answer(w, v)
}

// asked reads an operator's request. Why is required: it is kept for good.
func asked(r *http.Request) (wire.ActionRequest, error) {
	var req wire.ActionRequest
	if err := readJSON(r, &req); err != nil {
		return req, err
	}
	return req, checkWhy(req.Why)
}

func checkWhy(why string) error {
	if strings.TrimSpace(why) == "" {
		return wire.Errorf(wire.SlugBadRequest, "why is required: it is kept in the audit log")
	}
	return nil
}

// act does one operator's action and answers 204.
func (a *API) act(w http.ResponseWriter, r *http.Request, who caller, subject string, body func(why string, hosts []string) rollout.Body) error {
	req, err := asked(r)
	if err != nil {
		return err
	}
	if err := a.Core.Operate(r.Context(), who.role.Name, subject, req.Why, body(req.Why, req.Hosts)); err != nil {
		return err
	}
	return noContent(w)
}

func (a *API) pause(w http.ResponseWriter, r *http.Request, who caller) error {
	v, err := a.channelView(r)
	if err != nil {
		return err
	}
	return a.act(w, r, who, v.Channel, func(why string, _ []string) rollout.Body {
		return rollout.Paused{Channel: v.Channel, Who: who.role.Name, Why: why}
	})
}

func (a *API) unpause(w http.ResponseWriter, r *http.Request, who caller) error {
	v, err := a.channelView(r)
	if err != nil {
		return err
	}
	return a.act(w, r, who, v.Channel, func(why string, _ []string) rollout.Body {
		return rollout.Resumed{Channel: v.Channel, Who: who.role.Name, Why: why}
	})
}

func (a *API) resume(w http.ResponseWriter, r *http.Request, who caller) error {
	id := r.PathValue("id")
	return a.act(w, r, who, id, func(why string, hosts []string) rollout.Body {
		return rollout.Accepted{Rollout: id, Hosts: hosts, Who: who.role.Name, Why: why}
	})
}

func (a *API) skip(w http.ResponseWriter, r *http.Request, who caller) error {
	req, err := asked(r)
	if err != nil {
		return err
	}
	if len(req.Hosts) == 0 {
		return wire.Errorf(wire.SlugBadRequest, "hosts is required: whom to skip")
	}
	id := r.PathValue("id")
	for _, host := range req.Hosts {
		body := rollout.Skipped{Rollout: id, Host: host, Reason: rollout.SkipOperator, Who: who.role.Name, Why: req.Why}
		if err := a.Core.Operate(r.Context(), who.role.Name, id, req.Why, body); err != nil {
			return err
		}
	}
	return noContent(w)
}

func (a *API) advance(w http.ResponseWriter, r *http.Request, who caller) error {
	req, err := asked(r)
	if err != nil {
		return err
	}
	if err := a.Core.Force(r.Context(), who.role.Name, r.PathValue("id"), req.Why); err != nil {
		return err
	}
	return noContent(w)
}

func (a *API) rollback(w http.ResponseWriter, r *http.Request, who caller) error {
	req, err := asked(r)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	back, stay, err := a.Core.Rollback(r.Context(), who.role.Name, id, req.Why)
	if err != nil {
		return err
	}
	v := wire.RollbackResponse{GoingBack: nonNil(back), Staying: nonNil(stay)}
	if channel, _, ok := strings.Cut(id, "@"); ok && len(stay) > 0 {
		v.Command = "nixfleet release --again " + channel
	}
	return answer(w, v)
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (a *API) forget(w http.ResponseWriter, r *http.Request, who caller) error {
	host := r.PathValue("host")
	_, ok, err := a.Core.Host(r.Context(), host)
	switch {
	case err != nil:
		return err
	case !ok:
		return noHost(host)
	}
	return a.act(w, r, who, host, func(why string, _ []string) rollout.Body {
		return rollout.Forgotten{Host: host, Who: who.role.Name, Why: why}
	})
}

func (a *API) clearQuarantine(w http.ResponseWriter, r *http.Request, who caller) error {
	var req wire.QuarantineClearRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if err := checkWhy(req.Why); err != nil {
		return err
	}
	body := rollout.QuarantineCleared{Channel: req.Channel, Closure: req.Closure, Who: who.role.Name, Why: req.Why}
	if err := a.Core.Operate(r.Context(), who.role.Name, req.Channel+" "+string(req.Closure), req.Why, body); err != nil {
		return err
	}
	return noContent(w)
}

func (a *API) endRecovery(w http.ResponseWriter, r *http.Request, who caller) error {
	return a.act(w, r, who, "recovery", func(why string, _ []string) rollout.Body {
		return rollout.Recovered{Who: who.role.Name, Why: why}
	})
}
