package agent_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nixfleet/internal/identity"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// controlPlane is as much of a control plane as an agent needs: it serves signed
// documents, hands out orders until they are answered, and stores events in
// order. It is reached over real TLS.
type controlPlane struct {
	t      testing.TB
	server *http.Server
	ca     identity.CA

	mu        sync.Mutex
	newest    string // rollout that it names in its answers to heartbeats
	wake      chan struct{}
	documents map[string]signed
	orders    []wire.Order
	rejects   []wire.Reject
	events    map[string][]wire.Envelope // stored, by rollout
	chain     []wire.Envelope            // stored, in the order of their arrival
	beats     []wire.HeartbeatRequest
	enrolled  []wire.EnrollRequest
	reports   []wire.BootstrapReport
	renewals  int
	certs     []*x509.Certificate // that were presented

	// Faults. verdict may answer for an event in place of storing it.
	verdict   func(envelope wire.Envelope, e lifecycle.Event) *wire.BatchResult
	loseAfter map[string]int                                    // answers to lose after the work was done, by path
	away      bool                                              // 503 for everything
	lie       func(w http.ResponseWriter, r *http.Request) bool // answers in place of all that follows, when it says so
	noBatches bool
	replay    []wire.Replay
	known     []wire.BootstrapRollout
	enrollErr *wire.Error
	skew      time.Duration // of the Date header
	validity  time.Duration
}

type signed struct{ doc, sig []byte }

func newControlPlane(t testing.TB, n *network, address string, ca identity.CA, server tls.Certificate, clients *x509.CertPool) *controlPlane {
	c := &controlPlane{
		t: t, ca: ca, wake: make(chan struct{}), documents: map[string]signed{}, events: map[string][]wire.Envelope{},
		loseAfter: map[string]int{}, validity: identity.DefaultValidity,
	}
	c.server = &http.Server{
		Handler:  c.handler(),
		ErrorLog: log.New(io.Discard, "", 0), // connections are cut on purpose
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server},
			ClientCAs: clients, ClientAuth: tls.RequestClientCert, // expired ones may renew
		},
	}
	l := n.listen(address)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		c.server.Close()
		l.Close()
		<-done
	})
	return c
}

// locked runs a function on the control plane's state and wakes who waits for it.
func (c *controlPlane) locked(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
	close(c.wake)
	c.wake = make(chan struct{})
}

func (c *controlPlane) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+wire.PathDispatch, c.dispatch)
	mux.HandleFunc("POST "+wire.PathReject, c.reject)
	mux.HandleFunc("POST "+wire.PathEventsBatch, c.batch)
	mux.HandleFunc("POST "+wire.PathEvents, c.single)
	mux.HandleFunc("POST "+wire.PathHeartbeat, c.heartbeat)
	mux.HandleFunc("POST "+wire.PathEnroll, c.enroll)
	mux.HandleFunc("POST "+wire.PathRenew, c.renew)
	mux.HandleFunc("POST "+wire.PathBootstrapReport, c.report)
	mux.HandleFunc("GET "+wire.PathManifest, c.document)
	mux.HandleFunc("GET "+wire.PathManifestSig, c.document)
	mux.HandleFunc("GET "+wire.PathFleet, c.document)
	mux.HandleFunc("GET "+wire.PathFleetSig, c.document)
	mux.HandleFunc("GET "+wire.PathWhoami, func(w http.ResponseWriter, _ *http.Request) { answer(w, wire.Whoami{}) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(wire.HeaderProtocol) != "1" {
			c.t.Errorf("%s without the protocol's header", r.URL.Path)
		}
		c.mu.Lock()
		away := c.away
		if c.skew != 0 {
			w.Header().Set("Date", time.Now().Add(c.skew).UTC().Format(http.TimeFormat))
		}
		if len(r.TLS.PeerCertificates) > 0 {
			c.certs = append(c.certs, r.TLS.PeerCertificates[0])
		}
		lie := c.lie
		lose := c.loseAfter[r.URL.Path] > 0
		if lose {
			c.loseAfter[r.URL.Path]--
		}
		c.mu.Unlock()
		if away {
			refuse(w, wire.Errorf(wire.SlugUnavailable, "away"))
			return
		}
		if lie != nil && lie(w, r) {
			return
		}
		if lose { // the work is done, and nobody hears of it
			mux.ServeHTTP(&lost{header: http.Header{}}, r)
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	})
}

