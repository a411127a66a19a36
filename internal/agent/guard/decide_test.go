package guard

import (
	"strings"
	"testing"
	"time"
)

const (
	boot    = "boot-1"
	another = "boot-2"
)

// What a guard does about a lease with 120 s of silence, in every situation that
// makes a difference. Times are seconds of the machine's clock.
func TestDecide(t *testing.T) {
	at := func(s int) time.Duration { return time.Duration(s) * time.Second }
	by := func(s int) int64 { return int64(at(s)) }
	soaking := Lease{BootID: boot, AliveSecs: 120, WindowSecs: 360, ConfirmBy: by(1000)}
	change := func(l Lease, f func(*Lease)) Lease { f(&l); return l }
	confirmed := change(soaking, func(l *Lease) { l.Confirmed, l.ConfirmBy = true, 0 })
	silentOnly := change(soaking, func(l *Lease) { l.WindowSecs, l.ConfirmBy = 0, 0 })

	for _, c := range []struct {
		name  string
		lease Lease
		sight Sight
		want  Verdict
		why   string
	}{
		{"the agent lives", soaking, Sight{Now: at(900), BootID: boot, Alive: true, Touched: at(890)}, Watch, ""},
		{"its last sign is not old enough", soaking, Sight{Now: at(900), BootID: boot, Alive: true, Touched: at(781)}, Watch, ""},
		{"its last sign is old enough", soaking, Sight{Now: at(900), BootID: boot, Alive: true, Touched: at(780)}, Act, "silent for 120 s"},
		{"A36: it lives, and confirms nothing in time", soaking, Sight{Now: at(1000), BootID: boot, Alive: true, Touched: at(999)}, Act, "nothing confirmed"},
		{"there is a second left", soaking, Sight{Now: at(999), BootID: boot, Alive: true, Touched: at(999)}, Watch, ""},
		{"confirmed: the deadline is none", confirmed, Sight{Now: at(9000), BootID: boot, Alive: true, Touched: at(8999)}, Watch, ""},
		{"confirmed, and silent", confirmed, Sight{Now: at(9000), BootID: boot, Alive: true, Touched: at(8000)}, Act, "silent for 1000 s"},
		{"confirmed is said, whatever the deadline", change(soaking, func(l *Lease) { l.Confirmed = true }),
			Sight{Now: at(5000), BootID: boot, Alive: true, Touched: at(4999)}, Watch, ""},
		{"no confirmation is needed", silentOnly, Sight{Now: at(9000), BootID: boot, Alive: true, Touched: at(8999)}, Watch, ""},

		{"silent while a switch is under way", soaking, Sight{Now: at(900), BootID: boot, Alive: true, Touched: at(100), Switching: true, Switched: at(900)}, Watch, ""},
		{"silent since a switch that has just ended", soaking, Sight{Now: at(900), BootID: boot, Alive: true, Touched: at(100), Switched: at(800)}, Watch, ""},
		{"silent for long after the switch", soaking, Sight{Now: at(920), BootID: boot, Alive: true, Touched: at(100), Switched: at(800)}, Act, "silent for 120 s"},
		{"a switch does not put off the deadline", soaking, Sight{Now: at(1000), BootID: boot, Alive: true, Touched: at(100), Switching: true, Switched: at(1000)}, Act, "nothing confirmed"},

		{"no sign yet", silentOnly, Sight{Now: at(1800), BootID: boot, Since: at(100)}, Watch, ""},
		{"never a sign", silentOnly, Sight{Now: at(100 + 1800 + 120), BootID: boot, Since: at(100)}, Act, "no sign of life"},
		{"no sign, and a switch is under way", silentOnly, Sight{Now: at(100 + 1800 + 120), BootID: boot, Since: at(100), Switching: true}, Watch, ""},

		{"A30: another boot, the window is open", soaking, Sight{Now: at(359), BootID: another}, Watch, ""},
		{"another boot, the window has ended", soaking, Sight{Now: at(360), BootID: another}, Act, "nothing confirmed"},
		{"another boot counts from its own beginning", soaking, Sight{Now: at(5359), Since: at(5000), BootID: another}, Watch, ""},
		{"what was confirmed in another boot is not in this one", confirmed, Sight{Now: at(5360), Since: at(5000), BootID: another, Alive: true, Touched: at(5359)}, Act, "nothing confirmed"},
		{"another boot, and no confirmation is needed", silentOnly, Sight{Now: at(5360), Since: at(5000), BootID: another, Alive: true, Touched: at(5359)}, Watch, ""},
		{"another boot, silent", soaking, Sight{Now: at(5130), Since: at(5000), BootID: another, Alive: true, Touched: at(5010)}, Act, "silent"},

		{"staged for the next boot", change(soaking, func(l *Lease) { l.NextBoot = true }), Sight{Now: at(9000), BootID: boot}, StandDown, ""},
		{"staged, and this is the next boot", change(soaking, func(l *Lease) { l.NextBoot = true }), Sight{Now: at(360), BootID: another}, Act, "nothing confirmed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := Decide(c.lease, c.sight)
			if got != c.want || !strings.Contains(why, c.why) {
				t.Errorf("verdict %d, %q; want %d, %q", got, why, c.want, c.why)
			}
		})
	}
}

