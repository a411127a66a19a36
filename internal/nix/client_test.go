package nix

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// cache writes a cache of one path and returns its folder and the path.
func cache(t testing.TB, key SecretKey, compression string) (dir, base string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	c, err := CreateCacheDir(dir, key, compression)
	if err != nil {
		t.Fatal(err)
	}
	dep, err := c.Add("dep", filepath.Join(tree(t), "bin"))
	if err != nil {
		t.Fatal(err)
	}
	if base, err = c.Add("system", tree(t), dep); err != nil {
		t.Fatal(err)
	}
	return dir, base
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func client(t testing.TB, url string, keys ...PublicKey) *Client {
	t.Helper()
	c, err := NewClient(url, keys, ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestFetchFromACacheOfOurs(t *testing.T) {
	for _, compression := range []string{"none", "xz", "zstd"} {
		key := testKey(t, "cache-1")
		dir, base := cache(t, key, compression)
		c := client(t, serve(t, http.FileServer(http.Dir(dir)))+"/?priority=10", key.Public())
		info, err := c.Info(t.Context(), base)
		if err != nil {
			t.Errorf("%s: %v", compression, err)
			continue
		}
		if len(info.References) != 1 || info.Base != base {
			t.Errorf("%s: %+v", compression, info)
		}
		dest := filepath.Join(t.TempDir(), base)
		if err := c.Fetch(t.Context(), info, dest); err != nil {
			t.Errorf("%s: %v", compression, err)
			continue
		}
		if !bytes.Equal(pack(t, dest), pack(t, tree(t))) {
			t.Errorf("%s: came back otherwise", compression)
		}
	}
}

func TestAddIsIdempotent(t *testing.T) {
	key := testKey(t, "cache-1")
	dir, base := cache(t, key, "none")
	c, err := CreateCacheDir(dir, key, "none")
	if err != nil {
		t.Fatal(err)
	}
	again, err := c.Add("system", tree(t))
	if err != nil || again != base {
		t.Errorf("added again as %s, %v; was %s", again, err, base)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*/.new*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
	if _, err := c.Add("x", "/dev/null"); err == nil {
		t.Error("added a device")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*/.new*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestWhatIsWrongWithACacheIsTold(t *testing.T) {
	key := testKey(t, "cache-1")
	dir, base := cache(t, key, "xz")
	files := http.FileServer(http.Dir(dir))
	change := func(suffix string, f func([]byte) []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, suffix) {
				files.ServeHTTP(w, r)
				return
			}
			b := must(os.ReadFile(filepath.Join(dir, r.URL.Path)))
			w.Write(f(b)) // a client that goes away is the client's test
		})
	}
	status := func(suffix string, code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, suffix) {
				http.Error(w, "no", code)
				return
			}
			files.ServeHTTP(w, r)
		})
	}
	for name, c := range map[string]struct {
		h    http.Handler
		keys []PublicKey
		want error
	}{
		"no such path":          {http.NotFoundHandler(), nil, ErrMissing},
		"not for us":            {status(".narinfo", 403), nil, ErrMissing},
		"server error":          {status(".narinfo", 500), nil, ErrUnavailable},
		"overloaded":            {status(".narinfo", 429), nil, ErrUnavailable},
		"other key":             {files, []PublicKey{testKey(t, "cache-1").Public()}, ErrUnsigned},
		"a page for a narinfo":  {change(".narinfo", func([]byte) []byte { return []byte("<html>\n") }), nil, ErrCorrupt},
		"narinfo of another":    {change(".narinfo", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(base), []byte("0"+base[1:])) }), nil, ErrCorrupt},
		"size changed":          {change(".narinfo", func(b []byte) []byte { return bytes.Replace(b, []byte("NarSize: "), []byte("NarSize: 1"), 1) }), nil, ErrUnsigned},
		"archive gone":          {status(".xz", 404), nil, ErrMissing},
		"archive cannot be had": {status(".xz", 503), nil, ErrUnavailable},
		"a flipped bit":         {change(".xz", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }), nil, ErrCorrupt},
		"archive cut short":     {change(".xz", func(b []byte) []byte { return b[:len(b)/2] }), nil, ErrCorrupt},
		"connection cut": {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, ".xz") {
				files.ServeHTTP(w, r)
				return
			}
			b := must(os.ReadFile(filepath.Join(dir, r.URL.Path)))
			w.Header().Set("Content-Length", "100000")
			w.Write(b[:len(b)/2]) // the rest never comes
		}), nil, ErrUnavailable},
	} {
		keys := c.keys
		if keys == nil {
			keys = []PublicKey{key.Public()}
		}
		cl := client(t, serve(t, c.h), keys...)
		dest := filepath.Join(t.TempDir(), base)
		info, err := cl.Info(t.Context(), base)
		if err == nil {
			err = cl.Fetch(t.Context(), info, dest)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, err := os.Lstat(dest); err == nil {
			t.Errorf("%s: left something in the store", name)
		}
	}
}

