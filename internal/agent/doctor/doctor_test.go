package doctor

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/agent/host/hosttest"
	"nixfleet/internal/agent/journal"
	"nixfleet/internal/identity"
)

const name = "web-01"

// ward is a patient who is well, and what a test can do to it.
type ward struct {
	Patient
	t     *testing.T
	dir   string
	cache *hosttest.Cache
	ca    identity.CA
	key   ed25519.PrivateKey
	skew  time.Duration // of the control plane's clock
}

func newWard(t *testing.T) *ward {
	t.Helper()
	// Not the folder of temporary files: on many machines that is in memory.
	dir, err := os.MkdirTemp("/var/tmp", "doctor-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &ward{t: t, dir: dir, cache: hosttest.NewCache(t)}
	w.ca = w.newCA()
	_, w.key, err = ed25519.GenerateKey(rand.Reader)
	w.must(err)
	w.writeKey(w.key, "")
	w.write("trust.json", w.trust(nil))
	w.write("ca.pem", identity.EncodeCertificate(w.ca.Cert))
	w.write("health.json", []byte(`{"app": {"kind": "tcp", "port": 80}}`))
	w.must(os.Mkdir(w.path("state"), 0o700))
	w.write("cert.pem", w.certificate(w.ca, name, time.Now()))

	w.Machine = w.cache.NewMachine(w.cache.Closure("v1", hosttest.Obey))
	cache := w.serve("127.0.0.2", http.FileServer(http.Dir(w.cache.Dir)), nil)
	plane := w.serve("127.0.0.1", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Date", time.Now().Add(w.skew).UTC().Format(http.TimeFormat))
		rw.WriteHeader(http.StatusUnauthorized) // any answer shows that it is there
	}), w.server(w.ca))
	w.Config = agent.Config{
		ControlPlane: &url.URL{Scheme: "https", Host: plane}, MachineID: name,
		TrustFile: w.path("trust.json"), CACertFile: w.path("ca.pem"), ClientCertFile: w.path("cert.pem"),
		ClientKeyFile: w.path("key"), SSHHostKeyFile: w.path("key"), StateDir: w.path("state"), HealthChecksFile: w.path("health.json"),
		ClockPolicy: agent.ClockAuto, MaxClockSkew: 5 * time.Minute, CacheURLs: []string{"http://" + cache},
		Clock: func() agent.ClockState { return agent.ClockState{Now: time.Now(), Synchronised: true, Service: true} },
	}
	return w
}

func (w *ward) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *ward) path(file string) string { return filepath.Join(w.dir, file) }

func (w *ward) write(file string, data []byte) {
	w.t.Helper()
	w.must(os.WriteFile(w.path(file), data, 0o600))
}

func (w *ward) writeKey(key any, passphrase string) {
	w.t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if passphrase != "" {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	w.must(err)
	w.write("key", pem.EncodeToMemory(block))
}

func (w *ward) newCA() identity.CA {
	w.t.Helper()
	key, err := identity.NewKey()
	w.must(err)
	ca, err := identity.NewCA("test", key, time.Now().Add(-24*time.Hour), 365*24*time.Hour)
	w.must(err)
	return ca
}

func (w *ward) trust(change map[string]any) []byte {
	w.t.Helper()
	doc := map[string]any{
		"schemaVersion":  1,
		"ciReleaseKey":   map[string]any{"current": map[string]any{"algorithm": "ed25519", "public": base64.StdEncoding.EncodeToString(w.key.Public().(ed25519.PublicKey))}},
		"cacheKeys":      w.cache.Keys,
		"issuanceCaPems": []string{string(identity.EncodeCertificate(w.ca.Cert))},
	}
	for field, value := range change {
		doc[field] = value
	}
	raw, err := json.Marshal(doc)
	w.must(err)
	return raw
}

// certificate issues one that is good for an hour.
func (w *ward) certificate(ca identity.CA, host string, from time.Time) []byte {
	w.t.Helper()
	template, err := identity.AgentTemplate(host, "fleet.test", from, time.Hour)
	w.must(err)
	cert, err := ca.Issue(template, w.key.Public())
	w.must(err)
	return identity.EncodeCertificate(cert)
}

func (w *ward) server(ca identity.CA) *tls.Config {
	w.t.Helper()
	key, err := identity.NewKey()
	w.must(err)
	template, err := identity.ServerTemplate([]string{"127.0.0.1"}, time.Now(), time.Hour)
	w.must(err)
	cert, err := ca.Issue(template, key.Public())
	w.must(err)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert}
}

// serve serves at an address until the test ends, and gives address and port.
func (w *ward) serve(address string, handler http.Handler, config *tls.Config) string {
	w.t.Helper()
	l, err := net.Listen("tcp", address+":0")
	w.must(err)
	server := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if config != nil {
			server.ServeTLS(l, "", "")
		} else {
			server.Serve(l)
		}
	}()
	w.t.Cleanup(func() {
		server.Close()
		<-done
	})
	return l.Addr().String()
}

