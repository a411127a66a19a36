//go:build linux

package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"nixfleet/internal/agent"
	"nixfleet/internal/fleetdir"
	"nixfleet/internal/wire"
)

// secret is something that nobody may learn but who needs it.
type secret struct {
	name  string
	bytes []byte // of a private key what it is made of; of a token its signature
	lives string // the only file, below the demo's folder, that may hold it
}

// secretsOf are all private keys and bootstrap tokens that a demo uses. A token's
// nonce is none: it is in the signed list of those that are allowed.
func secretsOf(w *world) ([]secret, error) {
	var all []secret
	add := func(name, path string, parse func([]byte) ([]byte, error)) error {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s, err := parse(raw)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		lives, err := filepath.Rel(w.folder, path)
		all = append(all, secret{name, s, lives})
		return err
	}
	for _, whose := range []string{"fleet", "attacker"} {
		keys := fleetdir.Folder(w.in(whose))
		for name, path := range map[string]string{
			"release key": keys.CIKey(), "root key": keys.OrgRootKey(), "CA key": keys.CAKey(), "server key": keys.ServerKey(), "operator key": keys.OperatorKey(),
		} {
			if err := add(whose+"'s "+name, path, privateKey); err != nil {
				return nil, err
			}
		}
		if err := add(whose+"'s cache key", keys.CacheKey(), cacheKey); err != nil {
			return nil, err
		}
	}
	for _, m := range w.machines {
		if err := add(m.name+"'s host key", m.in(hostKeyFile), privateKey); err != nil {
			return nil, err
		}
		if err := add(m.name+"'s token", m.in(tokenFile), tokenSignature); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// privateKey is what a PEM key is made of: an ed25519 seed, or an elliptic curve's
// scalar.
func privateKey(raw []byte) ([]byte, error) {
	key, err := ssh.ParseRawPrivateKey(raw)
	if err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		return k.Seed(), nil
	case ed25519.PrivateKey:
		return k.Seed(), nil
	case *ecdsa.PrivateKey:
		return k.Bytes()
	}
	return nil, fmt.Errorf("it is a %T", key)
}

func cacheKey(raw []byte) ([]byte, error) {
	_, text, _ := strings.Cut(strings.TrimSpace(string(raw)), ":")
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%d bytes: %w", len(key), err)
	}
	return ed25519.PrivateKey(key).Seed(), nil
}

func tokenSignature(raw []byte) ([]byte, error) {
	var token struct {
		Signature []byte `json:"signature"`
	}
	err := json.Unmarshal(raw, &token)
	if err == nil && len(token.Signature) != ed25519.SignatureSize {
		err = fmt.Errorf("%d bytes", len(token.Signature))
	}
	return token.Signature, err
}

// search finds secrets in data, whole or 16 bytes of them, in every form in which
// programs write bytes.
type search struct {
	begins [1 << 16]bool       // two bytes with which something sought begins
	sought map[uint64][]needle // by its first eight bytes
}

type needle struct {
	text   []byte
	secret string
}

func newSearch(secrets []secret) *search {
	s := &search{sought: map[uint64][]needle{}}
	for _, secret := range secrets {
		for piece := range slices.Chunk(secret.bytes, 16) {
			for _, text := range forms(piece) {
				s.begins[binary.BigEndian.Uint16(text)] = true
				first := binary.BigEndian.Uint64(text)
				s.sought[first] = append(s.sought[first], needle{text, secret.name})
			}
		}
	}
	return s
}

// forms are 16 bytes as they are, in hex, as numbers, and in base64 wherever in
// what is encoded they stand.
func forms(piece []byte) [][]byte {
	numbers := strings.Trim(fmt.Sprint(piece), "[]")
	all := [][]byte{
		piece, []byte(hex.EncodeToString(piece)), []byte(strings.ToUpper(hex.EncodeToString(piece))),
		[]byte(numbers), []byte(strings.ReplaceAll(numbers, " ", ",")),
	}
	for before := range 3 {
		bits := (before + len(piece)) * 8
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := encoding.EncodeToString(append(make([]byte, before), piece...))
			all = append(all, []byte(text[(before*8+5)/6:bits/6]))
		}
	}
	return all
}

