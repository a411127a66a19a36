// Package uplink is the agent's one way to its control plane: an HTTP client
// that holds mutual TLS, the protocol's headers and every time limit.
//
// It promises that each request ends, that certificate, key and roots are those
// that are on disk now (a changed file is used by the next request, on a new
// connection, without a restart), that the given roots are the only ones, and
// that an answer of the control plane that is not a success is a *wire.Error.
//
// It needs a caller that decides whether and when to ask again; Backoff helps.
// It never retries, never follows a redirect, and never reads a body to its end
// that is longer than the protocol allows.
package uplink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"nixfleet/internal/wire"
)

// Time limits.
const (
	ConnectTimeout  = 10 * time.Second
	RequestTimeout  = 30 * time.Second
	PollGrace       = 15 * time.Second // of a dispatch poll, beyond its wait
	ProgressTimeout = 30 * time.Second // of a document, without a byte arriving
)

// Sizes of answers, in bytes.
const (
	maxDocument = 32 << 20
	maxAnswer   = 1 << 20
)

// Config says where the control plane is and who the host is.
type Config struct {
	URL          *url.URL // https
	CACertFile   string   // the only roots; "" means the system's
	CertFile     string   // the client's certificate; may be missing before enrolment
	KeyFile      string   // its key, PEM or OpenSSH, ed25519
	AgentVersion string
	// Dial connects; nil means the network.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client talks to one control plane. It may be used by several goroutines.
type Client struct {
	cfg Config

	mu         sync.Mutex // never held across I/O on the network
	current    *generation
	lastAnswer time.Time
	offset     time.Duration
}

// New makes a client. It opens no file and no connection.
func New(cfg Config) *Client {
	if cfg.Dial == nil {
		d := &net.Dialer{Timeout: ConnectTimeout, KeepAlive: 30 * time.Second}
		cfg.Dial = d.DialContext
	}
	return &Client{cfg: cfg}
}

// LastAnswer is when the control plane last answered anything; the zero time
// when it never did.
func (c *Client) LastAnswer() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastAnswer
}

// ClockOffset is how far this host's clock was ahead of the control plane's at
// the last answer. It is for reports; nothing is set by it.
func (c *Client) ClockOffset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

// Reset makes the next request open a new connection.
func (c *Client) Reset() { c.drop(nil) }

// Close ends all connections that are idle. Requests under way end with their
// contexts.
func (c *Client) Close() { c.drop(nil) }

// Dispatch asks for an order and waits for one. Nil means that there was none.
func (c *Client) Dispatch(ctx context.Context, wait time.Duration) (*wire.Order, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+PollGrace)
	defer cancel()
	var order wire.Order
	path := wire.PathDispatch + "?" + wire.QueryWait + "=" + strconv.Itoa(int(wait/time.Second))
	code, err := c.json(ctx, http.MethodGet, path, nil, &order)
	if err != nil || code == http.StatusNoContent {
		return nil, err
	}
	return &order, nil
}

// Reject refuses an order.
func (c *Client) Reject(ctx context.Context, r wire.Reject) error {
	return c.post(ctx, wire.PathReject, r, nil)
}

// Heartbeat reports that the host lives.
func (c *Client) Heartbeat(ctx context.Context, r wire.HeartbeatRequest) (wire.HeartbeatResponse, error) {
	var answer wire.HeartbeatResponse
	err := c.post(ctx, wire.PathHeartbeat, r, &answer)
	return answer, err
}

// Events sends events and returns the verdict on each, in their order.
func (c *Client) Events(ctx context.Context, events []wire.Envelope) ([]wire.BatchResult, error) {
	var answer wire.BatchResponse
	if err := c.post(ctx, wire.PathEventsBatch, wire.BatchRequest{Events: events}, &answer); err != nil {
		return nil, err
	}
	if len(answer.Results) != len(events) {
		return nil, fmt.Errorf("send %d events: got %d results", len(events), len(answer.Results))
	}
	return answer.Results, nil
}

// Event sends one event, to a control plane that takes no batches. Nil means
// that it is stored.
func (c *Client) Event(ctx context.Context, e wire.Envelope) error {
	return c.post(ctx, wire.PathEvents, e, nil)
}

