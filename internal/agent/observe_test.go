package agent

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/agent/host"
)

// looked is a machine that can only be looked at.
type looked struct {
	host.Machine
	at chan time.Time
}

func (m looked) Facts(context.Context) (host.Facts, error) {
	m.at <- time.Now()
	return host.Facts{}, nil
}

// A reducer that says at once that nothing is due does not put off the first look
// at the machine: until then nothing is wanted of it.
func TestTheFirstLookIsAtOnce(t *testing.T) {
	for range 100 { // a select takes any that is ready
		synctest.Test(t, func(t *testing.T) {
			machine := looked{at: make(chan time.Time, 1)}
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			a := &Agent{machine: machine, clock: func() ClockState { return ClockState{} }, log: log}
			a.reducer = newReducer(Config{Log: log}, nil, nil, &state{})
			a.reducer.wake <- 0
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			began := time.Now()
			go func() { ended <- a.observe(ctx) }()
			if late := (<-machine.at).Sub(began); late > 0 {
				t.Errorf("the first look came after %s", late)
			}
			cancel()
			<-ended
		})
	}
}
