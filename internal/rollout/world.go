// Package rollout decides, for a whole fleet, what the control plane does next:
// which rollouts open, which hosts may be handed an order, which are waited for,
// when a rollout halts and when it is finished.
//
// It promises that the same World gives the same Plan, in the same order, and
// that every change to a World goes through three functions, so that a database
// that is rebuilt from its log comes out the same:
//
//   - Apply, for what the planner decided and for what an operator asked;
//   - Record, for what lifecycle.Step made of a host's event;
//   - Publish, for a verified release.
//
// What it needs from its caller, the control plane's core:
//
//  1. Every document in a Release was verified, its policy completed.
//  2. Actions are applied in the order in which Plan gave them, before the next
//     Plan, and are committed in the transaction that they take effect in. Plan
//     is called again until it yields nothing.
//  3. An order is handed out after the Delivered that recorded it was committed.
//  4. Ready grows only while the control plane could have heard from its hosts.
//  5. A DispatchAck is stored only when MayAcknowledge says so.
//
// It never reads a clock, starts nothing, stores nothing and talks to nobody.
package rollout

import (
	"time"

	"nixfleet/internal/fleet"
)

// World is all that planning depends on. One goroutine owns it.
type World struct {
	// Ready is the planner's own ready time: how long, over all its lives, it
	// was able to hear from hosts. Every silence and every retry is measured in
	// it, so that an outage of the control plane makes no host look offline.
	Ready time.Duration `json:"ready"`

	// Recovery is set while the database may know less than the hosts do.
	Recovery *Flag `json:"recovery,omitempty"`

	Release     *Release            `json:"-"` // the newest verified one; nil before the first
	Channels    map[string]*Channel `json:"channels"`
	Rollouts    map[string]*Rollout `json:"rollouts"` // by id, pruned ones excepted
	Machines    map[string]*Machine `json:"machines"`
	Quarantines []Quarantine        `json:"quarantines,omitempty"` // in the order in which they arose
	Forgotten   map[string]Flag     `json:"forgotten,omitempty"`
	// GivenBefore is when a host was forgotten last. What it was given before
	// that never counts again, also once it is enrolled anew.
	GivenBefore map[string]time.Time `json:"givenBefore,omitempty"`
	Tombstones  map[string]string    `json:"tombstones,omitempty"` // planHash of every pruned rollout, by id
	LastOpening int64                `json:"lastOpening"`          // Opening of the rollout that was opened last

	index *index // what Plan has worked out about the plans of the newest rollouts
}

// NewWorld is a world in which nothing has happened.
func NewWorld() *World {
	return &World{
		Channels:    map[string]*Channel{},
		Rollouts:    map[string]*Rollout{},
		Machines:    map[string]*Machine{},
		Forgotten:   map[string]Flag{},
		GivenBefore: map[string]time.Time{},
		Tombstones:  map[string]string{},
	}
}

// Flag is who set something, why and when.
type Flag struct {
	Who string    `json:"who,omitempty"`
	Why string    `json:"why,omitempty"`
	At  time.Time `json:"at"`
}

// Channel is a channel as the planner sees it.
type Channel struct {
	Newest string `json:"newest"`           // id of the rollout that was opened last
	Paused *Flag  `json:"paused,omitempty"` // belongs to the channel and outlives a push
}

// Machine is what a host's connections and heartbeats show. It is kept in
// memory, is not rebuilt from the log, and decides nothing that would have to be.
type Machine struct {
	Parked bool `json:"-"` // a poll waits for an order now

	// Seen is the ready time at which the host was last heard; of a host that
	// never was, the ready time at which it was first declared.
	Seen time.Duration `json:"seen"`

	// The last heartbeat: when it came (ready time, 0 for none yet), the systems that
	// it showed, and the last sequence number of each rollout that the host knows.
	HeartbeatAt time.Duration    `json:"heartbeatAt"`
	Current     fleet.Closure    `json:"current,omitempty"`
	BootDefault fleet.Closure    `json:"bootDefault,omitempty"`
	LastSeq     map[string]int64 `json:"lastSeq,omitempty"`

	// Eased is the ready time at which a heartbeat last showed that a hold, a
	// clock trouble or a full disk had ended: a rejected order is offered anew.
	Eased time.Duration `json:"eased,omitempty"`
}

// Release is one verified fleet document with the verified manifests that were
// published with it. A manifest of another fleet document does not belong here.
type Release struct {
	Fleet     *fleet.Fleet
	FleetHash string // hex SHA-256 of the canonical fleet document
	SignedAt  time.Time
	Manifests map[string]Manifest // by channel

	reached map[string]bool // channels with a host that something was built for
}

// Manifest is a verified manifest, its policy completed.
type Manifest struct {
	Doc      *fleet.Manifest
	PlanHash string
	SignedAt time.Time
}

// Quarantine bars a closure from a channel, because a host gave it up.
type Quarantine struct {
	Channel       string        `json:"channel"`
	Closure       fleet.Closure `json:"closure"`
	Rollout       string        `json:"rollout"` // where it failed
	Host          string        `json:"host"`
	FirstSignedAt time.Time     `json:"firstSignedAt"` // of that rollout's manifest
}