// in are the names of the secrets that data holds. Line breaks, which PEM has and
// JSON escapes, hide none.
func (s *search) in(data []byte) []string {
	joined := data
	for _, gap := range []string{"\r", "\n", `\r`, `\n`, " "} {
		joined = bytes.ReplaceAll(joined, []byte(gap), nil)
	}
	var found []string
	for _, data := range [][]byte{data, joined} {
		for i := 0; i+8 <= len(data); i++ {
			if !s.begins[binary.BigEndian.Uint16(data[i:])] {
				continue
			}
			for _, n := range s.sought[binary.BigEndian.Uint64(data[i:])] {
				if bytes.HasPrefix(data[i:], n.text) && !slices.Contains(found, n.secret) {
					found = append(found, n.secret)
				}
			}
		}
	}
	return found
}

// A secret is found in whatever form somebody lets it out.
func TestAPlantedSecretIsFound(t *testing.T) {
	t.Parallel()
	file, _, err := newHostKey("host-1")
	if err != nil {
		t.Fatal(err)
	}
	key, err := privateKey(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newSearch([]secret{{"the key", key, ""}})
	quoted, err := json.Marshal(map[string]string{"msg": string(file)})
	if err != nil {
		t.Fatal(err)
	}
	for form, text := range map[string]string{
		"a PEM file":          string(file),
		"PEM in JSON":         string(quoted),
		"raw bytes":           string(key),
		"hex":                 fmt.Sprintf("%x", key),
		"hex in capitals":     fmt.Sprintf("%X", key),
		"base64":              base64.StdEncoding.EncodeToString(key),
		"base64 for URLs":     base64.URLEncoding.EncodeToString(key),
		"base64 after a byte": base64.StdEncoding.EncodeToString(append([]byte{1}, key...)),
		"base64 after two":    base64.StdEncoding.EncodeToString(append([]byte{1, 2}, key...)),
		"numbers":             fmt.Sprint(key),
		"numbers in JSON":     strings.ReplaceAll(fmt.Sprint(key), " ", ","),
		"its first half":      fmt.Sprintf("%x", key[:16]),
		"its second half":     fmt.Sprintf("%x", key[16:]),
	} {
		if found := s.in([]byte(`{"level":"INFO","msg":"` + text + `"}`)); len(found) != 1 {
			t.Errorf("as %s it is not found", form)
		}
	}
	if found := s.in([]byte(fmt.Sprintf("%x", key[:15]))); len(found) != 0 {
		t.Error("what is not there is found")
	}
}

// seen is all that others than the owner of a secret could have seen of a demo, by
// where.
type seen struct {
	mu   sync.Mutex
	data map[string][]byte
}

func (s *seen) add(where string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data[where] = append(s.data[where], data...)
}

// watchProcesses looks, until ctx ends, at the arguments and environments of the
// demo's processes. Of each it keeps what differs from what it has.
func (s *seen) watchProcesses(ctx context.Context, folder string) {
	known := map[string]bool{}
	for ctx.Err() == nil {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			if _, err := strconv.Atoi(e.Name()); err != nil {
				continue
			}
			// Unreadable: gone by now.
			arguments, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			environment, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
			if !marked(string(environment), folder) && !bytes.Contains(arguments, []byte(folder)) {
				continue
			}
			both := string(arguments) + "\x00" + string(environment)
			if !known[both] {
				known[both] = true
				s.add("the process "+strings.ReplaceAll(string(arguments), "\x00", " "), []byte(both))
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// getRoutes are the paths that the API answers GET with.
func getRoutes() ([]string, error) {
	doc, err := os.ReadFile("../../docs/openapi.yaml")
	if err != nil {
		return nil, err
	}
	var routes []string
	path := ""
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "  /") {
			path = strings.TrimSuffix(strings.TrimSpace(line), ":")
		}
		if line == "    get:\n" {
			routes = append(routes, path)
		}
	}
	return routes, nil
}

// askControlPlane keeps every answer, of all pages, to every question that an
// operator can ask, metrics among them. It returns how many there were.
func (s *seen) askControlPlane(ctx context.Context, w *world) (answers int, err error) {
	routes, err := getRoutes()
	if err != nil {
		return 0, err
	}
	fill := strings.NewReplacer("{host}", "host-1", "{id}", w.newest, "{channel}", channel, "{hash}", "x")
	for _, route := range routes {
		for after := ""; ; {
			path := fill.Replace(route)
			if after != "" {
				path += "?" + url.Values{wire.QueryAfter: {after}}.Encode()
			}
			raw, err := w.operator.Raw(ctx, path)
			if err != nil {
				s.add("the refusal of "+route, []byte(err.Error()))
				break
			}
			answers++
			s.add("the answer to "+route, raw)
			var page struct{ Next string }
			if json.Unmarshal(raw, &page) != nil || page.Next == "" || page.Next == after {
				break
			}
			after = page.Next
		}
	}
	return answers, nil
}

// askAgents keeps what the agents' sockets answer.
func (s *seen) askAgents(ctx context.Context, w *world) error {
	for _, m := range w.machines {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", m.in(socketFile))
			},
		}}
		for _, path := range []string{agent.SocketStatus, agent.SocketMetrics} {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
			if err != nil {
				return err
			}
			response, err := client.Do(request)
			if err != nil {
				return err
			}
			raw, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK {
				return fmt.Errorf("%s of %s: %s: %w", path, m.name, response.Status, err)
			}
			s.add(m.name+"'s "+path, raw)
		}
	}
	return nil
}