// closed is an address where nobody listens.
func (w *ward) closed() string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.3:0")
	w.must(err)
	w.must(l.Close())
	return l.Addr().String()
}

// withNix is a machine whose Nix has settings.
type withNix struct {
	host.Machine
	settings host.NixSettings
}

func (m withNix) NixSettings(context.Context) (host.NixSettings, error) { return m.settings, nil }

// full is a machine without room.
type full struct {
	host.Machine
	space host.Space
}

func (m full) Space(context.Context) (host.Space, error) { return m.space, nil }

// everything is all below folders, with its modes, sizes and times.
func everything(t *testing.T, folders ...string) string {
	t.Helper()
	var b strings.Builder
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestAHealthyHost: all is well, also while an agent has its journal open, and
// nothing is other than before.
func TestAHealthyHost(t *testing.T) {
	w := newWard(t)
	j, err := journal.Open(w.path("state/journal.db"))
	w.must(err)
	defer j.Close()
	w.Machine = withNix{w.Machine, host.NixSettings{RequireSigs: true, Substituters: []string{"https://cache.test"}}}
	facts, err := w.Machine.Facts(t.Context())
	w.must(err)
	folders := []string{w.dir, filepath.Join(w.Machine.Path(facts.Current), "../../..")}
	before := everything(t, folders...)
	findings := Examine(t.Context(), w.Patient)
	if len(findings) != len(w.checks()) || !AllWell(findings) {
		t.Errorf("%+v", findings)
	}
	for _, f := range findings {
		if f.Verdict != Well && f.Check != "confirm-urls" {
			t.Errorf("%+v", f)
		}
	}
	if after := everything(t, folders...); after != before {
		t.Errorf("it changed something: before\n%s\nafter\n%s", before, after)
	}
}

// TestEachAilmentIsFound plants one after the other. Each is found by the check
// that is for it, which says what it saw and what to do.
func TestEachAilmentIsFound(t *testing.T) {
	for _, test := range []struct {
		name   string
		plant  func(w *ward)
		check  string
		detail string
		remedy string
	}{
		{"no state directory", func(w *ward) { w.must(os.Remove(w.path("state"))) }, "state-directory", "is not there", "install -d -m 700"},
		{"state directory open to others", func(w *ward) { w.must(os.Chmod(w.path("state"), 0o755)) }, "state-directory", "mode 0755", "chmod 700"},
		{"state directory a file", func(w *ward) { w.Config.StateDir = w.path("key") }, "state-directory", "is no folder", "--state-dir"},

		{"no host key", func(w *ward) { w.must(os.Remove(w.path("key"))) }, "host-key", "no such file", "ssh-keygen -t ed25519"},
		{"an RSA host key", func(w *ward) {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			w.must(err)
			w.writeKey(key, "")
		}, "host-key", "RSA", "ssh-keygen -t ed25519"},
		{"an encrypted host key", func(w *ward) { w.writeKey(w.key, "secret") }, "host-key", "encrypted", "ssh-keygen -t ed25519"},
		{"a host key that all can read", func(w *ward) { w.must(os.Chmod(w.path("key"), 0o644)) }, "host-key", "mode 0644", "chmod 600"},
		{"no client key", func(w *ward) { w.Config.ClientKeyFile = w.path("none") }, "client-key", "no such file", "--client-key"},

		{"no trust file", func(w *ward) { w.must(os.Remove(w.path("trust.json"))) }, "trust-file", "no such file", "--trust-file"},
		{"a malformed trust file", func(w *ward) { w.write("trust.json", []byte("{")) }, "trust-file", "trust.json", "--trust-file"},
		{"a trust file without the CI's key", func(w *ward) { w.write("trust.json", w.trust(map[string]any{"ciReleaseKey": nil})) }, "trust-file", "ciReleaseKey", "--trust-file"},
		{"a trust file without cache keys", func(w *ward) { w.write("trust.json", w.trust(map[string]any{"cacheKeys": nil})) }, "trust-file", "no cache keys", "cacheKeys"},
		{"a trust file without authorities", func(w *ward) { w.write("trust.json", w.trust(map[string]any{"issuanceCaPems": nil})) }, "trust-file", "no issuing authority", "issuanceCaPems"},
		{"a misspelt field in the trust file", func(w *ward) { w.write("trust.json", w.trust(map[string]any{"cacheKey": "x"})) }, "trust-file", "cacheKey: unknown field", "spell"},

		{"another host's certificate", func(w *ward) { w.write("cert.pem", w.certificate(w.ca, "web-02", time.Now())) }, "certificate", "another machine", "--machine-id"},
		{"an expired certificate", func(w *ward) { w.write("cert.pem", w.certificate(w.ca, name, time.Now().Add(-2*time.Hour))) }, "certificate", "not valid now", "renews it"},
		{"a certificate of an unknown authority", func(w *ward) { w.write("cert.pem", w.certificate(w.newCA(), name, time.Now())) }, "certificate", "pinned authority", "issuanceCaPems"},
		{"neither certificate nor token", func(w *ward) { w.must(os.Remove(w.path("cert.pem"))) }, "certificate", "no token", "--bootstrap-token-file"},
		{"a token that is none", func(w *ward) {
			w.must(os.Remove(w.path("cert.pem")))
			w.write("token", []byte("secret"))
			w.Config.BootstrapTokenFile = w.path("token")
		}, "certificate", "not JSON", "nixfleet token mint"},

		{"no control plane", func(w *ward) { w.Config.ControlPlane = &url.URL{Scheme: "https", Host: w.closed()} }, "control-plane", "refused", "network"},
		{"a control plane of another authority", func(w *ward) {
			w.Config.ControlPlane = &url.URL{Scheme: "https", Host: w.serve("127.0.0.1", http.NotFoundHandler(), w.server(w.newCA()))}
		}, "control-plane", "unknown authority", "--ca-cert"},
		{"a control plane of another name", func(w *ward) {
			w.Config.ControlPlane = &url.URL{Scheme: "https", Host: w.serve("127.0.0.4", http.NotFoundHandler(), w.server(w.ca))}
		}, "control-plane", "127.0.0.4", "a name that stands in"},
		{"no roots for the control plane", func(w *ward) { w.Config.CACertFile = w.path("none") }, "control-plane", "no such file", "--ca-cert"},

		{"the clock an hour off", func(w *ward) { w.skew = -time.Hour }, "clock-offset", "1h0m", "time service"},
		{"a clock that nobody sets", func(w *ward) {
			w.Config.Clock = func() agent.ClockState { return agent.ClockState{Now: time.Now(), Service: true} }
		}, "clock", "not synchronised", "timedatectl"},
		{"a clock before the program", func(w *ward) { w.Config.BuiltAt = time.Now().Add(time.Hour) }, "clock", "already", "timedatectl"},
		{"marks that cannot be read", func(w *ward) { w.write("state/marks.json", []byte("{")) }, "clock", "marks", "disk"},

		{"no second uplink", func(w *ward) { w.Config.CacheURLs = nil }, "second-uplink", "one uplink only", "--confirm-url"},
		{"a cache on the control plane's address", func(w *ward) { w.Config.CacheURLs = []string{w.cache.URL} }, "second-uplink", "own address", "--confirm-url"},
		{"a cache on the control plane's address, by another name", func(w *ward) { w.Config.CacheURLs = []string{"http://localhost:8080"} }, "second-uplink", "own address", "--confirm-url"},
		{"a dead cache", func(w *ward) { w.Config.CacheURLs = append(w.Config.CacheURLs, "http://"+w.closed()) }, "caches", "does not answer", "--cache-url"},
		{"a dead cache of Nix's settings", func(w *ward) {
			w.Config.CacheURLs = nil
			w.Machine = withNix{w.Machine, host.NixSettings{RequireSigs: true, Substituters: []string{"http://" + w.closed()}}}
		}, "caches", "does not answer", "--cache-url"},
		{"a cache whose key is not pinned", func(w *ward) {
			w.write("trust.json", w.trust(map[string]any{"cacheKeys": hosttest.NewCache(w.t).Keys}))
		}, "caches", "not signed", "cacheKeys"},
		{"no cache", func(w *ward) { w.Config.CacheURLs = nil }, "caches", "no binary cache", "--cache-url"},
		{"a dead confirm URL", func(w *ward) { w.Config.ConfirmURLs = []string{"https://" + w.closed()} }, "confirm-urls", "refused", "--confirm-url"},

		{"a machine that cannot be opened", func(w *ward) { w.Machine, w.MachineErr = nil, errors.New("no nix here") }, "machine", "no nix here", "root"},
		{"require-sigs=false", func(w *ward) { w.Machine = withNix{w.Machine, host.NixSettings{}} }, "nix-settings", "require-sigs is false", "nix.settings.require-sigs"},
		{"trusted=1", func(w *ward) {
			w.Machine = withNix{w.Machine, host.NixSettings{RequireSigs: true, Substituters: []string{"https://cache.test?priority=3&trusted=1"}}}
		}, "nix-settings", "trusted=1 is believed", "nix.settings.substituters"},
		{"a full store", func(w *ward) {
			w.Config.MinFreeNix = 1 << 30
			w.Machine = full{w.Machine, host.Space{Store: 1 << 20, Boot: 1 << 40, BootKnown: true}}
		}, "store-space", "1.0 MiB are free", "nix-collect-garbage"},
		{"a full boot file system", func(w *ward) {
			w.Config.MinFreeBoot = 64 << 20
			w.Machine = full{w.Machine, host.Space{Store: 1 << 40, Boot: 1 << 20, BootKnown: true}}
		}, "boot-space", "1.0 MiB are free", "configurationLimit"},
		{"a switch under way", func(w *ward) {
			facts, err := w.Machine.Facts(w.t.Context())
			w.must(err)
			lock := filepath.Join(w.Machine.Path(facts.Current), "../../../run/nixos/switch-to-configuration.lock")
			w.must(os.MkdirAll(filepath.Dir(lock), 0o755))
			f, err := os.Create(lock)
			w.must(err)
			w.t.Cleanup(func() { f.Close() })
			w.must(syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
		}, "switch-lock", "under way", "lslocks"},
		{"no guard's unit", func(w *ward) {
			facts, err := w.Machine.Facts(w.t.Context())
			w.must(err)
			w.must(os.Remove(filepath.Join(w.Machine.Path(facts.Current), "etc/systemd/system/nixfleet-guard.service")))
		}, "guard-units", "nixfleet-guard.service", "enable nixfleet"},

		{"health checks that are no JSON", func(w *ward) { w.write("health.json", []byte("{")) }, "health-checks", "health-checks-config", "correct"},
		{"a health check without its port", func(w *ward) {
			w.write("health.json", []byte(`{"good": {"kind": "tcp", "port": 80}, "app": {"kind": "tcp"}}`))
		}, "health-checks", "app: port", "correct"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWard(t)
			test.plant(w)
			findings := Examine(t.Context(), w.Patient)
			if AllWell(findings) {
				t.Error("all is called well")
			}
			found := false
			for _, f := range findings {
				if found = found || f.Check == test.check; f.Check != test.check {
					continue
				}
				if f.Verdict != Wrong || !strings.Contains(f.Detail, test.detail) || !strings.Contains(f.Remedy, test.remedy) {
					t.Errorf("want wrong, %q, %q; got %+v", test.detail, test.remedy, f)
				}
			}
			if !found {
				t.Errorf("%s is missing", test.check)
			}
		})
	}
}

// TestATokenDoesForACertificate on a host that is new.
func TestATokenDoesForACertificate(t *testing.T) {
	w := newWard(t)
	w.must(os.Remove(w.path("cert.pem")))
	w.write("token", []byte("{}"))
	w.Config.BootstrapTokenFile = w.path("token")
	if f := (certificate{w.Config}).look(t.Context()); f.Verdict != Well {
		t.Errorf("%+v", f)
	}
	w.must(os.Chmod(w.path("token"), 0o644))
	if f := (certificate{w.Config}).look(t.Context()); f.Verdict != Wrong || !strings.Contains(f.Remedy, "chmod 600") {
		t.Errorf("a token that all can read: %+v", f)
	}
}

// TestTheSecondUplinkIsComparedByAddress, whatever it is called.
func TestTheSecondUplinkIsComparedByAddress(t *testing.T) {
	resolve := func(_ context.Context, host string) ([]string, error) {
		if a, ok := map[string]string{"cp.test": "192.0.2.1", "cache.test": "192.0.2.1", "other.test": "192.0.2.2"}[host]; ok {
			return []string{a}, nil
		}
		return nil, errors.New("no such host")
	}
	for address, want := range map[string]Verdict{
		"https://cp.test:5000": Wrong, "https://CP.test": Wrong, "https://cache.test": Wrong, "http://192.0.2.1": Wrong, "https://other.test": Well,
	} {
		c := secondUplink{agent.Config{ControlPlane: &url.URL{Scheme: "https", Host: "cp.test:8443"}, CacheURLs: []string{address}}, func(ctx context.Context, host string) ([]string, error) {
			if ip := net.ParseIP(host); ip != nil {
				return []string{host}, nil
			}
			return resolve(ctx, strings.ToLower(host))
		}}
		if f := c.look(t.Context()); f.Verdict != want {
			t.Errorf("%s: %+v", address, f)
		}
	}
}

// deaf is a check that hears of no deadline.
type deaf struct{ end chan struct{} }

func (deaf) name() string { return "deaf" }

func (c deaf) look(context.Context) Finding {
	<-c.end
	return well("")
}

func TestACheckThatHangsHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan struct{})
		began := time.Now()
		findings := examine(t.Context(), []check{deaf{end}, healthChecks{"/nonexistent"}}, limit)
		if findings[0].Verdict != Wrong || findings[0].Remedy == "" || findings[1].Verdict != Well {
			t.Errorf("%+v", findings)
		}
		if took := time.Since(began); took > limit+lateness {
			t.Errorf("it took %s", took)
		}
		close(end)
	})
}
