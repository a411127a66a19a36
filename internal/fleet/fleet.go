// Package fleet holds the signed documents as Go types, and the pure functions
// that turn a fleet into rollout manifests.
//
// It promises that the same fleet gives the same manifests on every machine,
// and that every refusal names the host or the field. It needs verified bytes
// from its caller: nothing here checks a signature (package trust does), and
// nothing here is ever re-serialised in order to be hashed.
package fleet

import "time"

// SchemaVersion is the version of every signed document that this program
// understands.
const SchemaVersion = 1

// Fleet is fleet.resolved.json: what the owner of the fleet declared.
type Fleet struct {
	SchemaVersion     int                      `json:"schemaVersion"`
	Hosts             map[string]Host          `json:"hosts"`
	Channels          map[string]Channel       `json:"channels"`
	RolloutPolicies   map[string]RolloutPolicy `json:"rolloutPolicies"`
	Waves             map[string][]Wave        `json:"waves"` // by channel
	Edges             []Edge                   `json:"edges"`
	ChannelEdges      []Edge                   `json:"channelEdges"`
	DisruptionBudgets []Budget                 `json:"disruptionBudgets"`
	Meta              Meta                     `json:"meta"`
}

// Host is one declared machine.
type Host struct {
	System      string   `json:"system"`
	Tags        []string `json:"tags"`
	Channel     string   `json:"channel"`
	ClosureHash *Closure `json:"closureHash"` // null: nothing was built for it, it is in no rollout
	Pubkey      *string  `json:"pubkey"`      // OpenSSH "ssh-ed25519 AAAA… comment"
	Pin         *Pin     `json:"pin,omitempty"`
}

// Pin holds a host on one commit.
type Pin struct {
	Commit    string     `json:"commit"`
	Reason    string     `json:"reason"`
	ExpiresAt *time.Time `json:"expiresAt,omitempty"`
}

// Channel is a stream of releases that hosts follow.
type Channel struct {
	RolloutPolicy            string     `json:"rolloutPolicy"`
	ReconcileIntervalMinutes int        `json:"reconcileIntervalMinutes"`
	FreshnessWindow          int        `json:"freshnessWindow"` // minutes
	SigningIntervalMinutes   int        `json:"signingIntervalMinutes"`
	Compliance               Compliance `json:"compliance"`
}

// What evidence of compliance counts for on a channel's hosts: all that its probes
// say, nothing but a report, or nothing at all.
const (
	ComplianceEnforce    = "enforce"
	CompliancePermissive = "permissive"
	ComplianceDisabled   = "disabled"
)

// Compliance is what a channel's hosts must prove.
type Compliance struct {
	Frameworks []string `json:"frameworks"`
	Mode       string   `json:"mode"` // disabled, permissive, enforce
}

// RolloutPolicy is a policy as the fleet document declares it: the published
// fields, and beside them every field of Policy but SoakSecsByWave, which is
// for manifests only.
type RolloutPolicy struct {
	Strategy string       `json:"strategy"`
	Waves    []PolicyWave `json:"waves"`
	Policy
}

// PolicyWave selects the hosts of one wave. SoakSecs, when present, wins over
// SoakMinutes.
type PolicyWave struct {
	Selector    Selector `json:"selector"`
	SoakMinutes int      `json:"soakMinutes"`
	SoakSecs    *int     `json:"soakSecs,omitempty"`
}

// Wave is a resolved wave of a channel. Its own SoakSecs wins over that of the
// policy's wave of the same number, and both over SoakMinutes.
type Wave struct {
	Hosts       []string `json:"hosts"`
	SoakMinutes int      `json:"soakMinutes"`
	SoakSecs    *int     `json:"soakSecs,omitempty"`
}

// Edge orders two hosts of a channel, or two channels: Gates goes first, Gated
// waits for it. Channel edges are also read with the names before and after.
type Edge struct {
	Gated  string `json:"gated"`
	Gates  string `json:"gates"`
	Reason string `json:"reason,omitempty"`
}

