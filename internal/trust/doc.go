// Package trust decides which documents may be acted upon.
//
// It promises that a Verified value exists only for bytes that a pinned key
// signed and that passed every check in order: form, signature, schema, dates,
// freshness, and that nothing newer was accepted before. Functions that act take
// a Verified; there is no other way to one but Accepted, for what was verified
// before and kept by its owner.
//
// It needs the time and the marks of earlier acceptances from its caller, who
// keeps them: raise the mark durably before acting on the document.
//
// It never fetches anything, never looks at a clock, never writes a document
// back from its decoded form in order to hash or verify it, and never lets a
// document choose its own algorithm.
package trust