// readFiles keeps every file below the demo's folder: logs, databases, journals,
// marks, releases, the cache, systems.
func (s *seen) readFiles(folder string) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreGone(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		name, err := filepath.Rel(folder, path)
		s.add(name, raw)
		return err
	})
}

// ignoreGone: what went away between two looks is not what stays.
func ignoreGone(err error) error {
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// No private key and no token of a whole demo is anywhere but in its own file: not
// in logs, databases, journals, metrics, answers, releases, arguments or
// environments.
func TestNoSecretIsLetOut(t *testing.T) {
	t.Parallel()
	s := &seen{data: map[string][]byte{}}
	var secrets []secret
	var answers int
	watching, stop := context.WithCancel(t.Context())
	var watcher sync.WaitGroup
	defer watcher.Wait()
	defer stop()
	real := programs(t)
	look := act{name: "look", title: "look for secrets", holds: func(*findings) verdict { return holds("looked") }}
	look.play = func(ctx context.Context, w *world) (id string, err error) {
		if secrets, err = secretsOf(w); err != nil {
			return "", err
		}
		if answers, err = s.askControlPlane(ctx, w); err != nil {
			return "", err
		}
		if err := s.askAgents(ctx, w); err != nil {
			return "", err
		}
		return w.newest, s.readFiles(w.folder)
	}
	report, err := Run(t.Context(), Config{
		Hosts: 2, Programs: &real, acts: append(acts(), look),
		Say: func(p Progress) {
			t.Log(p.Text, p.State)
			s.add("what the demo said", []byte(p.Text+"\n"))
			if _, folder, found := strings.Cut(p.Text, " hosts in "); found {
				watcher.Go(func() { s.watchProcesses(watching, folder) })
			}
		},
	})
	stop()
	watcher.Wait()
	if err != nil || !report.OK {
		t.Fatalf("%v %+v", err, report.Acts)
	}

	// Whatever is missing here could not have been searched.
	for _, where := range []string{
		"control-plane.log", "state.db", "state.db-wal", "fleet/release/fleet.resolved.json",
		"hosts/host-1/" + agentLog, "hosts/host-1/" + stateDir + "/journal.db", "hosts/host-1/" + stateDir + "/marks.json",
		"the answer to " + wire.PathMetrics, "the answer to " + wire.PathHostEvidence, "host-2's " + agent.SocketStatus, "host-2's " + agent.SocketMetrics,
	} {
		if len(s.data[where]) == 0 {
			t.Errorf("nothing was seen of %s", where)
		}
	}
	for _, program := range []string{"nixfleet-agent --control-plane-url", "nixfleet-agent guard", "nixfleet-control-plane", "demo-service", "demo-reaper", "switch-to-configuration test"} {
		if !slices.ContainsFunc(sortedKeys(s.data), func(where string) bool {
			return strings.HasPrefix(where, "the process ") && strings.Contains(where, program)
		}) {
			t.Errorf("no process %q was seen", program)
		}
	}
	if want := 2*6 + 2*2; len(secrets) != want || answers < 20 {
		t.Errorf("%d secrets instead of %d, %d answers", len(secrets), want, answers)
	}

	search := newSearch(secrets)
	for where, data := range s.data {
		for _, name := range search.in(data) {
			if i := slices.IndexFunc(secrets, func(s secret) bool { return s.name == name }); secrets[i].lives != where {
				t.Errorf("%s is in %s", name, where)
			}
		}
	}
	// They can be found: each is where it lives, and in a log that it is put into.
	log := s.data["hosts/host-1/"+agentLog]
	for _, secret := range secrets {
		home := s.data[secret.lives]
		if !slices.Contains(search.in(home), secret.name) {
			t.Errorf("%s is not found in %s", secret.name, secret.lives)
		}
		planted := slices.Concat(log[:len(log)/2], home, log[len(log)/2:])
		if !slices.Contains(search.in(planted), secret.name) {
			t.Errorf("%s is not found in a log that it was put into", secret.name)
		}
	}
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
