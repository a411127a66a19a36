package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Rows reads the checkpoint.
func (s *Sqlite) Rows(ctx context.Context, each func(Row) error) error {
	rows, err := s.read.QueryContext(ctx, `SELECT tab, key, sub, body FROM derived ORDER BY tab, key, sub`)
	if err != nil {
		return fmt.Errorf("read derived rows: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var r Row
		if err := rows.Scan(&r.Table, &r.Key, &r.Sub, &r.Body); err != nil {
			return fmt.Errorf("read derived rows: %w", err)
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Head is the newest LogID.
func (s *Sqlite) Head(ctx context.Context) (head int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT max(
		coalesce((SELECT max(log_id) FROM events), 0),
		coalesce((SELECT max(log_id) FROM documents), 0),
		coalesce((SELECT max(log_id) FROM operator_actions), 0),
		coalesce((SELECT max(log_id) FROM decisions), 0),
		coalesce((SELECT max(log_id) FROM issuances), 0))`).Scan(&head)
	if err != nil {
		return 0, fmt.Errorf("read head of the log: %w", err)
	}
	return head, nil
}

const eventColumns = `log_id, received_at, hostname, rollout, seq, kind, verdict, signing, detail, envelope`

func scanEvent(row interface{ Scan(...any) error }) (e LoggedEvent, err error) {
	var at int64
	err = row.Scan(&e.LogID, &at, &e.Hostname, &e.Rollout, &e.Seq, &e.Kind, &e.Verdict, &e.Signing, &e.Detail, &e.Envelope)
	e.At = moment(at)
	return e, err
}

// Event reads one event by its number.
func (s *Sqlite) Event(ctx context.Context, hostname, rollout string, seq int64) (Event, bool, error) {
	row := s.read.QueryRowContext(ctx, `SELECT `+eventColumns+` FROM events WHERE hostname = ? AND rollout = ? AND seq = ?`, hostname, rollout, seq)
	e, err := scanEvent(row)
	if errors.Is(err, sql.ErrNoRows) {
		return Event{}, false, nil
	}
	if err != nil {
		return Event{}, false, fmt.Errorf("read event %s %s %d: %w", hostname, rollout, seq, err)
	}
	return e.Event, true, nil
}

// Events reads a page of events in the order of the log.
func (s *Sqlite) Events(ctx context.Context, f EventFilter) ([]LoggedEvent, error) {
	query := `SELECT ` + eventColumns + ` FROM events WHERE log_id > ?`
	args := []any{f.After}
	if f.Hostname != "" {
		query += ` AND hostname = ?`
		args = append(args, f.Hostname)
	}
	if f.Rollout != "" {
		query += ` AND rollout = ?`
		args = append(args, f.Rollout)
	}
	return s.events(ctx, query+` ORDER BY log_id LIMIT ?`, append(args, f.Limit)...)
}

// EventsBefore reads what came before a rollout was known.
func (s *Sqlite) EventsBefore(ctx context.Context, rollout string, before int64) ([]LoggedEvent, error) {
	return s.events(ctx, `SELECT `+eventColumns+` FROM events WHERE rollout = ? AND log_id < ? ORDER BY hostname, seq`, rollout, before)
}

func (s *Sqlite) events(ctx context.Context, query string, args ...any) ([]LoggedEvent, error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	var all []LoggedEvent
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

// Replay reads the whole log in order: one cursor a table, merged by LogID.
func (s *Sqlite) Replay(ctx context.Context, after int64, each func(Record) error) error {
	var cursors []*cursor
	defer func() {
		for _, c := range cursors {
			c.rows.Close()
		}
	}()
	// All cursors are of one transaction, so that they see one state of the log.
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	defer tx.Rollback() // it only read
	for _, t := range logTables {
		rows, err := tx.QueryContext(ctx, t.from+` WHERE log_id > ? ORDER BY log_id`, after)
		if err != nil {
			return fmt.Errorf("replay: %w", err)
		}
		c := &cursor{rows: rows, scan: t.scan}
		cursors = append(cursors, c)
		if err := c.step(); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	for {
		var next *cursor
		for _, c := range cursors {
			if c.more && (next == nil || c.record.LogID < next.record.LogID) {
				next = c
			}
		}
		if next == nil {
			return nil
		}
		if err := each(next.record); err != nil {
			return err
		}
		if err := next.step(); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
}

// cursor is a place in one table of the log.
type cursor struct {
	rows   *sql.Rows
	scan   func(*sql.Rows) (Record, error)
	record Record
	more   bool
}

func (c *cursor) step() (err error) {
	if c.more = c.rows.Next(); !c.more {
		return c.rows.Err()
	}
	c.record, err = c.scan(c.rows)
	return err
}

// logTable is a table of the log, and how a row of it becomes a Record.
type logTable struct {
	from string // SELECT … FROM …
	scan func(*sql.Rows) (Record, error)
}

var logTables = []logTable{eventLog, documentLog, actionLog, decisionLog, issuanceLog}

var eventLog = logTable{`SELECT ` + eventColumns + ` FROM events`, func(rows *sql.Rows) (Record, error) {
	e, err := scanEvent(rows)
	return Record{LogID: e.LogID, At: e.At, Event: &e.Event}, err
}}

var documentLog = logTable{`SELECT log_id, accepted_at, kind, name, hash, key_id, bytes, signature, fleet FROM documents`, func(rows *sql.Rows) (r Record, err error) {
	var at int64
	d := &Document{}
	err = rows.Scan(&r.LogID, &at, &d.Kind, &d.Name, &d.Hash, &d.KeyID, &d.Bytes, &d.Signature, &d.Fleet)
	r.At, r.Document = moment(at), d
	return r, err
}}

var actionLog = logTable{`SELECT log_id, at, who, verb, subject, why, args FROM operator_actions`, func(rows *sql.Rows) (r Record, err error) {
	var at int64
	a := &Action{}
	err = rows.Scan(&r.LogID, &at, &a.Who, &a.Verb, &a.Subject, &a.Why, (*[]byte)(&a.Args))
	r.At, r.Action = moment(at), a
	return r, err
}}

var decisionLog = logTable{`SELECT log_id, at, kind, hostname, rollout, body FROM decisions`, func(rows *sql.Rows) (r Record, err error) {
	var at int64
	d := &Decision{}
	err = rows.Scan(&r.LogID, &at, &d.Kind, &d.Hostname, &d.Rollout, &d.Body)
	r.At, r.Decision = moment(at), d
	return r, err
}}

var issuanceLog = logTable{`SELECT log_id, at, serial, role, name, key_fingerprint, nonce, not_before, not_after, cert_pem FROM issuances`, func(rows *sql.Rows) (r Record, err error) {
	var at, from, to int64
	i := &Issuance{}
	err = rows.Scan(&r.LogID, &at, &i.Serial, &i.Role, &i.Name, &i.KeyFingerprint, &i.Nonce, &from, &to, &i.CertPEM)
	i.NotBefore, i.NotAfter = moment(from), moment(to)
	r.At, r.Issuance = moment(at), i
	return r, err
}}

// Documents reads the newest record of every document.
func (s *Sqlite) Documents(ctx context.Context, each func(Record) error) error {
	return s.records(ctx, documentLog, `WHERE log_id IN (SELECT max(log_id) FROM documents GROUP BY kind, name) ORDER BY log_id`, each)
}

// Issuances reads every issuance.
func (s *Sqlite) Issuances(ctx context.Context, each func(Record) error) error {
	return s.records(ctx, issuanceLog, `ORDER BY log_id`, each)
}

// Decisions reads what was decided about a rollout.
func (s *Sqlite) Decisions(ctx context.Context, rollout string) ([]Record, error) {
	return s.page(ctx, decisionLog, `WHERE rollout = ? ORDER BY log_id`, rollout)
}

// Actions reads a page of operators' actions.
func (s *Sqlite) Actions(ctx context.Context, after int64, limit int) ([]Record, error) {
	return s.page(ctx, actionLog, `WHERE log_id > ? ORDER BY log_id LIMIT ?`, after, limit)
}

func (s *Sqlite) page(ctx context.Context, t logTable, where string, args ...any) (all []Record, err error) {
	err = s.records(ctx, t, where, func(r Record) error {
		all = append(all, r)
		return nil
	}, args...)
	return all, err
}

func (s *Sqlite) records(ctx context.Context, t logTable, where string, each func(Record) error, args ...any) error {
	rows, err := s.read.QueryContext(ctx, t.from+" "+where, args...)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := t.scan(rows)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return rows.Err()
}
