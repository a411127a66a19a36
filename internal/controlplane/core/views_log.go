package core

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// Events pages through stored events. They come from the store alone.
func (c *Core) Events(ctx context.Context, f store.EventFilter) ([]wire.EventView, error) {
	logged, err := c.Store.Events(ctx, f)
	if err != nil {
		return nil, err
	}
	views := make([]wire.EventView, 0, len(logged))
	for _, e := range logged {
		var envelope wire.Envelope
		if err := json.Unmarshal(e.Envelope, &envelope); err != nil {
			return nil, err
		}
		v := wire.EventView{
			LogID: e.LogID, Hostname: e.Hostname, RolloutID: e.Rollout, Seq: e.Seq, Kind: lifecycle.Kind(e.Kind),
			Verdict: string(e.Verdict), Detail: e.Detail, ReceivedAt: e.At, Event: envelope.Event,
		}
		if e.Verdict == store.Stored && e.Signing == store.SignatureNone {
			v.Verdict = string(store.SignatureNone)
		}
		views = append(views, v)
	}
	return views, nil
}

// Evidence pages through a host's records as it sent them.
func (c *Core) Evidence(ctx context.Context, host string, after int64, limit int) ([]wire.EvidenceItem, error) {
	logged, err := c.Store.Events(ctx, store.EventFilter{Hostname: host, After: after, Limit: limit})
	if err != nil {
		return nil, err
	}
	items := make([]wire.EvidenceItem, 0, len(logged))
	for _, e := range logged {
		item := wire.EvidenceItem{LogID: e.LogID, ReceivedAt: e.At}
		if err := json.Unmarshal(e.Envelope, &item.Envelope); err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}

// Audit pages through what operators asked for.
func (c *Core) Audit(ctx context.Context, after int64, limit int) ([]wire.AuditView, error) {
	records, err := c.Store.Actions(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	views := make([]wire.AuditView, 0, len(records))
	for _, r := range records {
		views = append(views, wire.AuditView{LogID: r.LogID, At: r.At, Who: r.Action.Who, Action: r.Action.Verb, Subject: r.Action.Subject, Why: r.Action.Why})
	}
	return views, nil
}

// Certificates are those that were issued and are still valid, newest first.
func (c *Core) Certificates(ctx context.Context) (views []wire.CertificateView, err error) {
	docs := c.Documents()
	err = c.view(ctx, func(s *state) {
		for _, i := range s.issued {
			if time.Now().After(i.NotAfter) {
				continue
			}
			requester := "renewal"
			if i.Nonce != "" {
				requester = "token"
			}
			views = append(views, wire.CertificateView{
				Serial: i.Serial, Role: i.Role, Name: i.Name, KeyFingerprint: i.KeyFingerprint,
				NotBefore: i.NotBefore, NotAfter: i.NotAfter, Requester: requester,
				Revoked: docs.Revoked(i.Name, i.KeyFingerprint, i.NotBefore) != "",
			})
		}
	})
	slices.SortFunc(views, func(a, b wire.CertificateView) int { return b.NotBefore.Compare(a.NotBefore) })
	return views, err
}
