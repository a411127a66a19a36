package api

import (
	"net/http"

	"nixfleet/internal/wire"
)

// route is one method of one path.
type route struct {
	method, path string
	who          access
	protocol     bool  // the version header is required
	limit        int64 // of the body in bytes; 0: none is read
	handle       func(http.ResponseWriter, *http.Request, caller) error
}

// routes is every route that there is.
func (a *API) routes() []route {
	get := func(path string, who access, handle func(http.ResponseWriter, *http.Request, caller) error) route {
		return route{method: http.MethodGet, path: path, who: who, handle: handle}
	}
	post := func(path string, who access, limit int64, handle func(http.ResponseWriter, *http.Request, caller) error) route {
		return route{method: http.MethodPost, path: path, who: who, limit: limit, handle: handle}
	}
	agent := func(rt route) route {
		rt.protocol = true
		return rt
	}
	return []route{
		get(wire.PathHealthz, anyone, a.healthz),
		get(wire.PathReadyz, anyone, a.readyz),
		get(wire.PathMetrics, operators, a.metrics),

		agent(post(wire.PathEnroll, anyone, wire.MaxBody, a.enroll)),
		agent(post(wire.PathBootstrapReport, anyone, wire.MaxBody, a.bootstrapReport)),
		agent(post(wire.PathRenew, renewers, wire.MaxBody, a.renew)),
		agent(get(wire.PathDispatch, agents, a.dispatch)),
		agent(post(wire.PathReject, agents, wire.MaxBody, a.reject)),
		agent(post(wire.PathEvents, agents, wire.MaxEventBody, a.event)),
		agent(post(wire.PathEventsBatch, agents, wire.MaxBatchBody, a.events)),
		agent(post(wire.PathHeartbeat, agents, wire.MaxBody, a.heartbeat)),
		agent(get(wire.PathClosure, agents, a.closure)),

		get(wire.PathFleet, members, a.fleet),
		get(wire.PathFleetSig, members, a.fleetSig),
		get(wire.PathManifest, members, a.manifest),
		get(wire.PathManifestSig, members, a.manifestSig),
		get(wire.PathWhoami, holders, a.whoami),

		get(wire.PathHosts, operators, a.hosts),
		get(wire.PathHost, operators, a.host),
		get(wire.PathHostEvents, operators, a.hostEvents),
		get(wire.PathHostEvidence, operators, a.hostEvidence),
		post(wire.PathHostForget, operators, wire.MaxBody, a.forget),
		get(wire.PathChannels, operators, a.channels),
		get(wire.PathChannel, operators, a.channel),
		post(wire.PathChannelPause, operators, wire.MaxBody, a.pause),
		post(wire.PathChannelResume, operators, wire.MaxBody, a.unpause),
		get(wire.PathRollouts, operators, a.rollouts),
		get(wire.PathRolloutLifecycle, operators, a.rolloutLifecycle),
		get(wire.PathRolloutHosts, operators, a.rolloutHosts),
		get(wire.PathRolloutEvents, operators, a.rolloutEvents),
		post(wire.PathRolloutRollback, operators, wire.MaxBody, a.rollback),
		post(wire.PathRolloutResume, operators, wire.MaxBody, a.resume),
		post(wire.PathRolloutSkip, operators, wire.MaxBody, a.skip),
		post(wire.PathRolloutAdvance, operators, wire.MaxBody, a.advance),
		get(wire.PathDeferrals, operators, a.deferrals),
		get(wire.PathQuarantine, operators, a.quarantine),
		post(wire.PathQuarantineClear, operators, wire.MaxBody, a.clearQuarantine),
		get(wire.PathAudit, operators, a.audit),
		get(wire.PathCertificates, operators, a.certificates),
		get(wire.PathRecovery, operators, a.recovery),
		post(wire.PathRecoveryEnd, operators, wire.MaxBody, a.endRecovery),
	}
}
