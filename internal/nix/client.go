package nix

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// What a cache's answer may mean to a caller that asks several.
var (
	ErrMissing     = errors.New("not in this cache")
	ErrUnsigned    = errors.New("not signed by any of the pinned cache keys")
	ErrCorrupt     = errors.New("the archive is not what was promised")
	ErrUnavailable = errors.New("the cache does not answer")
)

// How long a cache may keep us waiting.
const (
	connectTimeout = 10 * time.Second
	answerTimeout  = 20 * time.Second // from the request to the answer's head
	stallTimeout   = 30 * time.Second // without one byte of an archive
)

// Client reads one binary cache over HTTP. It has its own connections: a new
// Client opens a new one.
type Client struct {
	base string
	http *http.Client
	keys []PublicKey
}

// ClientOptions are what a Client may be given beyond the cache's address.
type ClientOptions struct {
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a plain dialler
	RootCAs *x509.CertPool                                                    // nil: the system's
}

// NewClient returns a client of the cache at an http or https address. Only
// paths signed by one of the keys are ever returned: an address that asks for
// less (Nix's trusted=1) is refused.
func NewClient(address string, keys []PublicKey, o ClientOptions) (*Client, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("cache address: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("cache address %s: want http://… or https://…", u.Redacted())
	}
	if WithoutSignatures(address) {
		return nil, fmt.Errorf("cache address %s: trusted would turn signatures off", u.Redacted())
	}
	u.RawQuery, u.Fragment = "", "" // other settings of Nix's, such as priority
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Client{
		base: strings.TrimSuffix(u.String(), "/"),
		keys: keys,
		http: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, connectTimeout)
				defer cancel()
				return dial(ctx, network, addr)
			},
			TLSClientConfig:       &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:   connectTimeout,
			ResponseHeaderTimeout: answerTimeout,
			DisableCompression:    true,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   2,
		}},
	}, nil
}

// WithoutSignatures tells whether Nix would believe the cache at an address
// without signatures, or cannot be asked, because the address is none.
func WithoutSignatures(address string) bool {
	u, err := url.Parse(address)
	return err != nil || u.Query().Has("trusted")
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) String() string { return c.base }

// Info returns what the cache says about a path, with the signature checked.
// Errors are ErrMissing, ErrUnsigned, ErrCorrupt, ErrUnavailable or ctx's.
func (c *Client) Info(ctx context.Context, base string) (*NarInfo, error) {
	if err := CheckBase(base); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout+answerTimeout)
	defer cancel()
	body, err := c.get(ctx, PathHash(base)+".narinfo")
	if err != nil {
		return nil, err
	}
	defer body.Close() // only read
	text, err := io.ReadAll(io.LimitReader(body, narInfoMax+1))
	if err != nil {
		return nil, c.unavailable(ctx, err)
	}
	n, err := ParseNarInfo(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w: %w", c.base, base, ErrCorrupt, err)
	}
	if n.Base != base {
		return nil, fmt.Errorf("%s: %s: %w: the answer is about %s", c.base, base, ErrCorrupt, n.Base)
	}
	if !n.Verify(c.keys) {
		return nil, fmt.Errorf("%s: %s: %w", c.base, base, ErrUnsigned)
	}
	return n, nil
}

// Fetch unpacks the path's archive into dest, which must not exist, and checks it
// against the narinfo that Info returned. After an error dest is gone. Errors are
// as Info's, and those of the file system.
func (c *Client) Fetch(ctx context.Context, n *NarInfo, dest string) error {
	err := c.fetch(ctx, n, dest)
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", c.base, n.Base, err)
		if rmErr := os.RemoveAll(dest); rmErr != nil {
			err = errors.Join(err, rmErr)
		}
	}
	return err
}

func (c *Client) fetch(ctx context.Context, n *NarInfo, dest string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("%w: no byte in %s", ErrUnavailable, stallTimeout))
	})
	defer stalled.Stop()
	body, err := c.get(ctx, n.URL)
	if err != nil {
		return err
	}
	defer body.Close() // only read
	down := &lively{r: body, each: func() { stalled.Reset(stallTimeout) }}
	nar, err := decompress(n.Compression, down)
	if err != nil {
		return c.broken(ctx, down, err)
	}
	defer nar.Close() // only read
	sum := sha256.New()
	var size count
	limited := io.LimitReader(nar, n.NarSize+1)
	if err := Unpack(io.TeeReader(limited, io.MultiWriter(sum, &size)), dest); err != nil {
		return c.broken(ctx, down, err)
	}
	if int64(size) != n.NarSize || Hash(sum.Sum(nil)) != n.NarHash {
		return fmt.Errorf("%w: hash mismatch, want %s", ErrCorrupt, n.NarHash)
	}
	return nil
}

// broken tells whose fault a failed unpacking is: the connection's, the file
// system's, or the archive's.
func (c *Client) broken(ctx context.Context, down *lively, err error) error {
	var pathErr *os.PathError
	var linkErr *os.LinkError
	switch {
	case ctx.Err() != nil || down.err != nil:
		return c.unavailable(ctx, err)
	case errors.As(err, &pathErr), errors.As(err, &linkErr):
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// get opens one file of the cache.
func (c *Client) get(ctx context.Context, file string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/"+file, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unavailable(ctx, err)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return resp.Body, nil
	case code == http.StatusNotFound, code == http.StatusForbidden, code == http.StatusGone:
		err = ErrMissing // 403 is how some object stores say 404
	default:
		err = ErrUnavailable
	}
	resp.Body.Close() // nothing of it is wanted
	return nil, fmt.Errorf("%s/%s: %w: %s", c.base, file, err, resp.Status)
}

// unavailable wraps an error of the network. The caller's own cancellation is
// passed on as it is; a deadline is the cache's fault.
func (c *Client) unavailable(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return cause
	case errors.Is(cause, ErrUnavailable):
		return cause
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func decompress(name string, r io.Reader) (io.ReadCloser, error) {
	switch name {
	case "none":
		return io.NopCloser(r), nil
	case "xz":
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case "zstd":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, fmt.Errorf("compression %q is not supported, only none, xz and zstd", name)
}

// lively calls each for every read that brought something, and keeps the error
// that ended the stream, when it was one.
type lively struct {
	r    io.Reader
	each func()
	err  error
}

func (l *lively) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if n > 0 {
		l.each()
	}
	if err != nil && err != io.EOF {
		l.err = err
	}
	return n, err
}

// count counts the bytes written to it.
type count int64

func (c *count) Write(b []byte) (int, error) {
	*c += count(len(b))
	return len(b), nil
}
