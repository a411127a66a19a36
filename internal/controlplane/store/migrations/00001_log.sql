-- +goose Up

-- The log: what happened, in one order (log_id) over all five tables.

CREATE TABLE events (
  log_id      INTEGER PRIMARY KEY,
  received_at INTEGER NOT NULL, -- Unix milliseconds, like every time here
  hostname    TEXT    NOT NULL,
  rollout     TEXT    NOT NULL,
  seq         INTEGER NOT NULL,
  kind        TEXT    NOT NULL,
  verdict     TEXT    NOT NULL,
  signing     TEXT    NOT NULL,
  detail      TEXT    NOT NULL,
  envelope    BLOB    NOT NULL  -- as received
);
CREATE UNIQUE INDEX events_by_number ON events (hostname, rollout, seq);
CREATE INDEX events_by_rollout ON events (rollout, log_id);

CREATE TABLE documents (
  log_id      INTEGER PRIMARY KEY,
  accepted_at INTEGER NOT NULL,
  kind        TEXT    NOT NULL,
  name        TEXT    NOT NULL,
  hash        TEXT    NOT NULL,
  key_id      TEXT    NOT NULL,
  bytes       BLOB    NOT NULL,
  signature   BLOB    NOT NULL,
  fleet       BLOB              -- what gave a manifest its policy
);
CREATE INDEX documents_by_name ON documents (kind, name, log_id);

CREATE TABLE operator_actions (
  log_id  INTEGER PRIMARY KEY,
  at      INTEGER NOT NULL,
  who     TEXT    NOT NULL,
  verb    TEXT    NOT NULL,
  subject TEXT    NOT NULL,
  why     TEXT    NOT NULL,
  args    TEXT    NOT NULL
);

CREATE TABLE decisions (
  log_id   INTEGER PRIMARY KEY,
  at       INTEGER NOT NULL,
  kind     TEXT    NOT NULL,
  hostname TEXT    NOT NULL,
  rollout  TEXT    NOT NULL,
  body     TEXT    NOT NULL
);
CREATE INDEX decisions_by_rollout ON decisions (rollout, log_id);

CREATE TABLE issuances (
  log_id          INTEGER PRIMARY KEY,
  at              INTEGER NOT NULL,
  serial          TEXT    NOT NULL UNIQUE,
  role            TEXT    NOT NULL,
  name            TEXT    NOT NULL,
  key_fingerprint TEXT    NOT NULL,
  nonce           TEXT    NOT NULL, -- '' when no token was burned
  not_before      INTEGER NOT NULL,
  not_after       INTEGER NOT NULL,
  cert_pem        TEXT    NOT NULL
);
CREATE UNIQUE INDEX issuances_by_nonce ON issuances (nonce) WHERE nonce <> '';

-- A checkpoint of what the log folds to; the verb rebuild makes it anew.

CREATE TABLE derived (
  tab  TEXT NOT NULL,
  key  TEXT NOT NULL,
  sub  TEXT NOT NULL,
  body BLOB NOT NULL,
  PRIMARY KEY (tab, key, sub)
) WITHOUT ROWID;

-- +goose Down
DROP TABLE derived;
DROP TABLE issuances;
DROP TABLE decisions;
DROP TABLE operator_actions;
DROP TABLE documents;
DROP TABLE events;