// Selector matches a host when any of its clauses does: all of Tags (when there
// is one), any of TagsAny, a name in Hosts, the Channel, or All.
type Selector struct {
	Tags    []string `json:"tags"`
	TagsAny []string `json:"tagsAny"`
	Hosts   []string `json:"hosts"`
	Channel *string  `json:"channel"`
	All     bool     `json:"all"`
}

// Budget limits how many of the selected hosts may be disrupted at once. In a
// manifest Hosts is the resolved, sorted list. At least one of the limits is set.
type Budget struct {
	Selector       Selector `json:"selector"`
	Hosts          []string `json:"hosts,omitempty"`
	MaxInFlight    *int     `json:"maxInFlight"`
	MaxInFlightPct *int     `json:"maxInFlightPct"`
}

// Meta is the signing metadata of a document.
type Meta struct {
	SchemaVersion      int        `json:"schemaVersion"`
	SignedAt           *time.Time `json:"signedAt"`
	CICommit           *string    `json:"ciCommit"`
	SignatureAlgorithm string     `json:"signatureAlgorithm,omitempty"`
}

// Manifest is rollouts/<rolloutId>.json: the frozen plan of one channel's
// release. Policy is nil when an older producer left it out; it is then
// completed from the fleet document that FleetResolvedHash names.
type Manifest struct {
	SchemaVersion          int               `json:"schemaVersion"`
	DisplayName            string            `json:"displayName"`
	Channel                string            `json:"channel"`
	ChannelRef             string            `json:"channelRef"`
	FleetResolvedHash      string            `json:"fleetResolvedHash"` // hex SHA-256 of the canonical fleet
	HostSet                []Target          `json:"hostSet"`           // sorted by hostname
	HealthGate             HealthGate        `json:"healthGate"`
	ComplianceFrameworks   []string          `json:"complianceFrameworks"`
	DisruptionBudgets      []Budget          `json:"disruptionBudgets"`
	Policy                 *Policy           `json:"policy,omitempty"`
	Edges                  []Edge            `json:"edges,omitempty"`
	ChannelEdges           []Edge            `json:"channelEdges,omitempty"`
	ComplianceMode         string            `json:"complianceMode,omitempty"`
	FreshnessWindowMinutes int               `json:"freshnessWindowMinutes,omitzero"`
	HostKeys               map[string]string `json:"hostKeys,omitempty"`
	Attempt                int               `json:"attempt,omitzero"` // absent means 1
	Meta                   Meta              `json:"meta"`
}

// Target is what one host of a rollout is to run, and in which wave.
type Target struct {
	Hostname      string  `json:"hostname"`
	WaveIndex     int     `json:"waveIndex"`
	TargetClosure Closure `json:"targetClosure"`
}

// Revocations is revocations.json.
type Revocations struct {
	SchemaVersion int          `json:"schemaVersion"`
	Revocations   []Revocation `json:"revocations"`
	Meta          Meta         `json:"meta"`
}

// Revocation refuses a host's certificates issued before NotBefore and, with a
// KeyFingerprint, that key for good.
type Revocation struct {
	Hostname       string    `json:"hostname"`
	NotBefore      time.Time `json:"notBefore"`
	Reason         string    `json:"reason,omitempty"`
	RevokedBy      string    `json:"revokedBy,omitempty"`
	KeyFingerprint string    `json:"keyFingerprint,omitempty"`
}

// Nonces is bootstrap-nonces.json: the bootstrap tokens that may be used.
type Nonces struct {
	SchemaVersion int     `json:"schemaVersion"`
	Nonces        []Nonce `json:"nonces"`
	Meta          Meta    `json:"meta"`
}

// Nonce allows one bootstrap token for one host.
type Nonce struct {
	Nonce     string    `json:"nonce"` // 32 hex digits
	Hostname  string    `json:"hostname"`
	ExpiresAt time.Time `json:"expiresAt"`
}
