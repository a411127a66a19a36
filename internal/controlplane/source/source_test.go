package source_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"nixfleet/internal/controlplane/source"
	"nixfleet/internal/trust"
)

// TestSnapshot: a release is taken once, whole, with its signatures.
func TestSnapshot(t *testing.T) {
	p := newPublished(t)
	id := p.release("abc", "v1")
	s := p.poll()
	if s.Fleet == nil || s.Revocations == nil || s.Nonces == nil || len(s.Manifests) != 1 || len(s.Problems) != 0 {
		t.Fatalf("took %+v", s)
	}
	if got := s.Manifests[0].Doc().ID(); got != id {
		t.Errorf("manifest %s, want %s", got, id)
	}
	if got := string(s.Fleet.Bytes()); got != string(p.get(source.FleetName)) {
		t.Errorf("fleet document came as %s", got)
	}
	if got := string(s.Fleet.Signature()); got != string(p.get(source.FleetName+".sig")) {
		t.Errorf("signature came as %x", got)
	}
	for range 2 * source.BadAfter {
		if again := p.poll(); !again.Empty() || len(again.Problems) != 0 {
			t.Errorf("took %+v again", again)
		}
	}
}

// TestNotTakenIsOfferedAgain: what the caller could not take comes again.
func TestNotTakenIsOfferedAgain(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	key := p.ci.Public()
	for range 3 {
		s := p.verifier.Poll(context.Background(), trust.Slot{Current: &key}, p.now, p.known)
		if s.Fleet == nil || len(s.Manifests) != 1 {
			t.Fatalf("offered %+v", s)
		}
	}
}

// TestResigned: newer bytes of the same plan are taken, also when only they are
// new; an older release's manifest stays where it is and is not asked for again.
func TestResigned(t *testing.T) {
	p := newPublished(t)
	first := p.release("abc", "v1")
	p.poll()
	p.now = p.now.Add(time.Hour)
	p.release("abc", "v1")
	s := p.poll()
	if s.Fleet == nil || len(s.Manifests) != 1 || s.Manifests[0].PlanHash() != p.plans[first] {
		t.Fatalf("took %+v", s)
	}
	p.now = p.now.Add(time.Hour)
	second := p.release("def", "v2")
	s = p.poll()
	if len(s.Manifests) != 1 || s.Manifests[0].Doc().ID() != second {
		t.Fatalf("took %+v", s)
	}

	// A control plane that knows only the newest release leaves the older alone.
	delete(p.taken, first)
	delete(p.plans, first)
	p.verifier = source.NewVerifier(source.Directory(p.dir))
	for range source.BadAfter {
		if s := p.poll(); !s.Empty() || len(s.Problems) > 0 {
			t.Errorf("took %+v", s)
		}
	}
}

