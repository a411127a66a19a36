// Package evidence makes and checks the signed records of what a host did: one
// record for each event, each naming the one before it.
//
// It promises that a record's signature fits no other host, rollout, boot, order
// or purpose, and that Verify over a chain names the kind of tampering: a gap,
// another order, a wrong key, a changed byte, another host's record, a cut-off
// start or end.
//
// It needs from its caller the order in which records were committed, and the
// host's key from a source that is trusted: a signed fleet document.
//
// It never re-serialises what was signed: an event is raw JSON all the way, and
// hashes and signatures are over the RFC 8785 form of the received bytes.
package evidence