func TestArchiveWithOtherContents(t *testing.T) {
	key := testKey(t, "cache-1")
	dir, base := cache(t, key, "none")
	evil := tree(t)
	if err := os.WriteFile(filepath.Join(evil, "eight"), []byte("87654321"), 0o644); err != nil {
		t.Fatal(err)
	}
	nar := pack(t, evil)
	files := http.FileServer(http.Dir(dir))
	c := client(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".nar") {
			w.Write(nar) // of the right size, well-formed, and not what was signed
			return
		}
		files.ServeHTTP(w, r)
	})), key.Public())
	info, err := c.Info(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(t.TempDir(), base)
	if err := c.Fetch(t.Context(), info, dest); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want %v", err, ErrCorrupt)
	}
	if _, err := os.Lstat(dest); err == nil {
		t.Error("left it in the store")
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for _, address := range []string{"", "cache", "file:///tmp/cache", "https://cache.example.org?trusted=1", "https://cache.example.org/?priority=1&trusted=true", "https://", "http://[::1"} {
		if _, err := NewClient(address, nil, ClientOptions{}); err == nil {
			t.Errorf("%q was accepted", address)
		}
	}
}

// A27: a cache that accepts connections and never answers must not hold us.
func TestSilentCacheHasADeadline(t *testing.T) {
	key := testKey(t, "cache-1")
	dir, base := cache(t, key, "none")
	narinfo := must(os.ReadFile(filepath.Join(dir, PathHash(base)+".narinfo")))
	info, err := ParseNarInfo(narinfo)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var far []net.Conn
		c, err := NewClient("http://cache.example.org", []PublicKey{key.Public()}, ClientOptions{
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				near, other := net.Pipe()
				far = append(far, other)
				go io.Copy(io.Discard, other) // ends with the connection
				return near, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := c.Info(t.Context(), base); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Info: %v", err)
		}
		if err := c.Fetch(t.Context(), info, filepath.Join(t.TempDir(), base)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Fetch: %v", err)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Info(ctx, base); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled Info: %v", err)
		}
		c.Close()
		for _, conn := range far {
			conn.Close()
		}
	})
}

func TestStalledArchiveHasADeadline(t *testing.T) {
	key := testKey(t, "cache-1")
	dir, base := cache(t, key, "none")
	info, err := ParseNarInfo(must(os.ReadFile(filepath.Join(dir, PathHash(base)+".narinfo"))))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c, err := NewClient("http://cache.example.org", []PublicKey{key.Public()}, ClientOptions{
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					defer far.Close()
					if _, err := far.Read(make([]byte, 4096)); err != nil {
						return
					}
					io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf") // then nothing
					io.Copy(io.Discard, far)
				}()
				return near, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		if err := c.Fetch(t.Context(), info, filepath.Join(t.TempDir(), base)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Fetch: %v", err)
		}
		if took := time.Since(start); took != stallTimeout {
			t.Errorf("took %v, want %v", took, stallTimeout)
		}
	})
}
