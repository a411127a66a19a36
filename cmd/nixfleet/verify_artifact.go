package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"nixfleet/internal/fleet"
	"nixfleet/internal/trust"
)

type verifyCmd struct {
	Artifact verifyArtifactCmd `cmd:"" help:"Verify a signed document: exit 0 good, 1 not good, 2 wrong use."`
	Evidence evidenceVerifyCmd `cmd:"" help:"Verify a bundle of evidence, as nixfleet evidence verify does."`
}

type verifyArtifactCmd struct {
	File          string    `arg:"" help:"The document."`
	Kind          string    `required:"" enum:"fleet,manifest,revocations,nonces" help:"What it is: fleet, manifest, revocations or nonces."`
	Signature     string    `placeholder:"FILE" help:"Its signature (default: FILE.sig)."`
	TrustFile     string    `default:"/etc/nixfleet/agent/trust.json" placeholder:"FILE" help:"The trust roots (default: ${default})."`
	Now           time.Time `placeholder:"TIME" help:"Check as of this time, RFC 3339 (default: now)."`
	WindowMinutes *int      `placeholder:"N" help:"How old it may be; narrows a manifest's own window."`
	Fleet         string    `placeholder:"FILE" help:"The fleet document that a manifest was published with: completes and anchors it."`
	RolloutID     string    `placeholder:"ID" help:"The rollout that a manifest must be of."`
	Accepted      string    `placeholder:"FILE" help:"The document of this kind that was accepted last: tells a refresh from something older, or republished."`
	JSON          bool      `help:"As a JSON object."`
}

// verdict is what is said about a document. A field that nothing is known of is
// null.
type verdict struct {
	OK       bool       `json:"ok"`
	Error    *string    `json:"error"` // a word, such as "stale"
	Detail   *string    `json:"detail"`
	Key      *string    `json:"key"`
	SignedAt *time.Time `json:"signedAt"`
	PlanHash *string    `json:"planHash"` // of a manifest
}

func (c *verifyArtifactCmd) Run(e *env) error {
	in, err := c.read()
	if err != nil {
		return err
	}
	v, err := c.verdict(in)
	if err != nil {
		return err
	}
	if c.JSON {
		if err := writeJSON(e.out, v); err != nil {
			return err
		}
	} else {
		c.print(e, v)
	}
	if !v.OK {
		return silently(exitNo)
	}
	return nil
}

func (c *verifyArtifactCmd) print(e *env, v verdict) {
	if !v.OK {
		fmt.Fprintf(e.out, "%s: %s: %s\n", c.File, e.styles.bad.Render("NOT GOOD: "+*v.Error), *v.Detail)
		return
	}
	fmt.Fprintf(e.out, "%s: %s, signed at %s by %s\n", c.File, e.styles.good.Render("good"), v.SignedAt.Format(time.RFC3339), *v.Key)
	if v.PlanHash != nil {
		fmt.Fprintf(e.out, "plan %s\n", *v.PlanHash)
	}
}

// artifact is everything that a verdict depends on.
type artifact struct {
	doc, sig []byte
	slot     trust.Slot
	now      time.Time
	mark     trust.Mark
	expect   trust.Expect
}

