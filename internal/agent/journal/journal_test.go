package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/trust"
)

const rollout = "stable@0123456789abcdef"

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func update(t testing.TB, j *Journal, fn func(*Tx) error) {
	t.Helper()
	if err := j.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func view(t testing.TB, j *Journal, fn func(*Tx)) {
	t.Helper()
	if err := j.View(func(tx *Tx) error { fn(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

func record(id string, order int64) Rollout {
	return Rollout{Host: lifecycle.Host{Rollout: id, State: lifecycle.Activating}, Order: order}
}

func TestRecordsAndEventsSurviveReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	update(t, j, func(tx *Tx) error {
		return errors.Join(
			tx.PutSelf(Self{Numbered: true, Marks: trust.Marks{ChainHead: "ab", ChainLength: 3}}),
			tx.PutRollout(record("stable@02", 2)),
			tx.PutRollout(record("stable@01", 1)),
			tx.Append("stable@01", 1, []byte("one")),
			tx.Append("stable@01", 2, []byte("two")),
			tx.Append("stable@02", 1, []byte("other")),
			tx.SetAcked("stable@01", 1),
			tx.PutDocument("stable@01", Document{Entry: trust.Entry{Document: []byte("{}")}, ETag: "x"}),
			tx.Bury(DeadLetter{Rollout: "stable@01", Seq: 1, Why: "refused"}),
		)
	})
	j.Close()

	j = open(t, path)
	view(t, j, func(tx *Tx) {
		if s, err := tx.Self(); err != nil || !s.Numbered || s.Marks.ChainLength != 3 {
			t.Errorf("self: %+v, %v", s, err)
		}
		all, err := tx.Rollouts()
		if err != nil || len(all) != 2 || all[0].Host.Rollout != "stable@01" {
			t.Errorf("rollouts: %+v, %v", all, err)
		}
		if got := collect(tx, "stable@01", 1); got != "1:one 2:two " {
			t.Errorf("events: %q", got)
		}
		if got := collect(tx, "stable@01", 2); got != "2:two " {
			t.Errorf("events from 2: %q", got)
		}
		if a, l, f := tx.Acked("stable@01"), tx.Last("stable@01"), tx.First("stable@01"); a != 1 || l != 2 || f != 1 {
			t.Errorf("acked %d, last %d, first %d", a, l, f)
		}
		if d, ok, err := tx.Document("stable@01"); !ok || err != nil || d.ETag != "x" {
			t.Errorf("document: %+v, %v, %v", d, ok, err)
		}
		if d, err := tx.DeadLetters(); err != nil || len(d) != 1 || d[0].Why != "refused" {
			t.Errorf("dead letters: %+v, %v", d, err)
		}
	})

	update(t, j, func(tx *Tx) error { return tx.Forget("stable@01") })
	view(t, j, func(tx *Tx) {
		d, _ := tx.DeadLetters()
		_, doc, _ := tx.Document("stable@01")
		if got := collect(tx, "stable@01", 1); got != "" || len(d) != 0 || doc || tx.Acked("stable@01") != 0 {
			t.Errorf("something is left of a forgotten rollout: %q, %v, %v", got, d, doc)
		}
		if got := collect(tx, "stable@02", 1); got != "1:other " {
			t.Errorf("another rollout's events: %q", got)
		}
	})
}

func collect(tx *Tx, id string, from int64) string {
	var b strings.Builder
	for seq, env := range tx.Events(id, from) {
		fmt.Fprintf(&b, "%d:%s ", seq, env)
	}
	return b.String()
}

func TestNumbersAreNeverUsedTwice(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	update(t, j, func(tx *Tx) error { return tx.Append(rollout, 7, []byte("seven")) })
	for _, seq := range []int64{7, 6} {
		err := j.Update(func(tx *Tx) error { return tx.Append(rollout, seq, []byte("again")) })
		if !errors.Is(err, ErrNumberUsed) {
			t.Errorf("append %d after 7: %v", seq, err)
		}
	}
}

func TestAFailedUpdateChangesNothing(t *testing.T) {
	j := open(t, filepath.Join(t.TempDir(), "journal.db"))
	boom := errors.New("boom")
	err := j.Update(func(tx *Tx) error {
		return errors.Join(tx.PutRollout(record(rollout, 1)), tx.Append(rollout, 1, []byte("x")), boom)
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	view(t, j, func(tx *Tx) {
		if all, _ := tx.Rollouts(); len(all) != 0 || tx.Last(rollout) != 0 {
			t.Errorf("half a commit is there: %v, last %d", all, tx.Last(rollout))
		}
	})
}

func TestAnOlderAgentKeepsTheFieldsOfANewerOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	newer := `{"host":{"rollout":"stable@01","state":"Soaking","failure":{"cause":"probes","why":"gone with the failure"},"tide":9007199254740993,"policy":{"soakSecsByWave":[1],"moon":"full"}},
		"order":1,"weather":{"wind":[1,2]}}`
	update(t, j, func(tx *Tx) error { return tx.tx.Bucket(bucketRollouts).Put([]byte("stable@01"), []byte(newer)) })
	j.Close()

	j = open(t, path)
	update(t, j, func(tx *Tx) error {
		r, _, err := tx.Rollout("stable@01")
		if err != nil {
			return err
		}
		r.Host.State, r.Host.Failure = lifecycle.Converged, nil
		return tx.PutRollout(r)
	})
	view(t, j, func(tx *Tx) {
		raw := tx.tx.Bucket(bucketRollouts).Get([]byte("stable@01"))
		for _, want := range []string{`"tide":9007199254740993`, `"moon":"full"`, `"weather":{"wind":[1,2]}`, `"state":"Converged"`} {
			if !bytes.Contains(raw, []byte(want)) {
				t.Errorf("%s is lost: %s", want, raw)
			}
		}
		if bytes.Contains(raw, []byte("failure")) {
			t.Errorf("a failure came back: %s", raw)
		}
	})
}

func TestCheckAndMoveAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := Check(path); err != nil {
		t.Errorf("no journal yet: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(path); err != nil {
		t.Errorf("empty file, as a crash at creation leaves it: %v", err)
	}
	j := open(t, path)
	update(t, j, func(tx *Tx) error { return tx.PutSelf(Self{Numbered: true}) })
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	j.Close()
	if err := Check(path); err != nil {
		t.Errorf("sound journal: %v", err)
	}

	if err := os.WriteFile(path, bytes.Repeat([]byte("damage"), 9000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(path); err == nil {
		t.Error("a damaged journal passed its check")
	}
	aside, err := MoveAside(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(aside); err != nil {
		t.Error(err)
	}
	open(t, path)
}

// TestKillAnywhere kills a process that commits as fast as it can, and looks at
// what it left: everything that it said was committed, nothing half.
func TestKillAnywhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writerEnv+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var said int64
		for d := json.NewDecoder(out); said < int64(20*(round+1)); {
			if err := d.Decode(&said); err != nil {
				t.Fatalf("the writer ended early: %v", err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()

		if err := Check(path); err != nil {
			t.Fatal(err)
		}
		j := open(t, path)
		view(t, j, func(tx *Tx) {
			r, ok, err := tx.Rollout(rollout)
			if err != nil || !ok || r.Host.Seq != tx.Last(rollout) || r.Host.Seq < said {
				t.Errorf("state says %d, newest event is %d, the writer said %d (%v)", r.Host.Seq, tx.Last(rollout), said, err)
			}
			next := int64(1)
			for seq := range tx.Events(rollout, 1) {
				if seq != next {
					t.Fatalf("event %d where %d should be", seq, next)
				}
				next++
			}
		})
		j.Close()
	}
}

// writerEnv makes this program the one that TestKillAnywhere kills.
const writerEnv = "JOURNAL_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		fmt.Fprintln(os.Stderr, writeForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver commits as fast as it can, and says which event is committed.
func writeForEver(path string) error {
	j, err := Open(path)
	if err != nil {
		return err
	}
	for said := json.NewEncoder(os.Stdout); ; {
		var seq int64
		err := j.Update(func(tx *Tx) error {
			seq = tx.Last(rollout) + 1
			r := record(rollout, 1)
			r.Host.Seq = seq
			return errors.Join(tx.PutRollout(r), tx.Append(rollout, seq, bytes.Repeat([]byte("e"), 600)))
		})
		if err == nil {
			err = said.Encode(seq)
		}
		if err != nil {
			return err
		}
	}
}

// held is how many events the benchmarks' journals hold: as many come as leave,
// because a file that grows measures the file system's growing.
const held = 1000

func full(b *testing.B, envelope []byte) *Journal {
	j := open(b, filepath.Join(b.TempDir(), "journal.db"))
	update(b, j, func(tx *Tx) error {
		for seq := range int64(held) {
			if err := tx.Append(rollout, seq+1, envelope); err != nil {
				return err
			}
		}
		return nil
	})
	return j
}

// BenchmarkCommit is one state and one event per commit. Compare it with
// BenchmarkFsync: one write of a page, synced.
func BenchmarkCommit(b *testing.B) {
	envelope := bytes.Repeat([]byte("e"), 900)
	j := full(b, envelope)
	r := record(rollout, 1)
	for seq := int64(held + 1); b.Loop(); seq++ {
		r.Host.Seq = seq
		update(b, j, func(tx *Tx) error {
			return errors.Join(tx.PutRollout(r), tx.Append(rollout, seq, envelope), tx.DropEvents(rollout, seq-held, seq-held))
		})
	}
}

// BenchmarkCommitOf16 is sixteen waiting inputs in one commit.
func BenchmarkCommitOf16(b *testing.B) {
	envelope := bytes.Repeat([]byte("e"), 900)
	j := full(b, envelope)
	r := record(rollout, 1)
	for seq := int64(held + 1); b.Loop(); seq += 16 {
		update(b, j, func(tx *Tx) error {
			for k := range int64(16) {
				if err := tx.Append(rollout, seq+k, envelope); err != nil {
					return err
				}
			}
			r.Host.Seq = seq + 15
			return errors.Join(tx.PutRollout(r), tx.DropEvents(rollout, seq-held, seq-held+15))
		})
	}
}

// BenchmarkFsync is the floor: what the disk itself costs.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, 4096)
	for i := int64(0); b.Loop(); i++ {
		if _, err := f.WriteAt(page, i%64*4096); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
