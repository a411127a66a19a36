package api_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nixfleet/internal/controlplane/fleettest"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/wire"
)

// attempt is an enrolment that would succeed, until a defect is put into it.
type attempt struct {
	name     string             // of the host
	key      ed25519.PrivateKey // that makes the request
	claims   identity.Claims
	stranger bool // the token is signed by another organisation
	version  string
	nonce    *fleet.Nonce // the entry of the signed list; nil: there is none
	cn       string       // of the request
	breakCSR func([]byte) []byte
	declared bool
	pubkey   ed25519.PublicKey // that is declared; may be nil
	revoked  *fleet.Revocation
	burned   bool // the nonce was used with another key
	token    []byte
}

func newAttempt(name string) *attempt {
	key, now := newKey(), time.Now()
	a := &attempt{name: name, key: key, cn: name, declared: true, pubkey: key.Public().(ed25519.PublicKey), version: `"version": 1`}
	a.claims = identity.Claims{
		Hostname: name, ExpectedPubkeyFingerprint: identity.Fingerprint(a.pubkey),
		IssuedAt: now, ExpiresAt: now.Add(time.Hour), Nonce: identity.NewNonce(),
	}
	a.nonce = &fleet.Nonce{Nonce: a.claims.Nonce, Hostname: name, ExpiresAt: a.claims.ExpiresAt}
	return a
}

func newKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func (a *attempt) request(t *testing.T) wire.EnrollRequest {
	t.Helper()
	csr, err := identity.NewCSR(a.cn, a.key)
	must(t, err)
	if a.breakCSR != nil {
		csr = a.breakCSR(csr)
	}
	return wire.EnrollRequest{Token: a.token, CSRPem: string(csr)}
}

// defects are what may be wrong with an enrolment, in the order in which the
// protocol has it looked at. Of those of one part an attempt has one.
var defects = []struct {
	name, part string
	put        func(*attempt)
	want       verdict
	detail     string
}{
	{"of another version", "version", func(a *attempt) { a.version = `"version": 2` }, verdict{401, wire.SlugBadToken}, "another version"},
	{"signed by a stranger", "signature", func(a *attempt) { a.stranger = true }, verdict{401, wire.SlugBadToken}, "not signed by the organisation's root key"},
	{"expired", "time", func(a *attempt) {
		a.claims.IssuedAt, a.claims.ExpiresAt = a.claims.IssuedAt.Add(-2*time.Hour), a.claims.IssuedAt.Add(-time.Hour)
	}, verdict{403, wire.SlugTokenExpired}, "has expired"},
	{"not yet valid", "time", func(a *attempt) {
		a.claims.IssuedAt, a.claims.ExpiresAt = a.claims.IssuedAt.Add(time.Hour), a.claims.IssuedAt.Add(2*time.Hour)
	}, verdict{403, wire.SlugTokenNotYet}, "not valid yet"},
	{"in no list", "list", func(a *attempt) { a.nonce = nil }, verdict{403, wire.SlugNonceNotAllowed}, "signed list"},
	{"in the list for another host", "list", func(a *attempt) { a.nonce.Hostname = "somebody-else" }, verdict{403, wire.SlugNonceNotAllowed}, "signed list"},
	{"in the list until a minute ago", "list", func(a *attempt) { a.nonce.ExpiresAt = time.Now().Add(-time.Minute) }, verdict{403, wire.SlugNonceNotAllowed}, "signed list"},
	{"no request", "csr", func(a *attempt) { a.breakCSR = func([]byte) []byte { return []byte("none") } }, verdict{400, wire.SlugBadCSR}, "no PEM block"},
	{"a request without the key", "csr", func(a *attempt) { a.breakCSR = unproven }, verdict{400, wire.SlugBadCSR}, "does not hold the key"},
	{"a request for another name", "name", func(a *attempt) { a.cn = "somebody-else" }, verdict{403, wire.SlugNameMismatch}, "the request is for"},
	{"a token for another key", "fingerprint", func(a *attempt) {
		a.claims.ExpectedPubkeyFingerprint = identity.Fingerprint(newKey().Public().(ed25519.PublicKey))
	}, verdict{403, wire.SlugKeyMismatch}, "the token is for"},
	{"not declared", "declared", func(a *attempt) { a.declared = false }, verdict{403, wire.SlugHostNotDeclared}, "has no host"},
	{"declared without a key", "declared", func(a *attempt) { a.pubkey = nil }, verdict{403, wire.SlugHostNotDeclared}, "declares no key"},
	{"declared with another key", "declared", func(a *attempt) { a.pubkey = newKey().Public().(ed25519.PublicKey) }, verdict{403, wire.SlugKeyMismatch}, "declares another key"},
	{"the host revoked", "revoked", func(a *attempt) {
		a.revoked = &fleet.Revocation{Hostname: a.name, NotBefore: time.Now().Add(2 * time.Hour)}
	}, verdict{403, wire.SlugRevoked}, "was revoked"},
	{"the key revoked", "revoked", func(a *attempt) {
		a.revoked = &fleet.Revocation{Hostname: "whoever-had-it", NotBefore: time.Now(), KeyFingerprint: identity.Fingerprint(a.key.Public().(ed25519.PublicKey))}
	}, verdict{403, wire.SlugRevoked}, "this key was revoked"},
	{"used before", "burned", func(a *attempt) { a.burned = true }, verdict{409, wire.SlugNonceUsed}, "used before"},
}

