package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nixfleet/internal/controlplane/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, file string) *store.Sqlite {
	t.Helper()
	s, err := store.OpenSqlite(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, sql.ErrConnDone) { // the test closed it
			t.Error(err)
		}
	})
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var at = time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)

// records is one of each kind, and more events than one statement takes.
func records() []store.Record {
	all := []store.Record{
		{Document: &store.Document{Kind: store.KindFleet, Hash: "h1", KeyID: "k", Bytes: []byte("{}"), Signature: []byte{1}}},
		{Document: &store.Document{Kind: store.KindManifest, Name: "stable@aa", Hash: "h2", KeyID: "k", Bytes: []byte("{1}"), Signature: []byte{2}, Fleet: []byte("{}")}},
		{Decision: &store.Decision{Kind: "opened", Body: []byte(`{"kind":"opened"}`)}},
		{Issuance: &store.Issuance{Serial: "1f", Role: "agent", Name: "host-1", KeyFingerprint: "f", Nonce: "n", NotBefore: at, NotAfter: at.Add(time.Hour), CertPEM: "pem"}},
		{Action: &store.Action{Who: "alice", Verb: "paused", Subject: "stable", Why: "because", Args: json.RawMessage(`{}`)}},
		{Decision: &store.Decision{Kind: "skipped", Hostname: "host-1", Rollout: "stable@aa", Body: []byte(`{"kind":"skipped"}`)}},
	}
	for seq := range int64(150) {
		all = append(all, store.Record{Event: &store.Event{
			Hostname: fmt.Sprint("host-", seq%2), Rollout: "stable@aa", Seq: seq/2 + 1, Kind: "Notice",
			Verdict: store.Stored, Signing: store.SignatureGood, Envelope: fmt.Appendf(nil, `{"n":%d}`, seq),
		}})
	}
	all = append(all, store.Record{Document: &store.Document{Kind: store.KindFleet, Hash: "h3", KeyID: "k", Bytes: []byte("{2}"), Signature: []byte{3}}})
	for i := range all {
		all[i].LogID, all[i].At = int64(i+1), at.Add(time.Duration(i)*time.Millisecond)
	}
	return all
}

func TestWhatIsCommittedIsReadBack(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dir", "state.db")
	s := open(t, file)
	want := records()
	rows := []store.Row{{Table: "host", Key: "stable@aa", Sub: "host-1", Body: []byte(`{}`)}, {Table: "world", Body: []byte(`{}`)}}
	ok(t, s.Commit(t.Context(), store.Batch{Records: want, Rows: rows}))
	ok(t, s.Close())

	s = open(t, file)
	var got []store.Record
	ok(t, s.Replay(t.Context(), 0, func(r store.Record) error {
		got = append(got, r)
		return nil
	}))
	if len(got) != len(want) {
		t.Fatalf("%d records came back, of %d", len(got), len(want))
	}
	for i := range want {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("record %d came back as %s, was %s", i, show(got[i]), show(want[i]))
		}
	}
	if head, err := s.Head(t.Context()); err != nil || head != int64(len(want)) {
		t.Errorf("head is %d, %v", head, err)
	}
	var after []int64
	ok(t, s.Replay(t.Context(), int64(len(want)-2), func(r store.Record) error {
		after = append(after, r.LogID)
		return nil
	}))
	if len(after) != 2 {
		t.Errorf("after the last but two came %v", after)
	}

	if e, found, err := s.Event(t.Context(), "host-1", "stable@aa", 3); err != nil || !found || string(e.Envelope) != `{"n":5}` {
		t.Errorf("event 3 is %+v, %v, %v", e, found, err)
	}
	if _, found, err := s.Event(t.Context(), "host-1", "stable@aa", 300); err != nil || found {
		t.Errorf("event 300 was found: %v, %v", found, err)
	}
	page, err := s.Events(t.Context(), store.EventFilter{Hostname: "host-1", Limit: 2})
	ok(t, err)
	next, err := s.Events(t.Context(), store.EventFilter{Hostname: "host-1", Rollout: "stable@aa", After: page[1].LogID, Limit: 1})
	ok(t, err)
	if len(page) != 2 || page[1].Seq != 2 || len(next) != 1 || next[0].Seq != 3 {
		t.Errorf("pages: %+v, %+v", page, next)
	}
	before, err := s.EventsBefore(t.Context(), "stable@aa", page[1].LogID)
	ok(t, err)
	if len(before) != 3 || before[0].Hostname != "host-0" || before[2].Hostname != "host-1" {
		t.Errorf("before: %+v", before)
	}
	var documents []string
	ok(t, s.Documents(t.Context(), func(r store.Record) error {
		documents = append(documents, r.Document.Hash)
		return nil
	}))
	if !reflect.DeepEqual(documents, []string{"h2", "h3"}) {
		t.Errorf("the newest documents are %v", documents)
	}
	decisions, err := s.Decisions(t.Context(), "stable@aa")
	ok(t, err)
	actions, err := s.Actions(t.Context(), 0, 10)
	ok(t, err)
	if len(decisions) != 1 || decisions[0].Decision.Kind != "skipped" || len(actions) != 1 || actions[0].Action.Who != "alice" {
		t.Errorf("decisions %+v, actions %+v", decisions, actions)
	}
	ok(t, s.Check(t.Context()))
}

