package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Sqlite is a Store in one file. Its log is written ahead (WAL) and synced at
// every commit (synchronous=FULL), because agents delete an event when they hear
// that it is stored.
type Sqlite struct {
	write  *sql.DB
	writer *sql.Conn // the only connection of write
	read   *sql.DB
	// Statements on writer.
	inserts map[insertShape]*sql.Stmt // prepared when first needed
	put     *sql.Stmt
	drop    *sql.Stmt
}

// readers is the number of connections for reading: enough for the operators'
// pages not to wait for each other, few enough for two cores.
const readers = 4

// OpenSqlite opens, creates and migrates the database in file. A database with a
// newer schema gives ErrNewerSchema.
func OpenSqlite(ctx context.Context, file string) (*Sqlite, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	s := &Sqlite{inserts: map[insertShape]*sql.Stmt{}}
	if err := s.open(ctx, file); err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", file, err), s.Close())
	}
	return s, nil
}

func (s *Sqlite) open(ctx context.Context, file string) (err error) {
	pragmas := url.Values{"_pragma": {"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(FULL)", "foreign_keys(1)"}}
	if s.write, err = sql.Open("sqlite", dsn(file, pragmas)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.writer, err = s.write.Conn(ctx); err != nil {
		return err
	}
	reading := url.Values{"_pragma": append(pragmas["_pragma"], "query_only(1)")}
	if s.read, err = sql.Open("sqlite", dsn(file, reading)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	if s.put, err = s.writer.PrepareContext(ctx, `INSERT INTO derived (tab, key, sub, body) VALUES (?, ?, ?, ?)
		ON CONFLICT (tab, key, sub) DO UPDATE SET body = excluded.body`); err != nil {
		return err
	}
	s.drop, err = s.writer.PrepareContext(ctx, `DELETE FROM derived WHERE tab = ? AND key = ? AND sub = ?`)
	return err
}

func dsn(file string, query url.Values) string {
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: query.Encode()}).String()
}

// migrate brings the schema to the version of this program, and refuses one
// that is newer: writing into it could lose what the newer program relies on.
func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	current, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > known {
		return fmt.Errorf("%w (schema %d, known %d)", ErrNewerSchema, current, known)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Close waits for running reads and closes the file.
func (s *Sqlite) Close() error {
	var errs []error
	for _, st := range s.inserts {
		errs = append(errs, st.Close())
	}
	for _, st := range []*sql.Stmt{s.put, s.drop} {
		if st != nil {
			errs = append(errs, st.Close())
		}
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close())
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Check asks SQLite whether the file is sound.
func (s *Sqlite) Check(ctx context.Context) error {
	var verdict string
	if err := s.read.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil {
		return fmt.Errorf("check database: %w", err)
	}
	if verdict != "ok" {
		return fmt.Errorf("check database: %s", verdict)
	}
	return nil
}

// Schema is the version of the schema in the file.
func (s *Sqlite) Schema(ctx context.Context) (v int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&v)
	return v, err
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