// An agent that dies again and again counts its running time from what it saved
// last; its guard must not wait longer for that.
func TestARestartedAgentDoesNotPutOffItsGuard(t *testing.T) {
	f := Files{StateDir: t.TempDir(), BootDir: t.TempDir()}
	l := Lease{Rollout: "r", Agent: "/agent", BootID: boot, AliveSecs: 120, ConfirmBy: int64(1000 * time.Second), ConfirmActive: 500}
	for _, c := range []struct {
		name   string
		change func(*Lease)
		want   time.Duration
	}{
		{"the first", func(*Lease) {}, 1000 * time.Second},
		{"later", func(l *Lease) { l.ConfirmBy += int64(time.Minute) }, 1000 * time.Second},
		{"a rounding earlier", func(l *Lease) { l.ConfirmBy -= int64(time.Second) }, 1000 * time.Second},
		{"earlier", func(l *Lease) { l.ConfirmBy -= int64(time.Minute) }, 940 * time.Second},
		{"later, for a reason", func(l *Lease) { l.ConfirmBy += int64(time.Minute); l.ConfirmActive += 60 }, 1060 * time.Second},
		{"none any more", func(l *Lease) { l.ConfirmBy, l.ConfirmActive, l.Confirmed = 0, 0, true }, 0},
	} {
		next := l
		c.change(&next)
		if err := f.Write(next); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Lease(); err != nil || got == nil || time.Duration(got.ConfirmBy) != c.want {
			t.Errorf("%s: %+v, %v; want the deadline %s", c.name, got, err, c.want)
		}
	}
	if f.Program() != "/agent" {
		t.Errorf("the link leads to %q", f.Program())
	}
}

func TestSignsOfLifeGoWithTheLease(t *testing.T) {
	f := Files{StateDir: t.TempDir(), BootDir: t.TempDir() + "/made/on/demand"}
	if err := f.Write(Lease{Rollout: "r", Agent: "/agent"}); err != nil {
		t.Fatal(err)
	}
	if err := f.Touch(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Watch(6 * time.Second); err != nil {
		t.Fatal(err)
	}
	if since, err := f.Watch(9 * time.Second); err != nil || since != 6*time.Second {
		t.Errorf("a guard that was started again counts from %s, %v", since, err)
	}
	if err := f.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, alive, err := f.touched(); alive || err != nil || f.Watched() || f.Held() {
		t.Errorf("left behind: a sign of life %v (%v), a watch %v, a lease %v", alive, err, f.Watched(), f.Held())
	}
	if err := f.Remove(); err != nil {
		t.Errorf("twice: %v", err)
	}
}
