// Package identity is who is who: host keys, bootstrap tokens, certificate
// requests, certificates and the roles that they carry.
//
// It promises that a host's identity is its SSH ed25519 key: requests are proven
// with it, certificates are issued to it, and a certificate that is not exactly
// the one that was asked for is refused before it is stored. What comes from
// outside is bytes in, a typed value or a typed error out.
//
// It needs from its caller the time and everything that lives elsewhere: which
// key a host was declared with, which nonces are allowed, what is revoked. It
// needs the caller to keep private keys private.
//
// It never opens a connection, never keeps state, and never grants a role
// because of a name alone: a role is the URI in a certificate that a pinned
// authority signed.
package identity