// Enroll asks for a first certificate.
func (c *Client) Enroll(ctx context.Context, r wire.EnrollRequest) (wire.CertificateResponse, error) {
	var answer wire.CertificateResponse
	err := c.post(ctx, wire.PathEnroll, r, &answer)
	return answer, err
}

// Report tells why the host cannot enrol.
func (c *Client) Report(ctx context.Context, r wire.BootstrapReport) error {
	return c.post(ctx, wire.PathBootstrapReport, r, nil)
}

// Renew asks for the next certificate.
func (c *Client) Renew(ctx context.Context, r wire.RenewRequest) (wire.CertificateResponse, error) {
	var answer wire.CertificateResponse
	err := c.post(ctx, wire.PathRenew, r, &answer)
	return answer, err
}

// Reach gets any answer of the control plane over a connection that it opens for
// this purpose and closes again.
func (c *Client) Reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	g, err := c.newGeneration()
	if err != nil {
		return err
	}
	defer g.close()
	req, err := c.request(ctx, http.MethodGet, wire.PathWhoami, nil)
	if err != nil {
		return err
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return err
	}
	c.answered(resp)
	return resp.Body.Close()
}

// post sends a JSON body and decodes the answer into out, unless out is nil or
// there is none.
func (c *Client) post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("POST %s: %w", path, err)
	}
	_, err = c.json(ctx, http.MethodPost, path, body, out)
	return err
}

func (c *Client) json(ctx context.Context, method, path string, body []byte, out any) (int, error) {
	resp, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return 0, err
	}
	defer drain(resp)
	if out == nil || resp.StatusCode == http.StatusNoContent {
		return resp.StatusCode, nil
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		return 0, fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return resp.StatusCode, nil
}

// do sends a request. The answer's status is 2xx or 304; others are errors.
func (c *Client) do(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	g, err := c.generation()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := g.client.Do(req)
	if err != nil {
		// The connection may be dead without knowing it: an HTTP/2 client would
		// send the next request into it as well.
		if !errors.Is(err, context.Canceled) {
			c.drop(g)
		}
		return nil, err // says method and URL
	}
	c.answered(resp)
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusNotModified {
		return resp, nil
	}
	defer drain(resp)
	return nil, fmt.Errorf("%s %s: %w", method, path, readError(resp))
}

func (c *Client) request(ctx context.Context, method, path string, body []byte) (*http.Request, error) {
	target := c.cfg.URL.String()
	for target != "" && target[len(target)-1] == '/' {
		target = target[:len(target)-1]
	}
	req, err := http.NewRequestWithContext(ctx, method, target+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body == nil {
		req.Body, req.GetBody, req.ContentLength = nil, nil, 0
	} else {
		req.Header.Set("Content-Type", wire.ContentType)
	}
	req.Header.Set(wire.HeaderProtocol, strconv.Itoa(wire.ProtocolVersion))
	req.Header.Set(wire.HeaderAgentVersion, c.cfg.AgentVersion)
	req.Header.Set("User-Agent", "nixfleet-agent/"+c.cfg.AgentVersion)
	return req, nil
}

// answered notes an answer and what it says about the clock.
func (c *Client) answered(resp *http.Response) {
	now := time.Now()
	date, err := http.ParseTime(resp.Header.Get("Date"))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastAnswer = now
	if err == nil {
		c.offset = now.Sub(date).Truncate(time.Second) // Date has no more precision
	}
}

// readError makes an error of an answer that is not a success.
func readError(resp *http.Response) *wire.Error {
	e := &wire.Error{}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, wire.MaxBody)) // best effort: the status says enough
	if json.Unmarshal(raw, e) != nil || e.Slug == "" {
		// Not the control plane but something before it.
		e = &wire.Error{Detail: http.StatusText(resp.StatusCode)}
	}
	e.Code = resp.StatusCode
	e.RetryAfter = retryAfter(resp.Header.Get("Retry-After"))
	return e
}

func retryAfter(header string) time.Duration {
	if secs, err := strconv.Atoi(header); err == nil && secs > 0 {
		return time.Duration(min(secs, int(MaxRetryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(0, time.Until(at)), MaxRetryAfter)
	}
	return 0
}

// drain lets the connection be used again.
func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, maxAnswer) // an error here has no consequence but a new connection
	resp.Body.Close()
}