func show(r store.Record) string {
	raw, _ := json.Marshal(r) // of plain values
	return string(raw)
}

func readRows(t *testing.T, s store.Store) []store.Row {
	t.Helper()
	var rows []store.Row
	ok(t, s.Rows(t.Context(), func(r store.Row) error {
		rows = append(rows, r)
		return nil
	}))
	return rows
}

func TestRowsAreReplacedDeletedAndRebuilt(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	put := func(rows ...store.Row) { t.Helper(); ok(t, s.Commit(t.Context(), store.Batch{Rows: rows})) }
	put(store.Row{Table: "a", Key: "1", Body: []byte("x")}, store.Row{Table: "a", Key: "2", Body: []byte("x")})
	put(store.Row{Table: "a", Key: "1", Body: []byte("y")}, store.Row{Table: "a", Key: "2"})
	if rows := readRows(t, s); len(rows) != 1 || string(rows[0].Body) != "y" {
		t.Errorf("rows are %+v", rows)
	}
	broken := errors.New("broken")
	err := s.Rebuild(t.Context(), func(put func(store.Row) error) error {
		ok(t, put(store.Row{Table: "b", Key: "1", Body: []byte("z")}))
		return broken
	})
	if rows := readRows(t, s); !errors.Is(err, broken) || len(rows) != 1 || rows[0].Table != "a" {
		t.Errorf("a failed rebuild left %+v, %v", rows, err)
	}
	ok(t, s.Rebuild(t.Context(), func(put func(store.Row) error) error {
		return put(store.Row{Table: "b", Key: "1", Body: []byte("z")})
	}))
	if rows := readRows(t, s); len(rows) != 1 || rows[0].Table != "b" {
		t.Errorf("a rebuild left %+v", rows)
	}
}

// A batch is stored whole or not at all, and the next one is not harmed.
func TestFailedBatchLeavesNothing(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	event := func(id int64) store.Record {
		return store.Record{LogID: id, At: at, Event: &store.Event{Hostname: "h", Rollout: "r", Seq: 1, Envelope: []byte("{}")}}
	}
	decision := store.Record{LogID: 1, At: at, Decision: &store.Decision{Kind: "opened", Body: []byte("{}")}}
	if err := s.Commit(t.Context(), store.Batch{Records: []store.Record{decision, event(2), event(3)}}); err == nil {
		t.Fatal("two events under one number were stored")
	}
	if head, err := s.Head(t.Context()); err != nil || head != 0 {
		t.Errorf("head is %d, %v", head, err)
	}
	if err := s.Commit(t.Context(), store.Batch{Records: []store.Record{{LogID: 1, At: at}}}); err == nil {
		t.Error("an empty record was stored")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Commit(ended, store.Batch{Records: []store.Record{decision}}); err == nil {
		t.Error("a batch was stored for a context that had ended")
	}
	ok(t, s.Commit(t.Context(), store.Batch{Records: []store.Record{decision, event(2)}}))
}

// A nonce is burned once, whatever the core believes.
func TestNonceIsBurnedOnce(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "state.db"))
	issue := func(id int64, nonce string) error {
		return s.Commit(t.Context(), store.Batch{Records: []store.Record{{LogID: id, At: at, Issuance: &store.Issuance{Serial: fmt.Sprint(id), Nonce: nonce}}}})
	}
	ok(t, issue(1, "n"))
	if issue(2, "n") == nil {
		t.Error("it was burned twice")
	}
	ok(t, issue(2, ""))
	ok(t, issue(3, ""))
}

func TestNewerSchemaIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	s := open(t, file)
	version, err := s.Schema(t.Context())
	ok(t, err)
	ok(t, s.Close())
	db, err := sql.Open("sqlite", file)
	ok(t, err)
	_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (?, 1)`, version+1)
	ok(t, err)
	ok(t, db.Close())
	if _, err := store.OpenSqlite(t.Context(), file); !errors.Is(err, store.ErrNewerSchema) {
		t.Errorf("it was opened: %v", err)
	}
}
