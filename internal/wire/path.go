package wire

import (
	"net/url"
	"strings"
)

// Paths, in the form that http.ServeMux takes. Fill puts values in the place of
// the wildcards.
const (
	PathHealthz = "/healthz"
	PathReadyz  = "/readyz"
	PathMetrics = "/metrics"

	PathEnroll          = "/v1/enroll"
	PathBootstrapReport = "/v1/agent/bootstrap-report"
	PathRenew           = "/v1/agent/renew"
	PathDispatch        = "/v1/agent/dispatch"
	PathReject          = "/v1/agent/reject"
	PathEvents          = "/v1/agent/events"
	PathEventsBatch     = "/v1/agent/events/batch"
	PathHeartbeat       = "/v1/agent/heartbeat"
	PathClosure         = "/v1/agent/closure/{hash}"

	PathFleet       = "/v1/fleet.resolved"
	PathFleetSig    = "/v1/fleet.resolved/sig"
	PathManifest    = "/v1/rollouts/{id}"
	PathManifestSig = "/v1/rollouts/{id}/sig"

	PathWhoami           = "/v1/whoami"
	PathHosts            = "/v1/hosts"
	PathHost             = "/v1/hosts/{host}"
	PathHostEvents       = "/v1/hosts/{host}/events"
	PathHostEvidence     = "/v1/hosts/{host}/evidence"
	PathHostForget       = "/v1/hosts/{host}/forget"
	PathChannels         = "/v1/channels"
	PathChannel          = "/v1/channels/{channel}"
	PathChannelPause     = "/v1/channels/{channel}/pause"
	PathChannelResume    = "/v1/channels/{channel}/resume"
	PathRollouts         = "/v1/rollouts"
	PathRolloutLifecycle = "/v1/rollouts/{id}/lifecycle"
	PathRolloutHosts     = "/v1/rollouts/{id}/hosts"
	PathRolloutEvents    = "/v1/rollouts/{id}/events"
	PathRolloutRollback  = "/v1/rollouts/{id}/rollback"
	PathRolloutResume    = "/v1/rollouts/{id}/resume"
	PathRolloutSkip      = "/v1/rollouts/{id}/skip"
	PathRolloutAdvance   = "/v1/rollouts/{id}/advance"
	PathDeferrals        = "/v1/deferrals"
	PathQuarantine       = "/v1/quarantine"
	PathQuarantineClear  = "/v1/quarantine/clear"
	PathAudit            = "/v1/audit"
	PathCertificates     = "/v1/certificates"
	PathRecovery         = "/v1/recovery"
	PathRecoveryEnd      = "/v1/recovery/end"
	PathWatch            = "/v1/watch"
	PathReleaseHook      = "/v1/hooks/release"
)

// Query parameters.
const (
	QueryWait  = "wait"  // of PathDispatch, whole seconds, at most MaxWait
	QueryAfter = "after" // of paged lists, the Next of the page before
	QueryLimit = "limit" // of paged lists, items in a page
)

// Fill returns path with its wildcards replaced by the values, in order and
// escaped, so that a value can never leave its segment. It panics when their
// numbers differ: both are written in the same line of code.
func Fill(path string, values ...string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "{")
		b.WriteString(before)
		if !found {
			break
		}
		_, rest, _ = strings.Cut(rest, "}")
		if len(values) == 0 {
			panic("wire: a wildcard without a value in " + path)
		}
		b.WriteString(escapeSegment(values[0]))
		path, values = rest, values[1:]
	}
	if len(values) > 0 {
		panic("wire: a value without a wildcard in " + path)
	}
	return b.String()
}

// escapeSegment also escapes the dot segments, which url.PathEscape leaves and
// every router resolves.
func escapeSegment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}