// unproven changes a request's signature.
func unproven(csr []byte) []byte {
	block, _ := pem.Decode(csr)
	block.Bytes[len(block.Bytes)-1] ^= 1
	return pem.EncodeToMemory(block)
}

// C9, C28: an enrolment with one defect is refused for it, and one with two for
// the one that is looked at first.
func TestEnrolmentIsCheckedInOrder(t *testing.T) {
	f, strangers := fleettest.New(t, 1), fleettest.New(t, 1)
	type broken struct {
		*attempt
		defects []int
	}
	attempts := []broken{{newAttempt("good"), nil}}
	for i := range defects {
		attempts = append(attempts, broken{newAttempt(fmt.Sprintf("only-%d", i)), []int{i}})
		for j := range i {
			if defects[i].part != defects[j].part {
				attempts = append(attempts, broken{newAttempt(fmt.Sprintf("both-%d-%d", j, i)), []int{j, i}})
			}
		}
	}
	for _, a := range attempts {
		for _, i := range a.defects {
			defects[i].put(a.attempt)
		}
	}

	// First, nonces are used that will count as used.
	var earlier []*attempt
	for _, a := range attempts {
		if a.burned {
			e := newAttempt(a.name)
			e.claims.Nonce, e.nonce.Nonce = a.claims.Nonce, a.claims.Nonce
			e.token = f.Sign(e.claims)
			f.Allow(*e.nonce)
			f.Declare(e.name, e.pubkey)
			earlier = append(earlier, e)
		}
	}
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	// Each from an address of its own: limits are not what this is about.
	tries := 0
	try := func(a *attempt) (verdict, string) {
		t.Helper()
		tries++
		c := p.clientAt(fmt.Sprintf("127.0.%d.%d", 1+tries/200, 1+tries%200), nil)
		defer c.http.CloseIdleConnections()
		got, _, answer := c.ask("POST", wire.PathEnroll, a.request(t))
		return got, string(answer)
	}
	for _, e := range earlier {
		if got, answer := try(e); got.code != 200 {
			t.Fatalf("the earlier enrolment of %s: %s", e.name, answer)
		}
	}

	key := newKey()
	operator, err := identity.OperatorTemplate("witness", time.Now().Add(-time.Minute), time.Hour)
	must(t, err)
	witness := p.client(issue(t, p.ca, operator, key))
	f.Revoke(fleet.Revocation{Hostname: "witness", NotBefore: time.Now(), KeyFingerprint: identity.Fingerprint(key.Public().(ed25519.PublicKey))})
	f.AllowNone()
	for _, a := range attempts {
		by := f
		if a.stranger {
			by = strangers
		}
		a.token = bytes.Replace(by.Sign(a.claims), []byte(`"version": 1`), []byte(a.version), 1)
		if a.nonce != nil {
			f.Allow(*a.nonce)
		}
		if a.revoked != nil {
			f.Revoke(*a.revoked)
		}
		if a.declared {
			f.Declare(a.name, a.pubkey)
		} else {
			f.Remove(a.name)
		}
	}
	f.Publish("bb", system)
	p.ready("stable@bb")
	// Each document is taken when it is there. An operator's key tells when revocations are.
	p.eventually("an attempt without a defect succeeds", slowly(func() bool { got, _ := try(attempts[0].attempt); return got.code == 200 }))
	p.eventually("revocations are known", func() bool {
		got, _, _ := witness.ask("GET", wire.PathWhoami, nil)
		return got.slug == wire.SlugRevoked
	})
	for _, a := range attempts[1:] {
		first := defects[slices.Min(a.defects)]
		var names []string
		for _, i := range a.defects {
			names = append(names, defects[i].name)
		}
		if got, answer := try(a.attempt); got != first.want || !strings.Contains(answer, first.detail) {
			t.Errorf("%s: %+v %s\nwant %+v, %s", strings.Join(names, " and "), got, answer, first.want, first.detail)
		}
	}
}