// TestBadPairs: what is not good is never taken, is a problem at the third poll,
// and what was taken before stays; the next good pair is taken.
func TestBadPairs(t *testing.T) {
	fleetName, sigName := source.FleetName, source.FleetName+".sig"
	for name, c := range map[string]struct {
		spoil    func(*published)
		document string
		word     string
	}{
		"another byte": {func(p *published) {
			p.put(fleetName, []byte(strings.Replace(string(p.get(fleetName)), "x86_64-linux", "x86_64-linuy", 1)))
		}, fleetName, "bad-signature"},
		"a stranger's signature": {func(p *published) {
			sig, _ := signer(p.t).Sign(p.get(fleetName))
			p.put(sigName, sig)
		}, fleetName, "bad-signature"},
		"no document at all":         {func(p *published) { p.put(fleetName, []byte("{")) }, fleetName, "malformed"},
		"no signature":               {func(p *published) { p.remove(sigName) }, fleetName, ""},
		"no fleet document":          {func(p *published) { p.remove(fleetName) }, fleetName, ""},
		"another kind in its place":  {func(p *published) { p.move(source.RevocationsName, fleetName) }, fleetName, "malformed"},
		"a folder in its place":      {func(p *published) { p.remove(fleetName); p.mkdir(fleetName) }, fleetName, ""},
		"a folder as its signature":  {func(p *published) { p.remove(sigName); p.mkdir(sigName) }, fleetName, ""},
		"a pipe in its place":        {func(p *published) { p.remove(fleetName); p.pipe(fleetName) }, fleetName, ""},
		"a signature without end":    {func(p *published) { p.put(sigName, make([]byte, 1<<20)) }, fleetName, ""},
		"a document without end":     {func(p *published) { p.grow(fleetName, trust.MaxDocument+1) }, fleetName, ""},
		"a link to outside":          {func(p *published) { p.linkOutside(fleetName) }, fleetName, ""},
		"a signature linked outside": {func(p *published) { p.linkOutside(sigName) }, fleetName, ""},
		"a manifest that is none": {func(p *published) {
			p.put(source.ManifestName("stable@def"), []byte("{"))
			p.put(source.ManifestName("stable@def")+".sig", []byte("x"))
		}, source.ManifestName("stable@def"), "malformed"},
		"a manifest under another id": {func(p *published) {
			p.copy(source.ManifestName("stable@abc"), source.ManifestName("stable@def"))
		}, source.ManifestName("stable@def"), "mismatch"},
		"a manifest republished": {func(p *published) {
			m := *p.taken["stable@abc"].Doc()
			at := p.now.Add(time.Second)
			m.DisplayName, m.Meta.SignedAt = "another plan", &at
			p.sign(source.ManifestName("stable@abc"), m)
		}, source.ManifestName("stable@abc"), "republished"},
		"rollouts that are no folder": {func(p *published) {
			if err := os.RemoveAll(filepath.Join(p.dir, "rollouts")); err != nil {
				p.t.Fatal(err)
			}
			p.put("rollouts", nil)
		}, "rollouts", ""},
		"rollouts that cannot be reached": {func(p *published) {
			if err := os.RemoveAll(filepath.Join(p.dir, "rollouts")); err != nil {
				p.t.Fatal(err)
			}
			p.linkOutside("rollouts")
		}, "rollouts", ""},
		"the folder is gone": {func(p *published) {
			if err := os.RemoveAll(p.dir); err != nil {
				p.t.Fatal(err)
			}
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPublished(t)
			p.release("abc", "v1")
			p.poll()
			p.poll() // nothing is new
			before := p.known.Fleet
			c.spoil(p)
			problem := p.wantProblem(c.document, c.word)
			if problem.Polls != source.BadAfter || problem.Err == nil {
				t.Errorf("problem is %+v", problem)
			}
			if p.known.Fleet != before {
				t.Error("the fleet document was replaced")
			}
			if s := p.poll(); len(s.Problems) != 1 || s.Problems[0].Polls != source.BadAfter+1 {
				t.Errorf("at the next poll the problems are %+v", s.Problems)
			}

			for _, bad := range []string{fleetName, sigName, "rollouts"} {
				_ = os.RemoveAll(filepath.Join(p.dir, bad))
			}
			p.now = p.now.Add(time.Minute)
			p.release("abc", "v1")
			if s := p.poll(); s.Fleet == nil || len(s.Problems) != 0 {
				t.Errorf("a good release took %+v", s)
			}
		})
	}
}

// TestOldRelease: a release that was replaced does not come back, and one that
// nobody may take any more does not either.
func TestOldRelease(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	old, oldSig := p.get(source.FleetName), p.get(source.FleetName+".sig")
	p.poll()
	p.now = p.now.Add(time.Hour)
	p.release("def", "v2")
	p.poll()
	p.put(source.FleetName, old)
	p.put(source.FleetName+".sig", oldSig)
	p.wantProblem(source.FleetName, "older-than-accepted")

	p = newPublished(t)
	p.release("abc", "v1")
	p.now = p.now.Add(48 * time.Hour)
	p.wantProblem(source.FleetName, "stale")
}

// TestHalfPublished: a pair of which one half is not there yet is good again
// before it is a problem.
func TestHalfPublished(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	p.poll()
	oldDoc := p.get(source.FleetName)
	p.now = p.now.Add(time.Hour)
	p.release("def", "v2")
	newDoc := p.get(source.FleetName)
	p.put(source.FleetName, oldDoc)
	for range source.BadAfter - 1 {
		if s := p.poll(); s.Fleet != nil || len(s.Problems) != 0 {
			t.Fatalf("took %+v", s)
		}
	}
	p.put(source.FleetName, newDoc)
	if s := p.poll(); s.Fleet == nil || len(s.Manifests) != 1 || len(s.Problems) != 0 {
		t.Errorf("took %+v", s)
	}
}

// TestOptional: without revocations, nonces and manifests a fleet is one.
func TestOptional(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	for _, name := range []string{source.RevocationsName, source.NoncesName} {
		p.remove(name)
	}
	if err := os.RemoveAll(filepath.Join(p.dir, "rollouts")); err != nil {
		t.Fatal(err)
	}
	if s := p.poll(); s.Fleet == nil || s.Revocations != nil || s.Nonces != nil || s.Manifests != nil {
		t.Errorf("took %+v", s)
	}
	if s := p.poll(); !s.Empty() || len(s.Problems) != 0 {
		t.Errorf("took %+v", s)
	}
}

