package core

import (
	"time"

	"nixfleet/internal/controlplane/store"
	"nixfleet/internal/fleet"
	"nixfleet/internal/rollout"
	"nixfleet/internal/trust"
	"nixfleet/internal/wire"
)

// state is what the log folds to, and beside it what hosts' heartbeats say. Only
// apply (fold.go) changes what is folded.
type state struct {
	store store.Store // for events that wait for their rollout
	world *rollout.World

	// Documents: the newest verified bytes of each.
	fleet       *trust.Verified[fleet.Fleet]
	revocations *trust.Verified[fleet.Revocations]
	nonces      *trust.Verified[fleet.Nonces]
	manifests   map[string]*trust.Verified[fleet.Manifest] // by rollout id
	served      map[string]*Served                         // by documentKey
	docsChanged bool

	tracks map[string]map[string]*trackRow // by host, then rollout
	issued map[string]*store.Issuance      // by serial
	burned map[string]*store.Issuance      // by nonce
	latest map[string]*store.Issuance      // by agent

	machines map[string]*machine

	dirty dirty
	stale bool // the store has more, or less, than this
}

// track names the events of one host in one rollout.
type track struct{ rollout, host string }

// trackRow is what is known about a track beside the host's mirrored state.
type trackRow struct {
	// Unmirrored is the last number that was stored while the rollout was not known.
	Unmirrored int64 `json:"unmirrored,omitempty"`
	// Refused counts the events that consumed their number and changed nothing.
	Refused int `json:"refused,omitempty"`
	// Conflict says why the host's numbering contradicts what is stored.
	Conflict string `json:"conflict,omitempty"`
	// Unverified counts events that no declared key could verify.
	Unverified int `json:"unverified,omitempty"`
}

// machine is what a host last said about itself. It decides no rollout's state.
type machine struct {
	*rollout.Machine
	SeenAt time.Time             `json:"seenAt"`
	Report wire.HeartbeatRequest `json:"report"` // merged: a field that was not sent is as it was
	// Enrolment is why it has no certificate; nil when it has one, or said nothing.
	Enrolment *wire.EnrolmentFailure `json:"enrolment,omitempty"`
	written   time.Time              // when the row was last written
	offered   time.Time              // when an order was last handed out
}

func newState(s store.Store) *state {
	return &state{
		store:     s,
		world:     rollout.NewWorld(),
		manifests: map[string]*trust.Verified[fleet.Manifest]{},
		served:    map[string]*Served{},
		tracks:    map[string]map[string]*trackRow{},
		issued:    map[string]*store.Issuance{},
		burned:    map[string]*store.Issuance{},
		latest:    map[string]*store.Issuance{},
		machines:  map[string]*machine{},
		dirty:     newDirty(),
	}
}

// row is a host in a rollout that has been opened; nil otherwise.
func (s *state) row(t track) *rollout.HostRow {
	if r := s.world.Rollouts[t.rollout]; r != nil {
		return r.Host(t.host)
	}
	return nil
}

// lastSeq is the number of the last event that is stored of a track.
func (s *state) lastSeq(t track) int64 {
	if h := s.row(t); h != nil {
		return h.Seq
	}
	if tr := s.known(t); tr != nil {
		return tr.Unmirrored
	}
	return 0
}

// known is what is known about a track; nil when nothing is.
func (s *state) known(t track) *trackRow { return s.tracks[t.host][t.rollout] }

// track is what is known about a track, to be changed.
func (s *state) track(t track) *trackRow {
	s.dirty.tracks[t] = true
	tr := s.known(t)
	if tr == nil {
		tr = &trackRow{}
		s.setTrack(t, tr)
	}
	return tr
}

func (s *state) setTrack(t track, tr *trackRow) {
	if s.tracks[t.host] == nil {
		s.tracks[t.host] = map[string]*trackRow{}
	}
	s.tracks[t.host][t.rollout] = tr
}

// newest is the newest rollout of the host's channel, with its row in it; nil
// when there is none.
func (s *state) newest(host string) (*rollout.Rollout, *rollout.HostRow) {
	if s.fleet == nil {
		return nil, nil
	}
	ch := s.world.Channels[s.fleet.Doc().Hosts[host].Channel]
	if ch == nil {
		return nil, nil
	}
	r := s.world.Rollouts[ch.Newest]
	if r == nil {
		return nil, nil
	}
	return r, r.Host(host)
}

// machine is what is known of a host's machine; it exists from now on.
func (s *state) machine(host string) *machine {
	m := s.machines[host]
	w := s.world.Machines[host]
	if m == nil {
		m = &machine{}
		s.machines[host] = m
	}
	if w == nil {
		w = &rollout.Machine{Seen: s.world.Ready}
		s.world.Machines[host] = w
	}
	m.Machine = w
	return m
}