// slowly asks no more often than a host's limit allows for some seconds.
func slowly(is func() bool) func() bool {
	return func() bool {
		if is() {
			return true
		}
		time.Sleep(300 * time.Millisecond)
		return false
	}
}

// C8: whoever asks again with the same token and key, because the answer was
// lost or all at once, gets the one certificate; nobody else gets another by it.
func TestATokenGivesOneIdentity(t *testing.T) {
	f := fleettest.New(t, 2)
	h, twin := f.Hosts[0], f.Hosts[1]
	twin.Key = h.Key // a cloned machine
	token := f.Token(h)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	certs := make([]wire.CertificateResponse, 8)
	var all sync.WaitGroup
	for i := range certs {
		all.Go(func() {
			decode(t, p.client(nil).want("POST", wire.PathEnroll, enrolment(t, h, token), 200, ""), &certs[i])
		})
	}
	all.Wait()
	for _, c := range certs {
		if c != certs[0] {
			t.Error("two certificates for one token")
		}
	}
	var views wire.Page[wire.CertificateView]
	decode(t, p.operator().want("GET", wire.PathCertificates, nil, 200, ""), &views)
	if len(views.Items) != 1 || views.Items[0].Serial != pair(t, h, certs[0]).Leaf.SerialNumber.Text(16) {
		t.Errorf("the certificates are %+v", views.Items)
	}

	// The same nonce, allowed for a second host that has the same key.
	claims := identity.Claims{Hostname: twin.Name, ExpectedPubkeyFingerprint: fingerprint(twin), IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}
	parsed, err := identity.ParseToken(token)
	must(t, err)
	claims.Nonce = parsed.Claims.Nonce
	f.AllowNone()
	second := f.Mint(claims)
	f.Declare(twin.Name, twin.Key.Public().(ed25519.PublicKey))
	f.Publish("bb", system)
	p.ready("stable@bb")
	p.eventually("the new list is known", slowly(func() bool {
		got, _, _ := p.client(nil).ask("POST", wire.PathEnroll, enrolment(t, twin, second))
		return got.slug != wire.SlugNonceNotAllowed
	}))
	p.client(nil).want("POST", wire.PathEnroll, enrolment(t, twin, second), 409, wire.SlugNonceUsed)
	// And the first host's own is no longer allowed.
	p.client(nil).want("POST", wire.PathEnroll, enrolment(t, h, token), 403, wire.SlugNonceNotAllowed)
}

// One address, and one host, may try only so often; who holds no signed token
// takes no try from a host.
func TestEnrolmentIsLimited(t *testing.T) {
	f := fleettest.New(t, 2)
	h, other := f.Hosts[0], f.Hosts[1]
	token, otherToken := f.Token(h), f.Token(other)
	strangers := fleettest.New(t, 1).Token(h)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	tried := func(c *client, body any) (refused bool) {
		got, header, _ := c.ask("POST", wire.PathEnroll, body)
		if refused = got == (verdict{429, wire.SlugTooMany}); refused && header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		return refused
	}
	// Many at once: in every second that they take, ten more are let in.
	one := p.clientAt("127.0.0.2", nil)
	var fromOne atomic.Int64
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 20 {
				if tried(one, enrolment(t, h, strangers)) {
					fromOne.Add(1)
				}
			}
		})
	}
	all.Wait()
	if n := fromOne.Load(); n < 10 {
		t.Errorf("%d of 400 tries from one address were refused", n)
	}
	p.clientAt("127.0.0.3", nil).want("POST", wire.PathEnroll, enrolment(t, h, token), 200, "")
	// Each from its own address: the host itself is limited.
	refused := 0
	for i := range 20 {
		c := p.clientAt(fmt.Sprintf("127.0.1.%d", i+1), nil)
		if tried(c, enrolment(t, h, token)) {
			refused++
		}
		c.http.CloseIdleConnections()
	}
	if refused < 5 {
		t.Errorf("%d of 20 tries of one host were refused", refused)
	}
	p.clientAt("127.0.0.4", nil).want("POST", wire.PathEnroll, enrolment(t, other, otherToken), 200, "")
}

