package agent_test

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// shifted is a control plane whose clock is ahead of the host's: it issues
// certificates, takes heartbeats and reports, and dates everything by its clock.
type shifted struct {
	w *world

	mu      sync.Mutex
	ahead   time.Duration
	issued  int
	reports []wire.BootstrapReport
	beats   []wire.HeartbeatRequest
}

func (s *shifted) now() time.Time { return time.Now().Add(s.ahead) }

func (s *shifted) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out.Header().Set("Date", s.now().UTC().Format(http.TimeFormat))
	switch r.URL.Path {
	case wire.PathEnroll:
		csr, err := identity.ParseCSR([]byte(read[wire.EnrollRequest](s.w.cp, r).CSRPem))
		s.w.must(err)
		template, err := identity.AgentTemplate(csr.MachineID, "", s.now(), identity.DefaultValidity)
		s.w.must(err)
		cert, err := s.w.cp.ca.Issue(template, csr.Key)
		s.w.must(err)
		s.issued++
		answer(out, wire.CertificateResponse{CertPem: string(identity.EncodeCertificate(cert)), NotAfter: cert.NotAfter})
	case wire.PathBootstrapReport:
		s.reports = append(s.reports, read[wire.BootstrapReport](s.w.cp, r))
		out.WriteHeader(http.StatusNoContent)
	case wire.PathHeartbeat:
		s.beats = append(s.beats, read[wire.HeartbeatRequest](s.w.cp, r))
		answer(out, wire.HeartbeatResponse{ReceivedAt: s.now().UTC()})
	default:
		refuse(out, wire.Errorf(wire.SlugNotFound, "not here"))
	}
}

// seen is what came, by now.
func (s *shifted) seen() (issued int, reports []wire.BootstrapReport, beats []wire.HeartbeatRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.issued, slices.Clone(s.reports), slices.Clone(s.beats)
}

// shift has the host enrol at a control plane whose clock is ahead.
func (w *world) shift(ahead time.Duration) *shifted {
	w.t.Helper()
	w.stop()
	s := &shifted{w: w, ahead: ahead}
	key, err := identity.NewKey()
	w.must(err)
	template, err := identity.ServerTemplate([]string{"shifted.test"}, s.now().Add(-time.Hour), 365*24*time.Hour)
	w.must(err)
	cert, err := w.cp.ca.Issue(template, key.Public())
	w.must(err)
	server := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, ClientAuth: tls.RequestClientCert}}
	l := w.net.listen("shifted.test:443")
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeTLS(l, "", "")
	}()
	w.t.Cleanup(func() {
		server.Close()
		l.Close()
		<-done
	})
	w.must(os.Remove(w.path("state/agent-cert.pem")))
	w.write("token.json", []byte(`{"version":1}`))
	w.config = func(c *agent.Config) {
		c.ControlPlane = &url.URL{Scheme: "https", Host: "shifted.test:443"}
		c.BootstrapTokenFile = w.path("token.json")
		c.MaxClockSkew = 5 * time.Minute
	}
	w.start()
	return s
}

// C21: a host whose clock is a minute from the control plane's enrols and says so
// in its heartbeats. One that is an hour behind does not use a certificate from
// its future: it says what both clocks show, in its log and to the operator, and
// enrols by itself when the clock is right.
func TestEnrolmentWithClocksThatAreApart(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"a minute behind": time.Minute, "a minute ahead": -time.Minute, "an hour ahead": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				time.Sleep(2 * time.Hour) // the authority is older than any of the clocks
				s := w.shift(ahead)
				time.Sleep(10 * time.Minute)
				issued, reports, beats := s.seen()
				if issued != 1 || len(reports) != 0 || len(beats) == 0 {
					t.Fatalf("%d certificates, %d reports, %d heartbeats\n%s", issued, len(reports), len(beats), w.logTail())
				}
				i := slices.IndexFunc(beats, func(b wire.HeartbeatRequest) bool { return b.Clock != nil && b.Clock.OffsetMs != 0 })
				if i < 0 || (time.Duration(beats[i].Clock.OffsetMs)*time.Millisecond+ahead).Abs() > 2*time.Second {
					t.Errorf("the heartbeats do not say how far the clocks are apart: %+v", beats)
				}
			})
		})
	}
	t.Run("an hour behind", func(t *testing.T) {
		story(t, func(w *world) {
			time.Sleep(2 * time.Hour)
			s := w.shift(time.Hour)
			now := time.Now()
			time.Sleep(5 * time.Minute)
			if _, err := os.Stat(w.path("state/agent-cert.pem")); err == nil {
				t.Error("a certificate of the future was stored")
			}
			issued, reports, _ := s.seen()
			if len(reports) == 0 || reports[0].Event.Kind != wire.BootstrapTrustError {
				t.Fatalf("the reports are %+v", reports)
			}
			for _, text := range []string{reports[0].Event.Reason, w.logText()} {
				for _, moment := range []time.Time{now, now.Add(time.Hour)} {
					if want := moment.UTC().Format("2006-01-02T15:04"); !strings.Contains(text, want) {
						t.Errorf("%s is not told: %s", want, text)
					}
				}
			}
			if issued > 10 {
				t.Errorf("%d certificates were issued for nothing in 5 minutes", issued)
			}
			s.mu.Lock()
			s.ahead = 0 // somebody set the clock
			s.mu.Unlock()
			w.eventually("it has enrolled", func() bool { _, err := os.Stat(w.path("state/agent-cert.pem")); return err == nil })
		})
	})
}
