package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"nixfleet/internal/controlplane/core"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

// retryAfter is when to come again after a 503 that does not say so itself.
const retryAfter = 5 * time.Second

// measured runs a handler, answers its error, and counts both.
func (a *API) measured(path string, handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, code: http.StatusOK}
		if err := handle(rec, r); err != nil {
			a.refuse(rec, r, err)
		}
		a.Metrics.Requests.WithLabelValues(path, strconv.Itoa(rec.code)).Observe(time.Since(start).Seconds())
	}
}

// recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// Unwrap lets http.ResponseController through.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// refuse answers an error.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := a.asError(r, err)
	if code := e.Status(); code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests {
		if e.RetryAfter == 0 {
			// Spread, so that those who were refused together do not return together.
			e.RetryAfter = retryAfter + rand.N(retryAfter)
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	writeJSON(w, e.Status(), e)
}

func (a *API) asError(r *http.Request, err error) *wire.Error {
	var e *wire.Error
	var conflict *rollout.Conflict
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &conflict):
		return wire.Errorf(wire.SlugConflict, "%s", conflict.Why)
	case errors.As(err, &tooLarge):
		return wire.Errorf(wire.SlugTooLarge, "the body has more than %d bytes", tooLarge.Limit)
	case errors.Is(err, core.ErrUnavailable):
		return wire.Errorf(wire.SlugUnavailable, "nothing can be stored at the moment")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wire.Errorf(wire.SlugUnavailable, "the request was given up")
	}
	a.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	return wire.Errorf(wire.SlugInternal, "an error inside the control plane; its log says more")
}

func writeJSON(w http.ResponseWriter, code int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic("api: an answer that cannot be encoded: " + err.Error())
	}
	w.Header().Set("Content-Type", wire.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(body) // the caller is gone: nothing is left to be told
}

func answer(w http.ResponseWriter, value any) error {
	writeJSON(w, http.StatusOK, value)
	return nil
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// readJSON reads a body. Fields that are not known are ignored, as everywhere in
// the protocol; anything after the value is refused.
func readJSON(r *http.Request, into any) error {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return readError(err)
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return wire.Errorf(wire.SlugBadRequest, "a JSON body is needed")
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return wire.Errorf(wire.SlugBadRequest, "the body: %v", err)
	}
	return nil
}

func readError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	return wire.Errorf(wire.SlugBadRequest, "the body did not arrive: %v", err)
}
