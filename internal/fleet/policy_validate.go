package fleet

import (
	"encoding/base64"
	"errors"
	"strings"
)

// The longest that a document may ask for: ten years.
const (
	maxMinutes = 10 * 366 * 24 * 60
	maxSecs    = 60 * maxMinutes
)

const minutesOfDay = 24 * 60

// validate checks what decides, in fleet documents and in manifests alike: a
// word that is not known here may mean anything, so it is refused.
func (p *Policy) validate(path string, found *problems) {
	found.oneOf(path+".onHealthFailure", p.OnHealthFailure, HealthHalt, HealthRollbackAndHalt)
	found.oneOf(path+".confirm", p.Confirm, ConfirmRequired, ConfirmOff)
	found.oneOf(path+".persist", p.Persist, PersistConfirmed, PersistConverged)
	found.oneOf(path+".reboot", p.Reboot, RebootManual, RebootInWindow)
	found.oneOf(path+".guard", p.Guard, GuardRequired, GuardOptional)
	found.oneOf(path+".onNewRelease", p.OnNewRelease, OnNewSupersede, OnNewQueue)
	found.within(path+".healthFailureSecs", p.HealthFailureSecs, 0, maxSecs)
	found.within(path+".confirmWindowSecs", p.ConfirmWindowSecs, 1, maxSecs)
	found.within(path+".aliveSecs", p.AliveSecs, 1, maxSecs)
	found.within(path+".persistFailureSecs", p.PersistFailureSecs, 1, maxSecs)
	found.within(path+".activationDeadlineSecs", p.ActivationDeadlineSecs, 1, maxSecs)
	found.within(path+".offlineAfterMinutes", p.OfflineAfterMinutes, 1, maxMinutes)
	found.within(path+".haltAfter.hosts", p.HaltAfter.Hosts, 0, maxSecs)
	found.within(path+".haltAfter.pct", p.HaltAfter.Pct, 0, 100)
	for _, secs := range p.SoakSecsByWave {
		found.within(path+".soakSecsByWave", secs, 0, maxSecs)
	}
	p.HealthGate.validate(path+".healthGate", found)
	if p.RebootWindow != nil {
		p.RebootWindow.validate(path+".rebootWindow", found)
	} else if p.Reboot == RebootInWindow {
		found.add(path+".rebootWindow", "reboot is %q, so it must be given", RebootInWindow)
	}
}

func (g HealthGate) validate(path string, found *problems) {
	if units := g.SystemdFailedUnits; units != nil {
		found.within(path+".systemdFailedUnits.max", units.Max, 0, maxSecs)
	}
}

func (w *RebootWindow) validate(path string, found *problems) {
	for _, day := range w.Days {
		found.oneOf(path+".days", day, "mon", "tue", "wed", "thu", "fri", "sat", "sun")
	}
	if !isClockTime(w.Start) {
		found.add(path+".start", "%.80q is not HH:MM", w.Start)
	}
	found.within(path+".minutes", w.Minutes, 1, minutesOfDay)
}

func isClockTime(s string) bool {
	if len(s) != len("HH:MM") || s[2] != ':' {
		return false
	}
	return indexOther(s[:2]+s[3:], digitBytes) < 0 && s[:2] < "24" && s[3:] < "60"
}

func (b Budget) validate(path string, found *problems) {
	if b.MaxInFlight == nil && b.MaxInFlightPct == nil {
		found.add(path, "one of maxInFlight and maxInFlightPct must be given")
	}
	if b.MaxInFlight != nil {
		found.within(path+".maxInFlight", *b.MaxInFlight, 1, maxSecs)
	}
	if b.MaxInFlightPct != nil {
		found.within(path+".maxInFlightPct", *b.MaxInFlightPct, 1, 100)
	}
}

// checkPubkey knows the one kind of host key that evidence is signed with:
// "ssh-ed25519", its base64 form, and perhaps a comment.
func checkPubkey(s string) error {
	const algorithm = "ssh-ed25519"
	fields := strings.Fields(s)
	if len(fields) < 2 || fields[0] != algorithm {
		return errors.New("not an OpenSSH public key of type " + algorithm)
	}
	blob, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return err
	}
	key, ok := strings.CutPrefix(string(blob), "\x00\x00\x00\x0b"+algorithm+"\x00\x00\x00\x20")
	if !ok || len(key) != 32 {
		return errors.New("the base64 part is not an ed25519 key")
	}
	return nil
}
