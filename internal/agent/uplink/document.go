package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Document is a signed document as it was received.
type Document struct {
	Bytes     []byte
	Signature []byte
	ETag      string
}

// ErrTooLarge means that a document is longer than any that is accepted.
var ErrTooLarge = errors.New("the document is too large")

// errStalled is why a download without progress ended.
var errStalled = errors.New("no progress for " + ProgressTimeout.String())

// Document fetches a document and its signature. When etag names what the
// control plane has, both are nil and modified is false.
func (c *Client) Document(ctx context.Context, path, sigPath, etag string) (doc Document, modified bool, err error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	doc.Bytes, doc.ETag, err = c.download(ctx, path, maxDocument, header)
	if err != nil || doc.Bytes == nil {
		return Document{}, false, err
	}
	doc.Signature, _, err = c.download(ctx, sigPath, maxAnswer, nil)
	if err != nil {
		return Document{}, false, err
	}
	return doc, true, nil
}

// download reads a whole body, however slow, as long as bytes arrive. A nil body
// means: not modified.
func (c *Client) download(ctx context.Context, path string, limit int64, header http.Header) ([]byte, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(ProgressTimeout, func() { cancel(errStalled) })
	defer watch.Stop()

	resp, err := c.do(ctx, http.MethodGet, path, nil, header)
	if err != nil {
		return nil, "", stalled(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, "", nil
	}
	body := &progress{r: io.LimitReader(resp.Body, limit+1), made: func() { watch.Reset(ProgressTimeout) }}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, "", fmt.Errorf("GET %s: %w", path, stalled(ctx, err))
	}
	if int64(len(raw)) > limit {
		return nil, "", fmt.Errorf("GET %s: %w", path, ErrTooLarge)
	}
	return raw, resp.Header.Get("ETag"), nil
}

// stalled gives the reason in place of the cancellation that it caused.
func stalled(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// progress calls made whenever bytes arrive.
type progress struct {
	r    io.Reader
	made func()
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.made()
	}
	return n, err
}
