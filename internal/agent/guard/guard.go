package guard

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
)

// Config is what a guard works with.
type Config struct {
	Machine  host.Machine
	StateDir string
	Log      *slog.Logger

	// ReadJournal gives what View says about the journal in the file, and runs it
	// where a fault cannot hurt this process. Any error means that the journal
	// cannot be read, which keeps no guard from acting.
	ReadJournal func(ctx context.Context, file, rollout string) (Journaled, error)
}

// guard is one guard at work.
type guard struct {
	Config
	files Files
	boot  string
}

// Run watches the lease of a state directory and acts on it when it must. It
// returns nil when there is nothing to guard any more, or when ctx ended: whoever
// stops a guard, as a shutdown does, leaves the lease to the guard of the next
// boot.
func Run(ctx context.Context, c Config) error {
	g := &guard{Config: c, files: FilesOf(c.Machine, c.StateDir)}
	facts, err := c.Machine.Facts(ctx)
	if err != nil {
		return err // and be started again
	}
	g.boot = facts.BootID
	only, err := g.only(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer only.Release()
	c.Log.Info("guard: watching", "stateDir", c.StateDir, "boot", g.boot)
	lease, why, err := g.watch(ctx)
	if ctx.Err() != nil {
		c.Log.Info("guard: stopped; the lease stays")
		return nil
	}
	if err != nil || lease == nil {
		return err
	}
	err = g.act(ctx, *lease, why)
	if err != nil && ctx.Err() != nil {
		g.interrupted(ctx)
		return nil
	}
	return err
}

// only waits until no other guard is at work: that of the boot and that of the
// agent are one after the other.
func (g *guard) only(ctx context.Context) (*activation.Held, error) {
	if err := os.MkdirAll(g.files.BootDir, 0o700); err != nil {
		return nil, err
	}
	for {
		held, err := activation.Lock(ctx, g.files.only())
		var wait *activation.Wait
		if err == nil || !errors.As(err, &wait) {
			return held, err
		}
	}
}

// watch returns the lease when it is time to act on it, and nil when there is
// nothing to watch. What cannot be looked at is looked at again.
func (g *guard) watch(ctx context.Context) (*Lease, string, error) {
	var switched time.Duration
	blind := false
	for {
		lease, verdict, why, err := g.consider(ctx, &switched)
		switch {
		case ctx.Err() != nil:
			return nil, "", ctx.Err()
		case err != nil && !blind:
			g.Log.Error("guard: the machine cannot be looked at", "err", err)
		case err != nil:
		case verdict == Act:
			return lease, why, nil
		case verdict == StandDown:
			g.Log.Info("guard: " + why)
			return nil, "", nil
		}
		blind = err != nil
		if err := sleep(ctx, pause(lease)); err != nil {
			return nil, "", err
		}
	}
}

// consider looks once.
func (g *guard) consider(ctx context.Context, switched *time.Duration) (*Lease, Verdict, string, error) {
	lease, err := g.files.Lease()
	if err != nil {
		return nil, Watch, "", err
	}
	if lease == nil {
		return nil, StandDown, "nothing is guarded", nil
	}
	if g.files.Claimed() {
		return lease, Act, cmp.Or(lease.Why, "a guard was interrupted"), nil
	}
	sight, err := g.look(ctx, *switched)
	if err != nil {
		return lease, Watch, "", err
	}
	*switched = sight.Switched
	verdict, why := Decide(*lease, sight)
	return lease, verdict, why, nil
}

// pause is how long a guard looks away: little against what it waits for.
func pause(l *Lease) time.Duration {
	if l == nil {
		return time.Second
	}
	return min(max(l.Beat()/4, 100*time.Millisecond), 5*time.Second)
}

func (g *guard) look(ctx context.Context, switched time.Duration) (Sight, error) {
	run, err := g.Machine.Status(ctx, host.SlotSwitch)
	if err != nil {
		return Sight{}, err
	}
	s := Sight{Now: g.Machine.Clock(), BootID: g.boot, Switched: switched}
	if s.Switching = run.Phase == host.RunRunning; s.Switching {
		s.Switched = s.Now
	}
	if s.Since, err = g.files.Watch(s.Now); err != nil {
		return Sight{}, err
	}
	s.Touched, s.Alive, err = g.files.touched()
	return s, err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
