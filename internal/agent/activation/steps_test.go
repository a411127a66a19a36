package activation

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

func TestFetchRepairsAfterAPowerCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	program := filepath.Join(w.m.Path(w.spec.Target), "bin/switch-to-configuration")
	empty := func() {
		if err := errors.Join(os.Chmod(program, 0o755), os.Truncate(program, 0)); err != nil {
			t.Fatal(err)
		}
	}
	size := func() int64 {
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	fetch := func() {
		t.Helper()
		if body, err := Fetch(t.Context(), w.m, w.spec, w.rec); body != nil || err != nil {
			t.Fatalf("%#v, %v", body, err)
		}
	}
	fetch()
	empty()
	fetch()
	if size() != 0 {
		t.Error("the same boot: contents were read, which takes long")
	}
	if err := w.m.PowerCycle(); err != nil {
		t.Fatal(err)
	}
	fetch()
	if size() == 0 {
		t.Error("another boot: not repaired")
	}
	empty()
	fetch()
	if size() != 0 {
		t.Error("verified in this boot, and read once more")
	}
}

// A6, A17: what a failed fetch means.
func TestFetchFails(t *testing.T) {
	t.Parallel()
	down := httptest.NewServer(nil)
	down.Close()
	for name, c := range map[string]struct {
		spec  func(*Spec)
		waits wire.WaitingOn
		want  lifecycle.ActivationFailed
	}{
		"bad signature": {spec: func(s *Spec) { s.CacheKeys = hosttest.NewCache(t).Keys },
			want: lifecycle.ActivationFailed{ExitCode: exitUnseen, Phase: lifecycle.PhaseFetch, BadSignature: true}},
		"no cache keys": {spec: func(s *Spec) { s.CacheKeys = nil },
			want: lifecycle.ActivationFailed{ExitCode: exitUnseen, Phase: lifecycle.PhaseFetch}},
		"cache down": {spec: func(s *Spec) { s.Caches = []string{down.URL} }, waits: wire.WaitingOnCache},
		"missing": {spec: func(s *Spec) { s.Target = "0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent" },
			waits: wire.WaitingOnCache},
	} {
		w := newWorld(t, hosttest.Obey)
		w.spec.Target = w.cache.Closure("v3", hosttest.Obey)
		c.spec(&w.spec)
		body, err := Fetch(t.Context(), w.m, w.spec, w.rec)
		if c.waits != "" {
			waits(t, body, err, c.waits)
			continue
		}
		got := is[lifecycle.ActivationFailed](t, body, err)
		if got.StderrTail == "" {
			t.Errorf("%s: it does not say why", name)
		}
		got.StderrTail = ""
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestFetchIsCancelled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if body, err := Fetch(ctx, w.m, w.spec, w.rec); body != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%#v, %v", body, err)
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	program := "#!/bin/sh\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		spec  func(*Spec)
		says  string
		waits wire.WaitingOn
	}{
		{name: "good", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program}},
		{name: "another platform", files: map[string]string{"system": "riscv64-plan9", "bin/switch-to-configuration": program}, says: "riscv64-plan9"},
		{name: "no platform", files: map[string]string{"bin/switch-to-configuration": program}, says: "which platform"},
		{name: "no program", files: map[string]string{"system": host.System()}, says: "no bin/switch-to-configuration"},
		{name: "empty program", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": ""}, says: "empty"},
		{name: "program is a folder", files: map[string]string{"system": host.System(), "bin/switch-to-configuration/x": ""}, says: "cannot be executed"},
		{name: "no guard", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program, "etc/systemd/system/nixfleet-agent.service": "[Unit]"},
			spec: func(s *Spec) { s.Guarded = true }, says: "no-guard: the closure has no nixfleet-guard.service"},
		{name: "no agent", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program, "etc/systemd/system/nixfleet-guard.service": "[Unit]"},
			spec: func(s *Spec) { s.Guarded = true }, says: "no-guard: the closure has no nixfleet-agent.service"},
		{name: "guard masked", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program,
			"etc/systemd/system/nixfleet-agent.service": "[Unit]", "etc/systemd/system/nixfleet-guard.service/is": "a folder, as a device would be"},
			spec: func(s *Spec) { s.Guarded = true }, says: "it is masked"},
		{name: "guarded", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program,
			"etc/systemd/system/nixfleet-agent.service": "[Unit]", "etc/systemd/system/nixfleet-guard.service": "[Unit]"},
			spec: func(s *Spec) { s.Guarded = true }},
		{name: "store full", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program},
			spec: func(s *Spec) { s.MinFreeStore = 1 << 60 }, waits: wire.WaitingOnDiskNix},
		{name: "boot full", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program},
			spec: func(s *Spec) { s.MinFreeBoot = 1 << 60 }, waits: wire.WaitingOnDiskBoot},
		{name: "uplink silent", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program},
			spec: func(s *Spec) { s.LastUplink = func() time.Time { return time.Now().Add(-2 * time.Minute) } }, waits: wire.WaitingOnControlPlane},
		{name: "uplink answers", files: map[string]string{"system": host.System(), "bin/switch-to-configuration": program},
			spec: func(s *Spec) { s.LastUplink = time.Now }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, hosttest.Obey)
			w.spec.Target = w.cache.Tree("x", c.files)
			w.fetch("r2", w.spec.Target)
			if c.spec != nil {
				c.spec(&w.spec)
			}
			body, err := Preflight(t.Context(), w.m, w.spec)
			switch {
			case c.waits != "":
				waits(t, body, err, c.waits)
			case c.says != "":
				got := is[lifecycle.ActivationFailed](t, body, err)
				if got.Phase != lifecycle.PhasePreflight || got.Mutated || !strings.Contains(got.StderrTail, c.says) {
					t.Errorf("%+v, want %q", got, c.says)
				}
			case body != nil || err != nil:
				t.Errorf("%#v, %v", body, err)
			}
		})
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusTeapot) }))
	defer secure.Close()
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	portal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("please log in")) }))
	defer portal.Close()
	unreached := func(context.Context) error { return errors.New("no route") }
	absent := []fleet.Closure{"0qk7sjb1p9ka9aqgd95b8m1hkbz8fjyn-absent"}
	for name, c := range map[string]struct {
		uplinks Uplinks
		via     string
	}{
		"nothing configured":          {Uplinks{}, ""},
		"control plane":               {Uplinks{ControlPlane: func(context.Context) error { return nil }}, "control-plane"},
		"control plane down":          {Uplinks{ControlPlane: unreached}, ""},
		"cache, control plane down":   {Uplinks{ControlPlane: unreached, Caches: []string{w.cache.URL}, CacheKeys: w.cache.Keys, Closures: append(absent, w.v1)}, "cache"},
		"cache has neither closure":   {Uplinks{Caches: []string{w.cache.URL}, CacheKeys: w.cache.Keys, Closures: absent}, ""},
		"cache that nobody pinned":    {Uplinks{Caches: []string{w.cache.URL}, CacheKeys: hosttest.NewCache(t).Keys, Closures: []fleet.Closure{w.v1}}, ""},
		"a portal for a cache":        {Uplinks{Caches: []string{portal.URL}, CacheKeys: w.cache.Keys, Closures: []fleet.Closure{w.v1}}, ""},
		"URL":                         {Uplinks{URLs: []string{secure.URL}, RootCAs: roots}, "url"},
		"URL with a strange root":     {Uplinks{URLs: []string{secure.URL}, RootCAs: x509.NewCertPool()}, ""},
		"URL without TLS":             {Uplinks{URLs: []string{portal.URL}}, ""},
		"one of many is good enough":  {Uplinks{ControlPlane: unreached, Caches: []string{portal.URL}, CacheKeys: w.cache.Keys, Closures: absent, URLs: []string{portal.URL, secure.URL}, RootCAs: roots}, "url"},
		"a wrong address for a cache": {Uplinks{Caches: []string{"file:///tmp"}, CacheKeys: w.cache.Keys, Closures: absent}, ""},
	} {
		body, err := Confirm(t.Context(), w.m, c.uplinks)
		if c.via == "" {
			waits(t, body, err, wire.WaitingOnConfirm)
			continue
		}
		if got := is[lifecycle.Confirmed](t, body, err); got.Via != c.via || got.BootID != w.facts().BootID {
			t.Errorf("%s: %+v", name, got)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if body, err := Confirm(ctx, w.m, Uplinks{ControlPlane: unreached}); body != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %#v, %v", body, err)
	}
}

func TestSpecialisationCountsAsItsSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, hosttest.Obey)
	special := w.cache.Closure("special", hosttest.Obey)
	w.fetch("r9", special)
	target := w.m.Path(w.spec.Target)
	if err := os.Mkdir(target+"/specialisation", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(special.Path(), target+"/specialisation/vm"); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(w.m.Dir(), "run/current-system")
	if err := errors.Join(os.Remove(link), os.Symlink("../nix/store/"+string(special), link)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		known []fleet.Closure
		want  fleet.Closure
	}{{[]fleet.Closure{w.v1, w.spec.Target}, w.spec.Target}, {[]fleet.Closure{w.v1}, special}, {nil, special}} {
		got, err := Observe(t.Context(), w.m, c.known...)
		if err != nil || got.Current != c.want || got.BootDefault != w.v1 || got.BootID == "" {
			t.Errorf("%+v, %v; want %s", got, err, c.want)
		}
	}
	// It may boot, too.
	if err := os.WriteFile(filepath.Join(w.m.Dir(), "boot/default"), []byte(special.Path()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := Observe(t.Context(), w.m, w.v1, w.spec.Target); err != nil || got.BootDefault != w.spec.Target {
		t.Errorf("%+v, %v", got, err)
	}
}

// A system whose boot loader starts a specialisation of it by default is persisted.
func TestPersistedAsASpecialisation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `read name <"$NIXFLEET_ROOT/special"; echo "/nix/store/$name" >"$NIXFLEET_ROOT/boot/default"`)
	special := w.cache.Closure("special", hosttest.Obey)
	w.write("special", string(special)+"\n")
	dir := filepath.Join(w.m.Path(w.spec.Target), "specialisation")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(special.Path(), dir+"/vm")); err != nil {
		t.Fatal(err)
	}
	body, err := Persist(t.Context(), w.m, w.spec)
	if got := is[lifecycle.Persisted](t, body, err); !got.BootDefaultVerified {
		t.Errorf("%+v", got)
	}
}
