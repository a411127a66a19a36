package main

// Budget is one promise and where its figure comes from.
type Budget struct {
	Figure  string
	Limit   float64
	Unit    string // ns, B, allocs, ratio, /s: as the benchmark reports it
	AtLeast bool
	How     string // for the page: what was done
	Why     string // for the page when the budget is not met

	Package, Benchmark string // of a benchmark; empty for whole programs
	Metric             string // the benchmark's unit, as "ns/op"
	Against            string // a benchmark of the same package; the figure is then the ratio of the two
}

const (
	millisecond = 1e6
	microsecond = 1e3
	mebibyte    = 1 << 20
)

// The figures of whole programs.
const (
	figureStart  = "agent start to READY"
	figureBinary = "agent binary, stripped"

	figureEnrol     = "enrolment at 100 a second, p99"
	figureEnrolMost = "enrolments, as many as can be"
)

// budgets lists every promise that is measured.
var budgets = []Budget{
	{Figure: "Step of a probe event", Limit: 1 * microsecond, Unit: "ns", How: "a ProbeResult that changes the verdict, on a soaking host with five probes",
		Package: "./internal/lifecycle", Benchmark: "BenchmarkStep/probe_fails", Metric: "ns/op"},
	{Figure: "Step of a probe event, allocations", Limit: 2, Unit: "allocs", How: "the same",
		Package: "./internal/lifecycle", Benchmark: "BenchmarkStep/probe_fails", Metric: "allocs/op"},
	{Figure: "verify a manifest of 10 000 hosts", Limit: 15 * millisecond, Unit: "ns", How: "1.4 MB: limits, canonical form, signature, schema, freshness, mark, decoding",
		Package: "./internal/trust", Benchmark: "BenchmarkVerifyManifest10k", Metric: "ns/op",
		Why: "Runs on this machine lie between 14.5 and 17 ms. A profile shows two fifths of the time in decoding, a third in the canonical form and the signature, whose SHA-512 reads the document twice, and an eighth in the plan's hash. Decoding before the signature is known to be good, beside it on another core, would be faster and is not done."},
	{Figure: "verify a manifest of 10 000 hosts, memory", Limit: 12 * mebibyte, Unit: "B", How: "bytes allocated, an upper bound of the peak",
		Package: "./internal/trust", Benchmark: "BenchmarkVerifyManifest10k", Metric: "B/op"},
	{Figure: "plan 10 000 hosts", Limit: 15 * millisecond, Unit: "ns", How: "20 channels of 500 hosts, 30 % pending, 5 budgets, 200 edges",
		Package: "./internal/rollout", Benchmark: "BenchmarkPlan/hosts=10000", Metric: "ns/op"},
	{Figure: "plan 10 000 hosts, memory", Limit: 8 * mebibyte, Unit: "B", How: "the same",
		Package: "./internal/rollout", Benchmark: "BenchmarkPlan/hosts=10000", Metric: "B/op"},
	{Figure: "journal commit against a bare fsynced write", Limit: 2.2, Unit: "ratio", How: "one input's state and event in one transaction, against one page written and fsynced, in the same run",
		Package: "./internal/agent/journal", Benchmark: "BenchmarkCommit", Metric: "ns/op", Against: "BenchmarkFsync",
		Why: "A transaction writes and syncs its pages, and then its meta page: two syncs where the bare write has one, and what is above twice is the work between them. The disk is shared, and what a sync takes varies: two runs gave 2.31 and 2.94."},
	{Figure: "events stored", Limit: 10000, Unit: "/s", AtLeast: true, How: "batches of pre-signed events: signature verified, stepped, stored with synchronous=FULL; 200 hosts at once, in one process, without HTTP",
		Package: "./internal/controlplane/core", Benchmark: "BenchmarkIngest", Metric: "events/s"},
	{Figure: figureStart, Limit: 50 * millisecond, Unit: "ns", How: "from exec to READY=1, 1 000 events in the journal, no control plane to reach"},
	{Figure: figureBinary, Limit: 16 * mebibyte, Unit: "B", How: "CGO_ENABLED=0 go build -trimpath -ldflags '-s -w'"},
	{Figure: figureEnrol, Limit: 50 * millisecond, Unit: "ns", How: "each host from its own address: connection, TLS handshake, token, certificate recorded on disk; from when it was due to the answer; clients on the same machine"},
	{Figure: figureEnrolMost, Limit: 200, Unit: "/s", AtLeast: true, How: "the same, 32 hosts at once, each followed by the next"},
}
