package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// network runs the network service of a machine with the closure's settings, and
// gives the address at which the machine looks for its control plane.
func network(t *testing.T, files []file) (near string, stop func()) {
	t.Helper()
	root, closure := t.TempDir(), t.TempDir()
	m := &machine{}
	near, err := m.reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.taken[0].Close() })
	lock, err := takeLock(filepath.Join(root, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	machine := settings(machineSettings{Uplinks: routes{toControlPlane: near}, Lock: lock.Name()})
	if err := errors.Join(writeFiles(closure, files), writeFiles(root, []file{{machineFile, machine, 0o644}})); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	said, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := Serve(ctx, "network", root, closure, out)
		out.CloseWithError(io.EOF)
		ended <- err
	}()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		ended <- nil
	}
	t.Cleanup(stop)
	line := make([]byte, len(ready)+1)
	if _, err := io.ReadFull(said, line); err != nil || string(line) != ready+"\n" {
		t.Fatalf("it said %q: %v", line, err)
	}
	return near, stop
}

// A machine reaches what its closure has routes to, as long as its network runs.
func TestNetwork(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var all bytes.Buffer
		if _, err := all.ReadFrom(r.Body); err == nil {
			w.Write(all.Bytes())
		}
	}))
	defer far.Close()
	s := system{"host-1", "1", routes{toControlPlane: strings.TrimPrefix(far.URL, "http://")}}
	near, stop := network(t, serving(http.StatusOK, 0)(s))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	answer, err := http.Post("http://"+near, "text/plain", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(body), err)
	}
	open, err := net.Dial("tcp", near)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	stop()
	if n, err := open.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes after the network's end", n)
	}
	if _, err := net.Dial("tcp", near); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the network's end: %v", err)
	}
}

// A system that cuts its host off has a network, and no way out.
func TestACutOffNetworkLeadsNowhere(t *testing.T) {
	t.Parallel()
	s := system{"host-1", "1", routes{toControlPlane: "127.0.0.1:1", toCache: "127.0.0.1:1"}}
	files := cutOff(serving(http.StatusOK, 0))(s)
	for _, f := range files {
		var n networkSettings
		if f.path == networkFile && (json.Unmarshal(f.data, &n) != nil || len(n.Routes) > 0) {
			t.Errorf("its routes are %s", f.data)
		}
	}
	near, _ := network(t, files)
	if _, err := net.Dial("tcp", near); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("somebody answers: %v", err)
	}
}

// What runs with other settings is begun anew, what runs with the same is not.
func TestServicesRestartWhenTheirSettingsChange(t *testing.T) {
	t.Parallel()
	program := programs(t).Nixfleet
	dir := t.TempDir()
	lock, err := takeLock(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMachine(filepath.Join(dir, "host"), "host-1", nil, lock.Name(), program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		lock.Close() // without which they end
		for _, port := range m.taken {
			port.Close()
		}
		await(dir, serviceLimit, 0)
	})
	var pids [][2]string
	for _, release := range []string{"1", "2", "2"} {
		closure := filepath.Join(dir, release)
		if err := writeFiles(closure, serving(http.StatusOK, 0)(system{"host-1", release, routes{}})); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.MkdirAll(m.in("run"), 0o755), os.RemoveAll(m.in("run/current-system")), os.Symlink(closure, m.in("run/current-system"))); err != nil {
			t.Fatal(err)
		}
		if err := m.startServices(t.Context()); err != nil {
			t.Fatal(err)
		}
		answer, err := http.Get("http://" + m.web)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(answer.Body) // short, or not what is wanted
		answer.Body.Close()
		if !strings.HasSuffix(string(said), "release "+release+"\n") {
			t.Errorf("release %s answers %q", release, said)
		}
		var now [2]string
		for i, name := range []string{"network", "web"} {
			pid, err := os.ReadFile(m.in("run/services/" + name + "/pid"))
			if err != nil {
				t.Fatal(err)
			}
			now[i] = string(pid)
		}
		pids = append(pids, now)
	}
	if pids[0][0] != pids[1][0] || pids[0][1] == pids[1][1] || pids[1] != pids[2] {
		t.Errorf("processes of network and web by release: %q", pids)
	}
}