// read reads the files. What is wrong with them is wrong use, except for the
// document and its signature, which are in question.
func (c *verifyArtifactCmd) read() (in artifact, err error) {
	if c.Kind != "manifest" && (c.Fleet != "" || c.RolloutID != "") {
		return in, wrongUse("--fleet and --rollout-id are for --kind manifest, not for %s", c.Kind)
	}
	if c.WindowMinutes != nil && *c.WindowMinutes < 0 {
		return in, wrongUse("--window-minutes %d: it must not be negative", *c.WindowMinutes)
	}
	if c.RolloutID != "" {
		if _, _, _, err := fleet.ParseRolloutID(c.RolloutID); err != nil {
			return in, wrongUse("--rollout-id: %w", err)
		}
	}
	if in.doc, err = os.ReadFile(c.File); err != nil {
		return in, wrongUse("%w", err)
	}
	sigFile := c.Signature
	if sigFile == "" {
		sigFile = c.File + ".sig"
	}
	if in.sig, err = os.ReadFile(sigFile); err != nil {
		return in, wrongUse("signature: %w; name its file with --signature", err)
	}
	roots, err := trust.LoadRoots(c.TrustFile)
	if err != nil {
		return in, wrongUse("%w; name the file with --trust-file", err)
	}
	in.slot = roots.CIReleaseKey
	in.now = c.Now
	if in.now.IsZero() {
		in.now = time.Now()
	}
	in.expect.RolloutID = c.RolloutID
	if c.Fleet != "" {
		doc, err := os.ReadFile(c.Fleet)
		if err != nil {
			return in, wrongUse("--fleet: %w", err)
		}
		// It needs no signature of its own: the signed manifest names its hash.
		f, err := trust.Accepted[fleet.Fleet](trust.Entry{Document: doc})
		if err != nil {
			return in, wrongUse("--fleet %s: %w", c.Fleet, err)
		}
		in.expect.Fleet = &f
	}
	if c.Accepted != "" {
		if err := c.readAccepted(&in); err != nil {
			return in, wrongUse("--accepted %s: %w", c.Accepted, err)
		}
	}
	return in, nil
}

// readAccepted sets what the document accepted before forbids.
func (c *verifyArtifactCmd) readAccepted(in *artifact) error {
	doc, err := os.ReadFile(c.Accepted)
	if err != nil {
		return err
	}
	canonical, err := trust.Canonical(doc)
	if err != nil {
		return err
	}
	var accepted struct {
		Channel    string     `json:"channel"`
		ChannelRef string     `json:"channelRef"`
		Attempt    int        `json:"attempt"`
		Meta       fleet.Meta `json:"meta"`
	}
	if err := json.Unmarshal(canonical, &accepted); err != nil {
		return err
	}
	if accepted.Meta.SignedAt == nil {
		return errors.New("it has no meta.signedAt, so it cannot have been accepted")
	}
	in.mark = trust.Mark{SignedAt: *accepted.Meta.SignedAt, Hash: trust.Sum(canonical)}
	if c.Kind != "manifest" {
		return nil
	}
	if in.mark.Hash, err = trust.PlanHash(doc); err != nil {
		return err
	}
	var m fleet.Manifest
	if json.Unmarshal(in.doc, &m) == nil && m.ID() == fleet.RolloutID(accepted.Channel, accepted.ChannelRef, accepted.Attempt) {
		in.expect.PlanHash = in.mark.Hash
	}
	return nil
}

func (c *verifyArtifactCmd) verdict(in artifact) (verdict, error) {
	// Without the flag only the document itself says how old it may be. A window
	// of zero would mean the same, so it becomes the shortest there is.
	const longest = time.Duration(math.MaxInt64)
	window := longest
	if n := c.WindowMinutes; n != nil && *n < int(longest/time.Minute) {
		window = max(1, time.Duration(*n)*time.Minute)
	}
	switch c.Kind {
	case "manifest":
		return verdictOf(trust.VerifyManifest(in.doc, in.sig, in.slot, in.now, window, in.mark, in.expect))
	case "fleet":
		return verdictOf(trust.Verify[fleet.Fleet](in.doc, in.sig, in.slot, in.now, window, in.mark))
	case "revocations":
		return verdictOf(trust.Verify[fleet.Revocations](in.doc, in.sig, in.slot, in.now, window, in.mark))
	case "nonces":
		return verdictOf(trust.Verify[fleet.Nonces](in.doc, in.sig, in.slot, in.now, window, in.mark))
	}
	return verdict{}, wrongUse("--kind %s", c.Kind)
}

func verdictOf[T any](v trust.Verified[T], err error) (verdict, error) {
	if err != nil {
		word := trust.Reason(err)
		if word == "" {
			return verdict{}, err
		}
		detail := err.Error()
		if typed := (*trust.Error)(nil); errors.As(err, &typed) {
			detail = typed.Detail
		}
		return verdict{Error: &word, Detail: &detail}, nil
	}
	key, signedAt := v.KeyID(), v.SignedAt()
	good := verdict{OK: true, Key: &key, SignedAt: &signedAt}
	if plan := v.PlanHash(); plan != "" {
		good.PlanHash = &plan
	}
	return good, nil
}