// TestNoTraversal: names that lead out of the folder reach nothing, and files
// whose names are no manifest's are not listed.
func TestNoTraversal(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "release")
	p := newPublished(t)
	p.dir = dir
	p.put("../secret.json", []byte("{}"))
	p.put("../secret.json.sig", []byte("x"))
	id := p.release("abc", "v1")
	for _, junk := range []string{"..json", "x.json", "stable@abc.json.new", "stable@ABC.json", "stable@abc.1.json", ".json", "stable@abc"} {
		p.put(filepath.Join("rollouts", junk), []byte("{}"))
	}
	look, err := source.Directory(dir).Open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	ids, err := look.Rollouts(context.Background())
	if err != nil || !slices.Equal(ids, []string{id}) {
		t.Errorf("rollouts are %v, %v", ids, err)
	}
	for _, name := range []string{"../secret.json", source.ManifestName("../../secret"), filepath.Join(outer, "secret.json")} {
		if pair, err := look.Pair(context.Background(), name, ""); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %q, %v", name, pair.Document, err)
		}
	}
}

// TestFolderIsReplaced: the folder's own path may be a link that is turned.
func TestFolderIsReplaced(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	outer := t.TempDir()
	link := filepath.Join(outer, "current")
	if err := os.Symlink(p.dir, link); err != nil {
		t.Fatal(err)
	}
	p.verifier = source.NewVerifier(source.Directory(link))
	if s := p.poll(); s.Fleet == nil {
		t.Fatalf("took %+v", s)
	}
	if got := source.Directory(link).String(); got != link {
		t.Errorf("the source is called %s", got)
	}
	p.dir = t.TempDir()
	p.now = p.now.Add(time.Hour)
	id := p.release("def", "v2")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(p.dir, link); err != nil {
		t.Fatal(err)
	}
	if s := p.poll(); s.Fleet == nil || len(s.Manifests) != 1 || s.Manifests[0].Doc().ID() != id {
		t.Errorf("took %+v", s)
	}
}

// TestUnchangedIsNotRead: a pair that holds nothing new is not read again.
func TestUnchangedIsNotRead(t *testing.T) {
	p := newPublished(t)
	p.release("abc", "v1")
	counted := &counting{Source: source.Directory(p.dir)}
	p.verifier = source.NewVerifier(counted)
	p.poll()
	p.poll() // sees that it knows them
	counted.read = 0
	p.poll()
	if counted.read != 0 {
		t.Errorf("read %d documents of an unchanged release", counted.read)
	}
	p.now = p.now.Add(time.Hour)
	p.release("abc", "v1")
	p.poll()
	if counted.read != 4 {
		t.Errorf("read %d documents of a new release, want 4", counted.read)
	}
}

// counting counts the documents whose bytes were fetched.
type counting struct {
	source.Source
	source.Look
	read int
}

func (c *counting) Open(ctx context.Context) (source.Look, error) {
	look, err := c.Source.Open(ctx)
	c.Look = look
	return c, err
}

func (c *counting) Pair(ctx context.Context, name, seen string) (source.Pair, error) {
	pair, err := c.Look.Pair(ctx, name, seen)
	if pair.Document != nil {
		c.read++
	}
	return pair, err
}

// TestRun: at once, every interval, and when woken, no closer than the gap.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var polls []time.Duration
		wake := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			source.Run(ctx, 30*time.Second, 5*time.Second, wake, func(context.Context) {
				polls = append(polls, time.Since(begin))
			})
		}()
		time.Sleep(31 * time.Second) // polls at 0 and 30
		wake <- struct{}{}           // asked for at 31, comes at 35
		time.Sleep(10 * time.Second)
		wake <- struct{}{} // asked for at 41, comes at once
		time.Sleep(time.Second)
		wake <- struct{}{} // ends before it comes
		synctest.Wait()
		cancel()
		<-done
		want := []time.Duration{0, 30 * time.Second, 35 * time.Second, 41 * time.Second}
		if !slices.Equal(polls, want) {
			t.Errorf("polled at %v, want %v", polls, want)
		}
	})
}

func (p *published) move(from, to string) {
	p.copy(from, to)
	p.remove(from)
	p.remove(from + ".sig")
}

func (p *published) copy(from, to string) {
	p.put(to+".sig", p.get(from+".sig"))
	p.put(to, p.get(from))
}

func (p *published) mkdir(name string) {
	if err := os.Mkdir(filepath.Join(p.dir, name), 0o755); err != nil {
		p.t.Fatal(err)
	}
}

func (p *published) pipe(name string) {
	if err := syscall.Mkfifo(filepath.Join(p.dir, name), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *published) grow(name string, size int64) {
	if err := os.Truncate(filepath.Join(p.dir, name), size); err != nil {
		p.t.Fatal(err)
	}
}

// linkOutside moves a file out of the folder and leaves a link to it.
func (p *published) linkOutside(name string) {
	outside := filepath.Join(p.t.TempDir(), "outside")
	file := filepath.Join(p.dir, name)
	if err := os.Rename(file, outside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.t.Fatal(err)
	}
	if err := os.Symlink(outside, file); err != nil {
		p.t.Fatal(err)
	}
}
