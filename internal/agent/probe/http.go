package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// maxBody is how much of an answer is read and searched, in bytes.
const maxBody = 64 << 10

func (s settings) httpCheck(m Machine) (Func, time.Duration, error) {
	if s.URL == "" {
		return nil, 0, errors.New("url: an http:// or https:// address is needed")
	}
	target, err := url.Parse(s.URL)
	if err != nil {
		return nil, 0, fmt.Errorf("url: %w", err)
	}
	if target.Scheme != "http" && target.Scheme != "https" || target.Hostname() == "" {
		return nil, 0, fmt.Errorf("url %q: an http:// or https:// address is needed", s.URL)
	}
	return func(ctx context.Context) Verdict {
		if err := s.get(ctx, m); err != nil {
			return fail(err.Error())
		}
		return pass()
	}, s.timeout(), nil
}

// get asks once, on a connection of its own: what is probed is that a client can
// connect now. Proxies of the environment are not used.
func (s settings) get(ctx context.Context, m Machine) error {
	roots, err := s.roots()
	if err != nil {
		return err
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				ctx, cancel := context.WithTimeout(ctx, s.connectTimeout())
				defer cancel()
				return m.Dial(ctx, network, address)
			},
			TLSClientConfig:        &tls.Config{RootCAs: roots},
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxBody,
		},
	}
	if !s.FollowRedirects {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return err
	}
	for name, value := range s.Headers {
		request.Header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Host" {
			request.Host = value
		}
	}
	response, err := client.Do(request)
	if err != nil {
		return s.noAnswer(err)
	}
	defer response.Body.Close() // the answer is judged by what was read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if response.StatusCode != s.ExpectStatus {
		return errors.New(withText(fmt.Sprintf("%s answered %d, want %d", s.URL, response.StatusCode, s.ExpectStatus), string(bytes.TrimSpace(body))))
	}
	if err != nil {
		return fmt.Errorf("%s answered %d, then: %w", s.URL, response.StatusCode, err)
	}
	if !bytes.Contains(body, []byte(s.BodyContains)) {
		return fmt.Errorf("%s: the first %d bytes of the body do not contain %q", s.URL, maxBody, s.BodyContains)
	}
	return nil
}

// noAnswer says why nobody answered. The client's own error begins with the
// address, which is not said twice.
func (s settings) noAnswer(err error) error {
	var client *url.Error
	if errors.As(err, &client) {
		err = client.Err
	}
	// Which of two timers ends a dial is a matter of chance, and so is its error.
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() {
		return fmt.Errorf("no answer from %s in time: %w", s.URL, err)
	}
	return fmt.Errorf("no answer from %s: %w", s.URL, err)
}

// roots are read for every check, so that a renewed authority needs no restart.
// nil are the system's.
func (s settings) roots() (*x509.CertPool, error) {
	if s.CACert == "" {
		return nil, nil
	}
	data, err := os.ReadFile(s.CACert)
	if err != nil {
		return nil, fmt.Errorf("caCert: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("caCert %s: no PEM certificate in it", s.CACert)
	}
	return pool, nil
}
