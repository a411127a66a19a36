package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"nixfleet/internal/evidence"
	"nixfleet/internal/evidence/bundle"
)

type evidenceVerifyCmd struct {
	Bundle  string            `arg:"" help:"The bundle: a folder or an archive, of nixfleet evidence export."`
	Fleet   string            `placeholder:"FILE" help:"The fleet document that declares the hosts' keys; one that you trust."`
	HostKey string            `placeholder:"FILE" help:"The host's public SSH key, in place of --fleet, for a bundle of one host."`
	After   map[string]string `placeholder:"HOST=HASH" help:"The records of the host begin after this head, which was verified earlier."`
	Head    map[string]string `placeholder:"HOST=HASH" help:"The host's last record must be this one."`
	JSON    bool              `help:"As a JSON object."`
}

// Help is shown by --help.
func (c *evidenceVerifyCmd) Help() string {
	return "Checks that every record was signed by its host and that none is missing, changed, moved or another host's. The hosts' keys come from --fleet or --host-key: what the bundle itself says about keys is not believed. That nothing came after the last record only --head can tell."
}

// audit is what is said about a bundle.
type audit struct {
	OK    bool        `json:"ok"`
	Hosts []hostAudit `json:"hosts"`
}

// hostAudit is what is said about one host's records. A field that nothing is
// known of is null.
type hostAudit struct {
	Hostname string  `json:"hostname"`
	OK       bool    `json:"ok"`
	Error    *string `json:"error"` // a word, such as "gap"
	Detail   *string `json:"detail"`
	// What is proven: with an error, of the records before it.
	Records int     `json:"records"`
	Heads   int     `json:"heads"`
	Head    string  `json:"head"`
	Resets  []reset `json:"resets"`
}

// reset is a place where the host began a new chain and said so.
type reset struct {
	Record       int    `json:"record"` // from 1
	Code         string `json:"code"`
	Detail       string `json:"detail"`
	PreviousHead string `json:"previousHead"`
}

// auditWords are the words for what can have been done to records.
var auditWords = []struct {
	err  error
	word string
}{
	{evidence.ErrGap, "gap"},
	{evidence.ErrReordered, "reordered"},
	{evidence.ErrWrongKey, "wrong-key"},
	{evidence.ErrChanged, "changed"},
	{evidence.ErrOtherHost, "other-host"},
	{evidence.ErrCutOffStart, "cut-off-start"},
	{evidence.ErrCutOffEnd, "cut-off-end"},
	{evidence.ErrSSHSig, "ssh-signature"},
}

func (c *evidenceVerifyCmd) Run(e *env) error {
	b, expect, err := c.read()
	if err != nil {
		return err
	}
	a := audit{OK: true}
	for _, host := range b.Hosts() {
		h, err := auditHost(b, host, expect[host])
		if err != nil {
			return err
		}
		a.Hosts = append(a.Hosts, h)
		a.OK = a.OK && h.OK
	}
	if c.JSON {
		if err := writeJSON(e.out, a); err != nil {
			return err
		}
	} else {
		a.print(e)
	}
	if !a.OK {
		return silently(exitNo)
	}
	return nil
}

// read reads the bundle and what the auditor knows of its hosts. What is wrong
// with either is wrong use; what is in the records is in question.
func (c *evidenceVerifyCmd) read() (bundle.Bundle, map[string]bundle.Expect, error) {
	b, err := bundle.Read(c.Bundle)
	if err != nil {
		return nil, nil, wrongUse("%w", err)
	}
	keys, err := c.keys(b.Hosts())
	if err != nil {
		return nil, nil, err
	}
	expect := map[string]bundle.Expect{}
	for _, host := range b.Hosts() {
		key, ok := keys[host]
		if !ok {
			return nil, nil, wrongUse("--fleet %s declares no key of %s, whose records are in the bundle", c.Fleet, host)
		}
		expect[host] = bundle.Expect{Key: key, After: c.After[host], Head: c.Head[host]}
	}
	for flag, hashes := range map[string]map[string]string{"--after": c.After, "--head": c.Head} {
		for host, hash := range hashes {
			if _, ok := expect[host]; !ok {
				return nil, nil, wrongUse("%s %s=…: there are no records of %s in the bundle", flag, host, host)
			}
			if !isHash(hash) {
				return nil, nil, wrongUse("%s %s=%s: a hash has 64 digits of 0-9 and a-f", flag, host, hash)
			}
		}
	}
	return b, expect, nil
}

var isHash = regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString

// keys are the hosts' public keys as the auditor knows them.
func (c *evidenceVerifyCmd) keys(hosts []string) (map[string]ed25519.PublicKey, error) {
	switch {
	case (c.Fleet == "") == (c.HostKey == ""):
		return nil, wrongUse("the hosts' keys must come from you, not from the bundle: give either --fleet FILE or --host-key FILE")
	case c.Fleet != "":
		doc, err := os.ReadFile(c.Fleet)
		if err != nil {
			return nil, wrongUse("--fleet: %w", err)
		}
		keys, err := declaredKeys(doc)
		if err != nil {
			return nil, wrongUse("--fleet %s: %w", c.Fleet, err)
		}
		return keys, nil
	case len(hosts) != 1:
		return nil, wrongUse("--host-key is for a bundle of one host; this one has %s: give --fleet", strings.Join(hosts, ", "))
	}
	key, err := loadHostKey("--host-key", c.HostKey)
	if err != nil {
		return nil, err
	}
	return map[string]ed25519.PublicKey{hosts[0]: key}, nil
}

func auditHost(b bundle.Bundle, host string, expect bundle.Expect) (hostAudit, error) {
	proven, err := b.Verify(host, expect)
	h := hostAudit{Hostname: host, OK: err == nil, Records: proven.Records, Heads: proven.Checkpoints, Head: proven.Head, Resets: []reset{}}
	for _, r := range proven.Resets {
		h.Resets = append(h.Resets, reset{r.Index + 1, r.Code, r.Detail, r.PreviousHead})
	}
	if err == nil {
		return h, nil
	}
	for _, w := range auditWords {
		if errors.Is(err, w.err) {
			detail := err.Error()
			h.Error, h.Detail = &w.word, &detail
			return h, nil
		}
	}
	return h, fmt.Errorf("evidence of %s: %w", host, err)
}

func (a audit) print(e *env) {
	for _, h := range a.Hosts {
		if !h.OK {
			fmt.Fprintf(e.out, "%s: %s: %s\n", h.Hostname, e.styles.bad.Render("NOT GOOD: "+*h.Error), *h.Detail)
			continue
		}
		fmt.Fprintf(e.out, "%s: %s, %d records, %d signed heads, the last record is %s\n", h.Hostname, e.styles.good.Render("good"), h.Records, h.Heads, h.Head)
		for _, r := range h.Resets {
			fmt.Fprintf(e.out, "  a new chain begins at record %d, as the host says (%s): %s\n", r.Record, r.Code, r.Detail)
		}
	}
}
