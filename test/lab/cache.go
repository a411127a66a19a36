package lab

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Cache is a signed binary cache, made by Nix, served over HTTP to the hosts.
type Cache struct {
	URL string
	Key string // public, as in trusted-public-keys

	lab    *Lab
	dir    string
	secret string
	files  http.Handler
	fault  atomic.Pointer[http.HandlerFunc] // serves in its place
	hung   chan struct{}                    // closed by Mend
}

// Cache makes an empty cache with a new key.
func (l *Lab) Cache(name string) *Cache {
	l.T.Helper()
	c := &Cache{lab: l, dir: filepath.Join(l.Dir, "cache-"+name), secret: filepath.Join(l.Dir, name+".sec")}
	public := filepath.Join(l.Dir, name+".pub")
	if err := l.nix("nix-store", "--generate-binary-cache-key", name+"-1", c.secret, public).Run(); err != nil {
		l.T.Fatal(err)
	}
	key, err := os.ReadFile(public)
	if err != nil {
		l.T.Fatal(err)
	}
	c.Key = strings.TrimSpace(string(key))
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		l.T.Fatal(err)
	}
	listener, err := net.Listen("tcp", cacheAddress+":0")
	if err != nil {
		l.T.Fatal(err)
	}
	c.files = http.FileServer(http.Dir(c.dir))
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := c.fault.Load(); fault != nil {
			(*fault)(w, r)
			return
		}
		c.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }() // ends with Close
	l.T.Cleanup(func() { _ = server.Close() })
	c.URL = "http://" + listener.Addr().String()
	return c
}

// Push copies systems with their closures into the cache, signed by its key.
func (c *Cache) Push(paths ...string) {
	c.lab.T.Helper()
	args := append([]string{"nix", "copy", "--to", "file://" + c.dir + "?compression=none&secret-key=" + c.secret}, paths...)
	if out, err := c.lab.nix(args...).CombinedOutput(); err != nil {
		c.lab.T.Fatalf("push: %v: %s", err, out)
	}
}

// Break makes another handler serve in the cache's place, until Mend.
func (c *Cache) Break(fault http.HandlerFunc) { c.fault.Store(&fault) }

// Mend ends what Break or Hang began.
func (c *Cache) Mend() {
	c.fault.Store(nil)
	if c.hung != nil {
		close(c.hung)
		c.hung = nil
	}
}

// Hang makes the cache take requests and answer none, until Mend, and tells
// whether there was one.
func (c *Cache) Hang() (asked func() bool) {
	c.hung = make(chan struct{})
	mended := c.hung
	var requests atomic.Int64
	c.Break(func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		select {
		case <-mended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	})
	return func() bool { return requests.Load() > 0 }
}

// ServeHTTP serves the cache's files.
func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.files.ServeHTTP(w, r) }

// Corrupt serves archives with one byte changed.
func (c *Cache) Corrupt(w http.ResponseWriter, r *http.Request) {
	c.archive(w, r, func(content []byte) { content[len(content)/2] ^= 1; _, _ = w.Write(content) })
}

// Cut serves half of an archive, and closes the connection.
func (c *Cache) Cut(w http.ResponseWriter, r *http.Request) {
	c.archive(w, r, func(content []byte) {
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		panic(http.ErrAbortHandler)
	})
}

// Slow serves archives in many small pieces.
func (c *Cache) Slow(w http.ResponseWriter, r *http.Request) {
	c.archive(w, r, func(content []byte) {
		for piece := range slices.Chunk(content, max(1, len(content)/20)) {
			time.Sleep(100 * time.Millisecond)
			_, _ = w.Write(piece) // the reader may be gone
			w.(http.Flusher).Flush()
		}
	})
}

// archive serves an archive in another way, and everything else as it is.
func (c *Cache) archive(w http.ResponseWriter, r *http.Request, serve func(content []byte)) {
	content, err := os.ReadFile(filepath.Join(c.dir, filepath.Clean("/"+r.URL.Path)))
	if err != nil || !strings.HasSuffix(r.URL.Path, ".nar") {
		c.ServeHTTP(w, r)
		return
	}
	serve(content)
}
