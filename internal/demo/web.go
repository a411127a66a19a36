package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const webFile = "etc/web.json"

// webSettings are what a closure's web service answers.
type webSettings struct {
	Status int    `json:"status"`
	Body   string `json:"body"`
}

// serveWeb is the service that a machine's probes look at.
func serveWeb(ctx context.Context, settings []byte, m machineSettings, ready func()) error {
	var web webSettings
	if err := json.Unmarshal(settings, &web); err != nil {
		return err
	}
	l, err := listenReserved(ctx, m.Web)
	if err != nil {
		return err
	}
	srv := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(web.Status)
			fmt.Fprintln(w, web.Body)
		}),
	}
	context.AfterFunc(ctx, func() { srv.Close() })
	ready()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
