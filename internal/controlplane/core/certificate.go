package core

import (
	"context"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/rollout"
	"nixfleet/internal/wire"
)

var errNonceUsed = wire.Errorf(wire.SlugNonceUsed, "this token was used before, with another key or by another host")

// burnedFor tells whether an issuance is what its nonce gives to a host with a key
// again: the same host and the same key, or it would be a second identity.
func burnedFor(i *store.Issuance, host, fingerprint string) bool {
	return i.Name == host && i.KeyFingerprint == fingerprint
}

// Burned is the certificate that a token's nonce was burned for. It is an error
// when that was for another key or host; nil means that the nonce is unused.
func (c *Core) Burned(ctx context.Context, nonce, host, fingerprint string) (*store.Issuance, error) {
	var burned *store.Issuance
	if err := c.view(ctx, func(s *state) { burned = s.burned[nonce] }); err != nil {
		return nil, err
	}
	if burned != nil && !burnedFor(burned, host, fingerprint) {
		return nil, errNonceUsed
	}
	return burned, nil
}

// Issue records an issued certificate and burns its nonce, in one transaction. A
// host that was forgotten meanwhile gets one with a nonce only.
// It returns the certificate to hand out: of two requests with the same nonce
// and key at once, both get that of the first.
func (c *Core) Issue(ctx context.Context, i store.Issuance) (store.Issuance, error) {
	granted := i
	var refused error
	err := c.submit(ctx, func(b *batch) {
		_, forgotten := b.state.world.Forgotten[i.Name]
		if i.Nonce == "" && forgotten {
			refused = wire.Errorf(wire.SlugRevoked, "host %s was forgotten", i.Name)
			return
		}
		if i.Nonce != "" {
			if older := b.state.burned[i.Nonce]; older != nil {
				if granted = *older; !burnedFor(older, i.Name, i.KeyFingerprint) {
					refused = errNonceUsed
				}
				return
			}
			if forgotten {
				if err := b.decide(b.action(rollout.Remembered{Host: i.Name})); err != nil {
					b.broken = err
					return
				}
			}
		}
		if m := b.state.machines[i.Name]; m != nil && m.Enrolment != nil {
			m.Enrolment = nil
			b.state.dirty.machines[i.Name] = true
		}
		b.log(store.Record{Issuance: &i})
		crashpoint.Here("core/certificate-logged", "a certificate was issued; nothing of it is stored")
	})
	if err != nil {
		return store.Issuance{}, err
	}
	return granted, refused
}

// Presented notes that an agent showed a good certificate with this serial. One
// that is not known was issued by a database that was lost: the hosts know more
// than this one does.
func (c *Core) Presented(ctx context.Context, host, serial string) error {
	return c.submit(ctx, func(b *batch) {
		if b.state.issued[serial] == nil {
			b.recover("host " + host + " has a certificate that is not known here (serial " + serial + ")")
		}
	})
}

// EnrolmentFailed keeps what a declared host last said about why it gets no
// certificate, until it has one. It tells whether the host is declared.
func (c *Core) EnrolmentFailed(ctx context.Context, host string, f wire.EnrolmentFailure) (declared bool, err error) {
	err = c.submit(ctx, func(b *batch) {
		if declared = b.state.declared(host) != nil; declared {
			b.state.machine(host).Enrolment = &f
			b.state.dirty.machines[host] = true
		}
	})
	return declared, err
}