type lost struct {
	header http.Header
	bytes.Buffer
}

func (l *lost) Header() http.Header { return l.header }
func (l *lost) WriteHeader(int)     {}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", wire.ContentType)
	json.NewEncoder(w).Encode(v)
}

func refuse(w http.ResponseWriter, e *wire.Error) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(e.RetryAfter/time.Second)))
	}
	w.WriteHeader(e.Status())
	json.NewEncoder(w).Encode(e)
}

func read[T any](c *controlPlane, r *http.Request) (v T) {
	// An agent that is stopped breaks off what it is sending.
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil && r.Context().Err() == nil {
		c.t.Errorf("%s: %v", r.URL.Path, err)
	}
	return v
}

func (c *controlPlane) dispatch(w http.ResponseWriter, r *http.Request) {
	timer := time.NewTimer(wire.MaxWait)
	defer timer.Stop()
	for {
		c.mu.Lock()
		wake := c.wake
		var next *wire.Order
		if len(c.orders) > 0 {
			next = &c.orders[0]
			defer answer(w, *next)
		}
		c.mu.Unlock()
		if next != nil {
			return
		}
		select {
		case <-wake:
		case <-timer.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// answered drops an order whose answer has come.
func (c *controlPlane) answered(id string) {
	c.orders = slices.DeleteFunc(c.orders, func(o wire.Order) bool { return o.OrderID == id })
}

func (c *controlPlane) reject(w http.ResponseWriter, r *http.Request) {
	reject := read[wire.Reject](c, r)
	c.locked(func() {
		c.rejects = append(c.rejects, reject)
		c.answered(reject.OrderID)
	})
	w.WriteHeader(http.StatusNoContent)
}

func (c *controlPlane) batch(w http.ResponseWriter, r *http.Request) {
	if c.noBatches {
		refuse(w, wire.Errorf(wire.SlugNotFound, "no such route"))
		return
	}
	var response wire.BatchResponse
	stopped := map[string]bool{}
	for _, e := range read[wire.BatchRequest](c, r).Events {
		result := wire.BatchResult{RolloutID: e.RolloutID, Status: wire.StatusRetry}
		if !stopped[e.RolloutID] {
			result = c.store(e)
		}
		stopped[e.RolloutID] = !result.Status.Final()
		response.Results = append(response.Results, result)
	}
	answer(w, response)
}

func (c *controlPlane) single(w http.ResponseWriter, r *http.Request) {
	switch result := c.store(read[wire.Envelope](c, r)); {
	case result.Status == wire.StatusRefused, !result.Status.Final():
		refuse(w, result.Error)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// store keeps an event when it is the next one of its rollout.
func (c *controlPlane) store(envelope wire.Envelope) wire.BatchResult {
	e, err := wire.DecodeEvent(envelope.Event)
	if err != nil {
		c.t.Errorf("event: %v", err)
	}
	result := wire.BatchResult{RolloutID: envelope.RolloutID, Seq: e.Seq, Status: wire.StatusStored}
	c.locked(func() {
		if c.verdict != nil {
			if other := c.verdict(envelope, e); other != nil {
				other.RolloutID, other.Seq = envelope.RolloutID, e.Seq
				result = *other
				if result.Status == wire.StatusRefused {
					c.events[envelope.RolloutID] = append(c.events[envelope.RolloutID], envelope) // it has had its number
				}
				return
			}
		}
		stored := c.events[envelope.RolloutID]
		switch last := int64(len(stored)); {
		case e.Seq <= last && bytes.Equal(stored[e.Seq-1].Event, envelope.Event):
			result.Status = wire.StatusRepeated
		case e.Seq <= last:
			result.Status, result.Error = wire.StatusConflict, wire.Errorf(wire.SlugConflict, "other bytes")
			result.Error.ExpectedSeq = last + 1
		case e.Seq > last+1:
			result.Status, result.Error = wire.StatusGap, wire.Errorf(wire.SlugGap, "missing")
			result.Error.ExpectedSeq = last + 1
		default:
			c.events[envelope.RolloutID] = append(stored, envelope)
			c.chain = append(c.chain, envelope)
			switch b := e.Body.(type) {
			case lifecycle.DispatchAck:
				c.answered(b.OrderID)
			case lifecycle.RollbackSignal:
				c.answered(b.OrderID)
			}
		}
	})
	return result
}

func (c *controlPlane) heartbeat(w http.ResponseWriter, r *http.Request) {
	beat := read[wire.HeartbeatRequest](c, r)
	response := wire.HeartbeatResponse{ReceivedAt: time.Now().UTC()}
	c.locked(func() {
		c.beats = append(c.beats, beat)
		response.Replay, c.replay = c.replay, nil
		response.BootstrapRollouts = c.known
		for path, d := range c.documents {
			if strings.HasPrefix(path, "/v1/rollouts/") {
				response.Documents = &wire.Documents{Manifest: etag(d.doc), Rollout: c.newest}
			}
		}
	})
	answer(w, response)
}

func (c *controlPlane) document(w http.ResponseWriter, r *http.Request) {
	path, isSig := strings.CutSuffix(r.URL.Path, "/sig")
	c.mu.Lock()
	d, ok := c.documents[path]
	c.mu.Unlock()
	switch {
	case !ok:
		refuse(w, wire.Errorf(wire.SlugNotFound, "no such document"))
	case isSig:
		w.Write(d.sig)
	case r.Header.Get("If-None-Match") == etag(d.doc):
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("ETag", etag(d.doc))
		w.Write(d.doc)
	}
}

func etag(doc []byte) string { return fmt.Sprintf("%q", fmt.Sprintf("%x", hash(doc))) }

func (c *controlPlane) enroll(w http.ResponseWriter, r *http.Request) {
	request := read[wire.EnrollRequest](c, r)
	c.mu.Lock()
	c.enrolled = append(c.enrolled, request)
	err := c.enrollErr
	c.mu.Unlock()
	if err != nil {
		refuse(w, err)
		return
	}
	c.issue(w, request.CSRPem)
}

func (c *controlPlane) renew(w http.ResponseWriter, r *http.Request) {
	c.locked(func() { c.renewals++ })
	c.issue(w, read[wire.RenewRequest](c, r).CSRPem)
}

func (c *controlPlane) issue(w http.ResponseWriter, csrPEM string) {
	csr, err := identity.ParseCSR([]byte(csrPEM))
	if err != nil {
		refuse(w, wire.Errorf(wire.SlugBadCSR, "%v", err))
		return
	}
	cert := issueAgent(c.t, c.ca, csr.Key, c.validity)
	answer(w, wire.CertificateResponse{CertPem: string(identity.EncodeCertificate(cert)), NotAfter: cert.NotAfter})
}

func (c *controlPlane) report(w http.ResponseWriter, r *http.Request) {
	report := read[wire.BootstrapReport](c, r)
	c.locked(func() { c.reports = append(c.reports, report) })
	w.WriteHeader(http.StatusNoContent)
}

// kinds lists the stored events of a rollout, without those whose place among the
// others is anybody's guess: several workers run at once.
func (c *controlPlane) kinds(rollout string) string {
	var kinds []string
	for _, e := range c.decoded(rollout) {
		switch e.Body.Kind() {
		case lifecycle.KindObserved, lifecycle.KindProbeResult, lifecycle.KindProbeObservedFirst, lifecycle.KindConfirmed:
		default:
			kinds = append(kinds, string(e.Body.Kind()))
		}
	}
	return strings.Join(kinds, " ")
}

func (c *controlPlane) decoded(rollout string) []lifecycle.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	var events []lifecycle.Event
	for _, envelope := range c.events[rollout] {
		e, err := wire.DecodeEvent(envelope.Event)
		if err != nil {
			c.t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// refusals is how many orders were refused.
func (c *controlPlane) refusals() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.rejects)
}

// toLose is how many answers will still be lost.
func (c *controlPlane) toLose(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loseAfter[path]
}
