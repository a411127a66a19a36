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
)

// Paths on the local socket.
const (
	SocketStatus  = "/status"
	SocketMetrics = "/metrics"
	SocketPoll    = "/poll"
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
		mux.HandleFunc("POST "+SocketPoll, func(w http.ResponseWriter, _ *http.Request) {
			a.pollNow.tell()
			w.WriteHeader(http.StatusNoContent)
		})
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
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(status) // whoever asked has gone away
}
