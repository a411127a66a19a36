// Package operator is the operator's side of the control plane's API.
//
// It promises typed answers, whole lists however they are paged, and errors that
// are *wire.Error when the control plane answered, *Unreachable when it did not.
// It needs an operator's certificate and the roots of the control plane's; it
// trusts no others. It never tries again by itself: a person is waiting.
package operator

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"nixfleet/internal/wire"
)

// Config says where the control plane is and who asks. All fields are required
// except CACert, without which the system's roots are used.
type Config struct {
	URL        string
	CACert     string // files, PEM
	ClientCert string
	ClientKey  string
}

// Client asks one control plane. It may be used by several goroutines.
type Client struct {
	base string
	http *http.Client
}

// RequestTimeout is how long one request may take.
const RequestTimeout = 30 * time.Second

// maxAnswer bounds what is read of one answer, in bytes.
const maxAnswer = 64 << 20

// New reads the certificates and makes a client. It does not connect.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("control plane URL %q: it must be like https://fleet.example.org:8443", c.URL)
	}
	cert, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
	if err != nil {
		return nil, fmt.Errorf("operator's certificate %s and key %s: %w", c.ClientCert, c.ClientKey, err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}
	if c.CACert != "" {
		pem, err := os.ReadFile(c.CACert)
		if err != nil {
			return nil, fmt.Errorf("CA of the control plane: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA of the control plane: %s holds no certificate", c.CACert)
		}
	}
	return &Client{
		base: strings.TrimRight(c.URL, "/"),
		http: &http.Client{
			Timeout: RequestTimeout,
			Transport: &http.Transport{
				Proxy:             http.ProxyFromEnvironment,
				TLSClientConfig:   config,
				ForceAttemptHTTP2: true,
				IdleConnTimeout:   time.Minute,
			},
		},
	}, nil
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Unreachable: no answer came.
type Unreachable struct {
	URL string
	Err error
}

func (e *Unreachable) Error() string {
	return fmt.Sprintf("no answer from %s: %v (is that its URL, does it run, and are the CA and the certificate of this fleet?)", e.URL, e.Err)
}
func (e *Unreachable) Unwrap() error { return e.Err }

// Raw fetches a document as it is.
func (c *Client) Raw(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

// Get fetches one answer.
func Get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var answer T
	raw, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return answer, fmt.Errorf("answer to %s: %w", path, err)
	}
	return answer, nil
}

// List fetches every page of a list that begins after the given item; "" is the
// beginning.
func List[T any](ctx context.Context, c *Client, path, after string) ([]T, error) {
	var items []T
	for {
		query := url.Values{wire.QueryLimit: {strconv.Itoa(pageSize)}}
		if after != "" {
			query.Set(wire.QueryAfter, after)
		}
		page, err := Get[wire.Page[T]](ctx, c, path+"?"+query.Encode())
		if err != nil {
			return nil, err
		}
		items = append(items, page.Items...)
		if page.Next == "" {
			return items, nil
		}
		if page.Next == after {
			return nil, fmt.Errorf("answer to %s: its page %q follows itself", path, after)
		}
		after = page.Next
	}
}

// pageSize is how many items are asked for at once.
const pageSize = 500

// Post asks for an action. Answer may be nil.
func (c *Client) Post(ctx context.Context, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	raw, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	if answer == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("answer to %s: %w", path, err)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set(wire.HeaderProtocol, strconv.Itoa(wire.ProtocolVersion))
	if body != nil {
		req.Header.Set("Content-Type", wire.ContentType)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("answer to %s: more than %d MiB", path, maxAnswer>>20)
	}
	if resp.StatusCode >= 300 {
		return nil, refusal(resp.StatusCode, raw)
	}
	return raw, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	return &Unreachable{URL: c.base, Err: err}
}

// refusal is the error body, or what a balancer in between said.
func refusal(code int, raw []byte) error {
	e := &wire.Error{}
	if json.Unmarshal(raw, e) != nil || e.Slug == "" {
		e = &wire.Error{Detail: http.StatusText(code)}
	}
	e.Code = code
	return e
}
