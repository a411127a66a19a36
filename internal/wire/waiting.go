package wire

import "strings"

// WaitingOn is the typed answer to "what is this host waiting for?", the same on
// the socket, in heartbeats, as a metrics label and on the dashboard.
type WaitingOn string

// The values. WaitingOnProbe makes the one that has a name in it.
const (
	WaitingOnNone            WaitingOn = "none"
	WaitingOnControlPlane    WaitingOn = "control-plane"
	WaitingOnCache           WaitingOn = "cache"
	WaitingOnDiskNix         WaitingOn = "disk-nix"
	WaitingOnDiskBoot        WaitingOn = "disk-boot"
	WaitingOnSwitchLock      WaitingOn = "switch-lock"
	WaitingOnClock           WaitingOn = "clock"
	WaitingOnReboot          WaitingOn = "reboot"
	WaitingOnWindow          WaitingOn = "window"
	WaitingOnSoak            WaitingOn = "soak"
	WaitingOnConfirm         WaitingOn = "confirm"
	WaitingOnPersist         WaitingOn = "persist"
	WaitingOnHold            WaitingOn = "hold"
	WaitingOnQuarantine      WaitingOn = "quarantine"
	WaitingOnAcknowledgement WaitingOn = "acknowledgement"
)

const probePrefix = "probe:"

// WaitingOnProbe waits for the named probe to pass.
func WaitingOnProbe(name string) WaitingOn { return WaitingOn(probePrefix + name) }

// Probe returns the name in a value made by WaitingOnProbe.
func (w WaitingOn) Probe() (name string, ok bool) { return strings.CutPrefix(string(w), probePrefix) }

var sentences = map[WaitingOn]string{
	WaitingOnNone:            "Not waiting for anything.",
	WaitingOnControlPlane:    "Waiting for the control plane to answer.",
	WaitingOnCache:           "Waiting for a binary cache that has the closure.",
	WaitingOnDiskNix:         "Waiting for free space on the file system of /nix.",
	WaitingOnDiskBoot:        "Waiting for free space on the boot file system.",
	WaitingOnSwitchLock:      "Waiting for another switch of this machine to end.",
	WaitingOnClock:           "Waiting for a clock that can be believed before a new target is taken.",
	WaitingOnReboot:          "Waiting for a reboot; the new system is staged.",
	WaitingOnWindow:          "Waiting for the reboot window to open.",
	WaitingOnSoak:            "Waiting for the soak to end.",
	WaitingOnConfirm:         "Waiting to reach an uplink from the new system.",
	WaitingOnPersist:         "Waiting to make the new system the boot default.",
	WaitingOnHold:            "Held by an administrator of this machine; new targets are rejected.",
	WaitingOnQuarantine:      "The target failed here before; waiting for another closure, a new attempt, or the quarantine's end.",
	WaitingOnAcknowledgement: "Waiting for the control plane to store the acknowledgement, because the host is in a disruption budget.",
}

// Sentence says it to people. A value of a newer program is said as it is.
func (w WaitingOn) Sentence() string {
	if name, ok := w.Probe(); ok {
		return "Waiting for the probe " + name + " to pass."
	}
	if s, ok := sentences[w]; ok {
		return s
	}
	return "Waiting on " + string(w) + "."
}
