// Package bundle is what an auditor is given of hosts' evidence: a folder, or a
// .tar.gz of one, that nixfleet verifies offline and that stock tools can check.
//
//	README.md               how to check it by hand
//	allowed_signers         the hosts' keys as the exporter knew them, for ssh-keygen
//	HOST/records.jsonl      one record a line, in the order of the chain: the bytes that the host hashed and signed
//	HOST/signatures         for each record its SHA-256 and the host's ed25519 signature of its bytes, hex
//	HOST/heads/HASH         for some records, among them every outcome: the hash, to be checked with …
//	HOST/heads/HASH.sig     … this SSH signature
//
// It promises that a changed byte of a record or a signature is found. It needs the
// hosts' keys from its caller: what the bundle says about keys is for ssh-keygen
// and is never believed. It never leaves out a record that it is given, whoever
// signed it.
package bundle

import (
	"bytes"
	"crypto/ed25519"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"nixfleet/internal/evidence"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

//go:embed README.md
var readme []byte

// The files of a bundle.
const (
	readmeName     = "README.md"
	signersName    = "allowed_signers"
	recordsName    = "records.jsonl"
	signaturesName = "signatures"
	headsName      = "heads"
	sigSuffix      = ".sig"
)

// ErrNotABundle: there is nothing in it that could be verified.
var ErrNotABundle = errors.New("not an evidence bundle")

// Bundle is the files, by their paths.
type Bundle map[string][]byte

// New makes a bundle of hosts' records, which may be in any order. Keys are for
// the stock tools; a host without one cannot be checked with them.
func New(records map[string][]wire.Envelope, keys map[string]ed25519.PublicKey) (Bundle, error) {
	b := Bundle{readmeName: readme}
	var signers bytes.Buffer
	for _, host := range slices.Sorted(maps.Keys(records)) {
		if key, ok := keys[host]; ok {
			fmt.Fprintf(&signers, "%s namespaces=%q %s\n", host, evidence.SSHNamespace, identity.FormatPublicKey(key, ""))
		}
		if err := b.add(host, records[host]); err != nil {
			return nil, fmt.Errorf("evidence of %s: %w", host, err)
		}
	}
	b[signersName] = signers.Bytes()
	return b, nil
}

func (b Bundle) add(host string, records []wire.Envelope) error {
	var lines, signatures bytes.Buffer
	for _, e := range evidence.InOrder(records) {
		line, err := evidence.Of(e).Canonical()
		if err != nil {
			// No host signs such a record. It is shown, and will not verify.
			if line, err = json.Marshal(evidence.Of(e)); err != nil {
				return err
			}
		}
		hash := trust.Sum(line)
		fmt.Fprintf(&lines, "%s\n", line)
		fmt.Fprintf(&signatures, "%s %s\n", hash, e.Signature)
		if e.SSHSig != "" {
			name := host + "/" + headsName + "/" + hash
			b[name], b[name+sigSuffix] = evidence.SSHMessage(hash), []byte(e.SSHSig)
		}
	}
	b[host+"/"+recordsName], b[host+"/"+signaturesName] = lines.Bytes(), signatures.Bytes()
	return nil
}

// Hosts are the hosts of whom there are records.
func (b Bundle) Hosts() []string {
	var hosts []string
	for name := range b {
		if host, ok := strings.CutSuffix(name, "/"+recordsName); ok && fleet.CheckHostname(host) == nil {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)
	return hosts
}

// Expect is what an auditor knows of a host.
type Expect struct {
	Key   ed25519.PublicKey
	After string // hash of the record before the first, verified earlier; "" is none
	Head  string // hash of the last record; "" is not known
}

// Verify checks all records of a host. What is wrong with them is one of
// evidence's errors.
func (b Bundle) Verify(host string, x Expect) (evidence.Verified, error) {
	records, leftOver, err := b.records(host)
	if err != nil {
		return evidence.Verified{Head: evidence.Genesis}, err
	}
	proven, err := evidence.VerifyChain(evidence.Chain{Hostname: host, Key: x.Key, After: x.After, Head: x.Head, Records: records})
	if err == nil && leftOver > 0 {
		err = &evidence.Tampering{Index: len(records), Record: "after the last", Kind: evidence.ErrCutOffEnd, Detail: fmt.Sprintf("there are %d signatures of records that are not here", leftOver)}
	}
	return proven, err
}

// records puts a host's files together again, and counts the signatures that are
// of none of the records.
func (b Bundle) records(host string) (records []wire.Envelope, leftOver int, err error) {
	signatures, err := b.signatures(host)
	if err != nil {
		return nil, 0, err
	}
	heads, err := b.heads(host)
	if err != nil {
		return nil, 0, err
	}
	here := map[string]bool{}
	for i, line := range split(b[host+"/"+recordsName]) {
		e, err := parse(line)
		if err != nil {
			return nil, 0, &evidence.Tampering{Index: i, Record: "line " + strconv.Itoa(i+1), Kind: evidence.ErrChanged, Detail: err.Error()}
		}
		hash := trust.Sum([]byte(line))
		e.Signature, e.SSHSig = signatures[hash], heads[hash]
		here[hash] = true
		records = append(records, e)
	}
	for _, of := range []map[string]string{signatures, heads} {
		for hash := range of {
			if !here[hash] {
				leftOver++
			}
		}
	}
	return records, leftOver, nil
}

// signatureLine is a record's hash and the signature, in the one way to write them.
var signatureLine = regexp.MustCompile(`^([0-9a-f]{64}) ([0-9a-f]{128})$`)

// signatures are a host's, by the hash of the record.
func (b Bundle) signatures(host string) (map[string]string, error) {
	signatures := map[string]string{}
	for i, line := range split(b[host+"/"+signaturesName]) {
		m := signatureLine.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("%w: line %d of %s is not a hash and a signature", evidence.ErrChanged, i+1, signaturesName)
		}
		signatures[m[1]] = m[2]
	}
	return signatures, nil
}

// heads are a host's SSH signatures, by the hash that they sign.
func (b Bundle) heads(host string) (map[string]string, error) {
	heads := map[string]string{}
	for name, text := range b {
		file, ok := strings.CutPrefix(name, host+"/"+headsName+"/")
		if !ok {
			continue
		}
		hash, isSignature := strings.CutSuffix(file, sigSuffix)
		switch {
		case isSignature && b[strings.TrimSuffix(name, sigSuffix)] == nil:
			return nil, fmt.Errorf("%w: %s has no hash beside it", evidence.ErrChanged, name)
		case isSignature:
			heads[hash] = string(text)
		case b[name+sigSuffix] == nil:
			return nil, fmt.Errorf("%w: %s has no signature beside it", evidence.ErrChanged, name)
		case !bytes.Equal(text, evidence.SSHMessage(hash)):
			return nil, fmt.Errorf("%w: %s does not hold the hash that it is named after", evidence.ErrChanged, name)
		}
	}
	return heads, nil
}

// split gives the lines of a file.
func split(file []byte) []string {
	var lines []string
	for line := range strings.Lines(string(file)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}

// parse reads a record, which must be in the very form that is signed.
func parse(line string) (wire.Envelope, error) {
	var r evidence.Record
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return wire.Envelope{}, fmt.Errorf("it is no record: %w", err)
	}
	canonical, err := r.Canonical()
	if err != nil {
		return wire.Envelope{}, err
	}
	if string(canonical) != line {
		return wire.Envelope{}, errors.New("it is not in the form in which records are signed")
	}
	return wire.Envelope{
		Hostname: r.Hostname, RolloutID: r.RolloutID, Event: r.Event,
		BootID: r.BootID, AgentVersion: r.AgentVersion, RecordedAt: r.RecordedAt, Prev: r.Prev,
	}, nil
}