// A report of a host that cannot enrol is seen by operators, also when the
// reason is that its token has expired; it ends with the certificate.
func TestBootstrapReportsAreSeen(t *testing.T) {
	f := fleettest.New(t, 2)
	h, other := f.Hosts[0], f.Hosts[1]
	now := time.Now()
	claims := identity.Claims{Hostname: h.Name, ExpectedPubkeyFingerprint: fingerprint(h), IssuedAt: now.Add(-2 * time.Hour), ExpiresAt: now.Add(-time.Hour), Nonce: identity.NewNonce()}
	expired := f.Sign(claims)
	claims.Hostname = "nobody-knows-me"
	undeclared := f.Sign(claims)
	token, unused := f.Token(h), f.Token(other)
	f.Publish("aa", system)
	p := serve(t, f)
	p.ready("stable@aa")
	nobody, operator := p.client(nil), p.operator()
	view := func() (v wire.HostView) {
		decode(t, operator.want("GET", wire.Fill(wire.PathHost, h.Name), nil, 200, ""), &v)
		return v
	}
	report := func(token []byte, kind wire.BootstrapEventKind, reason string) wire.BootstrapReport {
		return wire.BootstrapReport{Token: token, AgentVersion: "1.2", OccurredAt: now, Event: wire.BootstrapEvent{Kind: kind, Reason: reason}}
	}
	nobody.want("POST", wire.PathBootstrapReport, report(expired, wire.BootstrapEnrollmentFailed, "the token has expired"), 204, "")
	v := view()
	if e := v.Enrolment; e == nil || e.Kind != wire.BootstrapEnrollmentFailed || e.Reason != "the token has expired" || e.AgentVersion != "1.2" || e.At.Before(now.Add(-time.Second)) {
		t.Errorf("the operator sees %+v", e)
	}
	if !slices.Contains(v.Conditions, wire.ConditionEnrolment) || !strings.Contains(v.Why, "the token has expired") {
		t.Errorf("the operator sees %v: %s", v.Conditions, v.Why)
	}
	nobody.want("POST", wire.PathBootstrapReport, report(token, wire.BootstrapTrustError, "ü"+strings.Repeat("ä", 5000)), 204, "")
	if e := view().Enrolment; e == nil || e.Kind != wire.BootstrapTrustError || len(e.Reason) > 1024 || len(e.Reason) < 1000 || strings.ContainsRune(e.Reason, '\uFFFD') {
		t.Errorf("the operator sees %+v", e)
	}
	nobody.want("POST", wire.PathBootstrapReport, report(token, "Rumour", "x"), 400, wire.SlugBadRequest)
	nobody.want("POST", wire.PathBootstrapReport, report(fleettest.New(t, 1).Token(h), wire.BootstrapTrustError, "x"), 401, wire.SlugBadToken)
	nobody.want("POST", wire.PathBootstrapReport, report(undeclared, wire.BootstrapTrustError, "x"), 204, "")
	operator.want("GET", wire.Fill(wire.PathHost, "nobody-knows-me"), nil, 404, wire.SlugNotFound)

	// The token was not used, and the certificate ends the trouble.
	p.enrolled(h, token)
	if v := view(); v.Enrolment != nil || slices.Contains(v.Conditions, wire.ConditionEnrolment) {
		t.Errorf("after the enrolment: %+v %v", v.Enrolment, v.Conditions)
	}
	refused := 0
	for range 20 {
		if got, _, _ := nobody.ask("POST", wire.PathBootstrapReport, report(unused, wire.BootstrapTrustError, "x")); got.code == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 5 {
		t.Errorf("%d of 20 reports of one host were refused", refused)
	}
}
