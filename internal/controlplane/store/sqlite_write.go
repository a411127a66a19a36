package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"nixfleet/internal/crashpoint"
)

// insertShape is one prepared INSERT: into which table, with how many rows.
type insertShape struct {
	into string
	rows int
}

// maxRows bounds the rows of one INSERT: beyond it nothing gets faster, and
// SQLite limits the number of parameters of a statement.
const maxRows = 64

// The tables of the log, with their columns. The first two are always the
// record's place and time.
const (
	intoEvents    = "events (log_id, received_at, hostname, rollout, seq, kind, verdict, signing, detail, envelope)"
	intoDocuments = "documents (log_id, accepted_at, kind, name, hash, key_id, bytes, signature, fleet)"
	intoActions   = "operator_actions (log_id, at, who, verb, subject, why, args)"
	intoDecisions = "decisions (log_id, at, kind, hostname, rollout, body)"
	intoIssuances = "issuances (log_id, at, serial, role, name, key_fingerprint, nonce, not_before, not_after, cert_pem)"
)

// Commit writes a batch.
func (s *Sqlite) Commit(ctx context.Context, b Batch) error {
	tables := map[string][][]any{}
	for i := range b.Records {
		into, values, err := columns(&b.Records[i])
		if err != nil {
			return err
		}
		tables[into] = append(tables[into], values)
	}
	return s.transaction(ctx, func() error {
		for _, into := range []string{intoEvents, intoDocuments, intoActions, intoDecisions, intoIssuances} {
			if err := s.insert(ctx, into, tables[into]); err != nil {
				return fmt.Errorf("insert into %s: %w", into[:strings.IndexByte(into, ' ')], err)
			}
		}
		for _, r := range b.Rows {
			if err := s.putRow(ctx, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// transaction runs do between BEGIN and COMMIT on the writing connection. It
// speaks SQL itself, because statements that database/sql prepares inside its Tx
// do not outlive it, and preparing them anew costs more than running them.
func (s *Sqlite) transaction(ctx context.Context, do func() error) error {
	if _, err := s.writer.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	err := do()
	if err == nil {
		crashpoint.Here("store/prepared", "nothing of a batch whose rows are all written is in the database")
		if _, err = s.writer.ExecContext(ctx, "COMMIT"); err == nil {
			crashpoint.Here("store/committed", "a batch is in the database; nobody was answered")
			return nil
		}
		err = fmt.Errorf("commit: %w", err)
	}
	// A context that has ended must not keep the transaction open. A failed
	// COMMIT may have rolled back already; then there is nothing to roll back.
	if _, rerr := s.writer.ExecContext(context.WithoutCancel(ctx), "ROLLBACK"); rerr != nil && !strings.Contains(rerr.Error(), "no transaction is active") {
		err = errors.Join(err, fmt.Errorf("roll back: %w", rerr))
	}
	return err
}

// columns gives the table of a record and the values of its row.
func columns(r *Record) (into string, values []any, err error) {
	head := []any{r.LogID, millis(r.At)}
	switch {
	case r.Event != nil:
		e := r.Event
		return intoEvents, append(head, e.Hostname, e.Rollout, e.Seq, e.Kind, string(e.Verdict), string(e.Signing), e.Detail, e.Envelope), nil
	case r.Document != nil:
		d := r.Document
		return intoDocuments, append(head, d.Kind, d.Name, d.Hash, d.KeyID, d.Bytes, d.Signature, d.Fleet), nil
	case r.Action != nil:
		a := r.Action
		return intoActions, append(head, a.Who, a.Verb, a.Subject, a.Why, string(a.Args)), nil
	case r.Decision != nil:
		d := r.Decision
		return intoDecisions, append(head, d.Kind, d.Hostname, d.Rollout, string(d.Body)), nil
	case r.Issuance != nil:
		i := r.Issuance
		return intoIssuances, append(head, i.Serial, i.Role, i.Name, i.KeyFingerprint, i.Nonce, millis(i.NotBefore), millis(i.NotAfter), i.CertPEM), nil
	}
	return "", nil, fmt.Errorf("record %d is empty", r.LogID)
}

func (s *Sqlite) insert(ctx context.Context, into string, rows [][]any) error {
	for len(rows) > 0 {
		n := min(len(rows), maxRows)
		st, err := s.inserting(ctx, insertShape{into, n}, len(rows[0]))
		if err != nil {
			return err
		}
		args := make([]any, 0, n*len(rows[0]))
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		if _, err := st.ExecContext(ctx, args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// inserting gives the statement of a shape, prepared when it is first needed.
func (s *Sqlite) inserting(ctx context.Context, shape insertShape, width int) (*sql.Stmt, error) {
	if st := s.inserts[shape]; st != nil {
		return st, nil
	}
	row := "(" + strings.TrimSuffix(strings.Repeat("?, ", width), ", ") + ")"
	query := "INSERT INTO " + shape.into + " VALUES " + strings.TrimSuffix(strings.Repeat(row+", ", shape.rows), ", ")
	st, err := s.writer.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s.inserts[shape] = st
	return st, nil
}

func (s *Sqlite) putRow(ctx context.Context, r Row) error {
	var err error
	if r.Body == nil {
		_, err = s.drop.ExecContext(ctx, r.Table, r.Key, r.Sub)
	} else {
		_, err = s.put.ExecContext(ctx, r.Table, r.Key, r.Sub, r.Body)
	}
	if err != nil {
		return fmt.Errorf("write row %s %s %s: %w", r.Table, r.Key, r.Sub, err)
	}
	return nil
}

// Rebuild replaces the checkpoint in one transaction.
func (s *Sqlite) Rebuild(ctx context.Context, write func(put func(Row) error) error) error {
	err := s.transaction(ctx, func() error {
		if _, err := s.writer.ExecContext(ctx, `DELETE FROM derived`); err != nil {
			return err
		}
		return write(func(r Row) error { return s.putRow(ctx, r) })
	})
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	return nil
}
