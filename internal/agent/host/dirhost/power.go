package dirhost

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"nixfleet/internal/agent/host"
)

// Install makes a new machine that runs a closure and boots it: the closure is
// fetched, becomes the first generation, its own program makes it the boot
// default, and the machine is turned on.
func (m *Machine) Install(ctx context.Context, f host.Fetch) error {
	if err := m.Fetch(ctx, f); err != nil {
		return err
	}
	if _, err := m.SetProfile(ctx, f.Closure); err != nil {
		return err
	}
	if err := m.Clear(ctx, host.SlotBoot); err != nil {
		return err
	}
	if _, err := m.Start(ctx, host.SlotBoot, host.Command{Rollout: f.Rollout, Closure: f.Closure, Action: host.ActionBoot}); err != nil {
		return err
	}
	for {
		run, err := m.Status(ctx, host.SlotBoot)
		if err != nil {
			return err
		}
		if run.Phase == host.RunEnded && run.Exited(0) {
			return m.PowerCycle()
		}
		if run.Phase != host.RunRunning {
			return fmt.Errorf("install %s: its boot default could not be set: exit code %d\n%s", f.Closure, run.ExitCode, run.Output)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// PowerCycle is the reset button: whatever runs dies on the spot, run/ is begun
// anew, and what boot/default names is what runs. It is not told to anybody.
func (m *Machine) PowerCycle() error {
	slots, err := os.ReadDir(m.path("run/units"))
	if err != nil {
		return err
	}
	for _, slot := range slots {
		if err := m.runner.Kill(m.path("run/units/"+slot.Name()), true); err != nil {
			return err
		}
	}
	def, err := m.bootDefault()
	if err != nil {
		return err
	}
	next := m.path("run.next")
	err = errors.Join(os.RemoveAll(next), os.RemoveAll(m.path("run.last")),
		os.MkdirAll(next+"/units", 0o755),
		os.WriteFile(next+"/boot-id", []byte(newID()+"\n"), 0o644))
	if err == nil && def != "" {
		err = errors.Join(os.Symlink("../nix/store/"+string(def), next+"/current-system"),
			os.Symlink("../nix/store/"+string(def), next+"/booted-system"))
	}
	if err != nil {
		return fmt.Errorf("turn the machine on: %w", err)
	}
	return errors.Join(os.Rename(m.path("run"), m.path("run.last")), os.Rename(next, m.path("run")), os.RemoveAll(m.path("run.last")))
}

// newID is an id that no other boot, run or file of this machine has.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
