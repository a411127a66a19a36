package agent

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/wire"
)

const (
	// maxHold bounds a hold: a host that is forgotten in one falls behind.
	maxHold = 30 * 24 * time.Hour
	// maxHoldReason is the length of the longest reason, in bytes: it goes into
	// every reject.
	maxHoldReason = 512
	// heldRetry is how soon after a release a target that was refused may be
	// offered again.
	heldRetry = 5 * time.Minute
)

// HoldRequest asks that no new targets are taken. A hold that is there is
// replaced.
type HoldRequest struct {
	Reason string `json:"reason"`
	Secs   int64  `json:"secs"` // how long, by the wall clock
}

// HoldResponse is the hold, and what goes on in spite of it.
type HoldResponse struct {
	Hold    journal.Hold `json:"hold"`
	Rollout string       `json:"rollout,omitempty"` // that is under way
	State   string       `json:"state,omitempty"`   // it is in
}

// ReleaseResponse is the hold that was ended, nil when there was none.
type ReleaseResponse struct {
	Released *journal.Hold `json:"released"`
}

func (r HoldRequest) validate() error {
	switch {
	case strings.TrimSpace(r.Reason) == "":
		return errors.New("reason: a hold wants one, for whoever wonders why this host falls behind")
	case len(r.Reason) > maxHoldReason || !utf8.ValidString(r.Reason) || strings.ContainsFunc(r.Reason, unicode.IsControl):
		return fmt.Errorf("reason: one line of at most %d bytes is allowed", maxHoldReason)
	case r.Secs < 1 || r.Secs > int64(maxHold/time.Second):
		return fmt.Errorf("a hold lasts from one second to %s", maxHold)
	}
	return nil
}

// hold is the hold that keeps new targets away now, or nil.
func (s *state) hold(now time.Time) *journal.Hold {
	if h := s.self.Hold; h != nil && now.Before(h.Until) {
		return h
	}
	return nil
}

// held refuses a new target while an administrator holds the host.
func (t *turn) held() error {
	h := t.next.hold(t.now)
	if h == nil {
		return nil
	}
	return &rejection{
		Reason: wire.RejectHeld,
		Detail: fmt.Sprintf("an administrator of this host takes no new targets until %s: %s; it ends before that with `nixfleet-agent release` there",
			h.Until.Format(time.RFC3339), h.Reason),
		RetryAfter: min(h.Until.Sub(t.now), heldRetry),
	}
}

func (a *Agent) serveHold(w http.ResponseWriter, r *http.Request) {
	request, err := readRequest[HoldRequest](w, r)
	if err == nil {
		err = request.validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var response HoldResponse
	err = a.reducer.submit(r.Context(), "hold", func(t *turn) error {
		since := t.now.UTC().Truncate(time.Second)
		hold := journal.Hold{Reason: request.Reason, Since: since, Until: since.Add(time.Duration(request.Secs) * time.Second)}
		t.updateSelf(func(s *journal.Self) { s.Hold = &hold })
		response.Hold = hold
		if e := t.next.current(); e != nil && !e.Host.Terminal() {
			response.Rollout, response.State = e.Host.Rollout, string(e.Host.State)
		}
		return nil
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	a.log.Warn("new targets are held by hand", "reason", response.Hold.Reason, "until", response.Hold.Until)
	a.pollNow.tell() // so that the control plane hears of it
	respond(w, response)
}

func (a *Agent) serveRelease(w http.ResponseWriter, r *http.Request) {
	if _, err := readRequest[struct{}](w, r); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var response ReleaseResponse
	err := a.reducer.submit(r.Context(), "release", func(t *turn) error {
		response.Released = t.next.hold(t.now)
		if t.next.self.Hold != nil {
			t.updateSelf(func(s *journal.Self) { s.Hold = nil })
		}
		return nil
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if response.Released != nil {
		a.log.Warn("the hold was ended by hand", "reason", response.Released.Reason)
		a.pollNow.tell()
	}
	respond(w, response)
}
