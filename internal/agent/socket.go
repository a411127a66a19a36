package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"nixfleet/internal/agent/journal"
	"nixfleet/internal/fleet"
)

// Paths on the local socket.
const (
	SocketStatus       = "/status"
	SocketMetrics      = "/metrics"
	SocketEvents       = "/events" // with ?follow=1 also those to come
	SocketPoll         = "/poll"
	SocketUnquarantine = "/unquarantine"
	SocketHold         = "/hold"
	SocketRelease      = "/release"
)

// listen opens the local socket and the metrics listener.
func (a *Agent) listen() ([]net.Listener, error) {
	var all []net.Listener
	if path := a.cfg.Socket; path != "" {
		l, err := listenUnix(path)
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", path, err)
		}
		all = append(all, l)
	}
	if address := a.cfg.MetricsListen; address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			for _, l := range all {
				l.Close()
			}
			return nil, fmt.Errorf("metrics listener: %w", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// listenUnix replaces the socket that an earlier agent left. Only the owner may
// connect.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// serve answers on a listener: on the socket everything, on TCP metrics alone.
func (a *Agent) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+SocketMetrics, a.serveMetrics)
	if l.Addr().Network() == "unix" {
		mux.HandleFunc("GET "+SocketStatus, a.serveStatus)
		mux.HandleFunc("GET "+SocketEvents, a.serveEvents)
		mux.HandleFunc("POST "+SocketPoll, func(w http.ResponseWriter, _ *http.Request) {
			a.pollNow.tell()
			w.WriteHeader(http.StatusNoContent)
		})
		mux.HandleFunc("POST "+SocketUnquarantine, a.serveUnquarantine)
		mux.HandleFunc("POST "+SocketHold, a.serveHold)
		mux.HandleFunc("POST "+SocketRelease, a.serveRelease)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *Agent) serveStatus(w http.ResponseWriter, _ *http.Request) {
	status, err := a.fullStatus()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	respond(w, status)
}

func respond(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever asked has gone away
}

// UnquarantineRequest asks to try closures again that failed here.
type UnquarantineRequest struct {
	Closure fleet.Closure `json:"closure,omitempty"` // "": all
}

// UnquarantineResponse has the quarantines that were lifted.
type UnquarantineResponse struct {
	Lifted []journal.Quarantine `json:"lifted"`
}

// maxRequest is more than any request on the socket needs, in bytes.
const maxRequest = 4096

func readRequest[T any](w http.ResponseWriter, r *http.Request) (request T, err error) {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
	decoder.DisallowUnknownFields()
	return request, decoder.Decode(&request)
}

func (a *Agent) serveUnquarantine(w http.ResponseWriter, r *http.Request) {
	request, err := readRequest[UnquarantineRequest](w, r)
	if err == nil && request.Closure != "" {
		err = request.Closure.Validate()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	response := UnquarantineResponse{Lifted: []journal.Quarantine{}}
	err = a.reducer.submit(r.Context(), "unquarantine", func(t *turn) error {
		response.Lifted = append(response.Lifted, t.unquarantineNow(request.Closure)...)
		return nil
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, q := range response.Lifted {
		a.log.Warn("a quarantine was lifted by hand", "channel", q.Channel, "closure", string(q.Closure), "rollout", q.Rollout)
	}
	if len(response.Lifted) == 0 && request.Closure != "" {
		http.Error(w, fmt.Sprintf("%s is not in quarantine here", request.Closure), http.StatusNotFound)
		return
	}
	a.pollNow.tell()
	respond(w, response)
}
