package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

var update = flag.Bool("update", false, "write testdata/golden anew (not in CI)")

const (
	rollout = "stable@0123456789abcdef0123456789abcdef01234567"
	target  = "00000000000000000000000000000002-nixos-system-web-01-26.05"
	prior   = "00000000000000000000000000000001-nixos-system-web-01-26.05"
	bootID  = "5b0c5d0e-0000-4000-8000-000000000001"
	hash    = "e1db7e399a89e480dec01bcdef2d89b89a56486333c7777de3604fddf4f97090"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// messages is one example of every message, by the name of its golden file.
func messages() map[string]any {
	event := json.RawMessage(`{"kind":"Converged","currentClosure":"` + target + `","soakedSecs":300,"convergedAt":"2026-11-23T12:00:00Z","active":412,"seq":9}`)
	token := json.RawMessage(`{"version":1,"claims":{"hostname":"web-01"},"signature":"c2ln"}`)
	envelope := wire.Envelope{
		Hostname: "web-01", RolloutID: rollout, Event: event, Signature: strings.Repeat("ab", 64),
		BootID: bootID, AgentVersion: "0.1.0", RecordedAt: "2026-11-23T12:00:00Z", Prev: strings.Repeat("0", 64),
	}
	checkpoint := envelope
	checkpoint.SSHSig = "-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----\n"
	flag := &wire.Flag{Who: "alice", Why: "holiday", At: noon}
	failure := &wire.FailureView{Cause: lifecycle.CauseSwitch, Phase: lifecycle.PhaseSwitch, ExitCode: 2, Detail: "web", At: noon, RollbackOwed: true}
	deferral := wire.Deferral{Hostname: "web-01", RolloutID: rollout, Gate: "wave", Reason: "wave 0 is not done", Since: noon}
	reject := &wire.RejectView{Reason: wire.RejectHeld, Detail: "held by root", At: noon, RetryAt: noon.Add(time.Minute)}
	rolloutView := wire.RolloutView{
		RolloutID: rollout, DisplayName: "stable 0123456", Channel: "stable", ChannelRef: rollout[7:], Attempt: 1,
		State: "Active", Since: noon, OpenedAt: noon, Newest: true, Wave: 1, Waves: 2, Hosts: 3,
		ByState: map[string]int{"Converged": 1, "Pending": 2}, Paused: flag, Recovered: flag, Why: "paused",
		PlanHash: hash, FleetResolvedHash: hash, SignedAt: noon, StaleAt: noon.Add(24 * time.Hour),
	}
	return map[string]any{
		"error":     wire.Errorf(wire.SlugForbidden, "agent web-01 may not read web-02"),
		"error-gap": &wire.Error{Slug: wire.SlugGap, Detail: "event 9 came, event 7 is next", ExpectedSeq: 7},

		"order-dispatch": wire.Order{
			OrderID: "o-1", Kind: wire.OrderDispatch, Hostname: "web-01", RolloutID: rollout, TargetClosure: target,
			SoakDueAt: noon.Add(time.Hour), EnqueuedAt: noon, Wave: 1, ManifestHash: hash,
		},
		"order-rollback-signal": wire.Order{
			OrderID: "o-2", Kind: wire.OrderRollbackSignal, Hostname: "web-01", RolloutID: rollout, Reason: "operator", IssuedAt: noon,
		},
		"reject": wire.Reject{OrderID: "o-1", RolloutID: rollout, Reason: wire.RejectClockSuspect, Detail: "the clock is below the floor", RetryAfterSecs: 60},

		"envelope":            envelope,
		"envelope-checkpoint": checkpoint,
		"batch-request":       wire.BatchRequest{Events: []wire.Envelope{envelope}},
		"batch-response": wire.BatchResponse{Results: []wire.BatchResult{
			{Seq: 9, RolloutID: rollout, Status: wire.StatusStored},
			{Seq: 11, RolloutID: rollout, Status: wire.StatusGap, Error: &wire.Error{Slug: wire.SlugGap, Detail: "event 10 is next", ExpectedSeq: 10}},
		}},

		"heartbeat-request-short": wire.HeartbeatRequest{
			Hostname: "web-01", At: noon, BootID: bootID, AckedSeqByRollout: map[string]int64{rollout: 9},
		},
		"heartbeat-request": wire.HeartbeatRequest{
			Hostname: "web-01", RolloutID: rollout, CurrentClosure: target, At: noon, BootID: bootID,
			AckedSeqByRollout: map[string]int64{rollout: 9}, LastSeqByRollout: map[string]int64{rollout: 10},
			AgentVersion: "0.1.0", UptimeSecs: new(int64(3600)), BootedClosure: prior, BootDefault: target, Phase: "soak",
			WaitingOn: []wire.WaitingOn{wire.WaitingOnSoak, wire.WaitingOnProbe("web")}, PendingReboot: new(false), Drifted: new(false),
			OutboxDepth: new(1), DeadLetters: new(0), Clock: &wire.Clock{Synchronized: true, OffsetMs: -12},
			Disk: &wire.Disk{NixFree: 20 << 30, BootFree: 200 << 20}, Probes: map[string]lifecycle.Status{"web": lifecycle.Pass},
		},
		"heartbeat-response": wire.HeartbeatResponse{
			ReceivedAt: noon, NextHeartbeatSecs: 60, Replay: []wire.Replay{{RolloutID: rollout, FromSeq: 3}},
			Documents:         &wire.Documents{Fleet: `"f-1"`, Manifest: `"m-1"`, Rollout: "stable@0000000000000000000000000000000000000001"},
			BootstrapRollouts: []wire.BootstrapRollout{{RolloutID: rollout, LastEventSeq: 9}},
		},

		"enroll-request":       wire.EnrollRequest{Token: token, CSRPem: "-----BEGIN CERTIFICATE REQUEST-----\n"},
		"renew-request":        wire.RenewRequest{CSRPem: "-----BEGIN CERTIFICATE REQUEST-----\n"},
		"certificate-response": wire.CertificateResponse{CertPem: "-----BEGIN CERTIFICATE-----\n", NotAfter: noon},
		"bootstrap-report": wire.BootstrapReport{
			Token: token, AgentVersion: "0.1.0", OccurredAt: noon,
			Event: wire.BootstrapEvent{Kind: wire.BootstrapTrustError, Reason: "the certificate is for another key"},
		},
		"whoami-agent":    wire.Whoami{CN: "agent-web-01.fleet", Role: "agent", Host: "web-01", NotAfter: noon},
		"whoami-operator": wire.Whoami{CN: "alice", Role: "operator", NotAfter: noon},

		"health":    wire.Health{OK: true, Version: "0.1.0", Ready: true, LastPlanAt: noon},
		"readiness": wire.Readiness{Ready: false, Awaiting: []string{"a verified fleet document"}},

		"hosts-page": wire.NewPage([]wire.HostView{{
			Hostname: "web-01", System: "x86_64-linux", Channel: "stable", Tags: []string{"web"},
			RolloutID: rollout, Wave: 1, State: lifecycle.Soaking, Since: noon, Target: target, Prior: prior,
			Conditions: []string{wire.ConditionDrifted}, Failure: failure, Deferral: &deferral, Reject: reject,
			Current: target, Booted: prior, BootDefault: prior, BootID: bootID, UptimeSecs: 3600, LastSeenAt: noon,
			AgentVersion: "0.1.0", Phase: "soak", WaitingOn: []wire.WaitingOn{wire.WaitingOnSoak}, OutboxDepth: 1, DeadLetters: 2,
			LastSeq: 7, ClockOffsetMs: -12, NixFree: 1 << 30, BootFree: 1 << 20,
			Probes: map[string]lifecycle.Status{"web": lifecycle.Pass}, CertificateNotAfter: noon, Enrolment: &wire.EnrolmentFailure{Kind: wire.BootstrapEnrollmentFailed, Reason: "token expired", OccurredAt: noon, At: noon, AgentVersion: "0.1.0"}, Why: wire.WaitingOnSoak.Sentence(),
		}}, "web-01"),
		"empty-page":    wire.NewPage[wire.HostView](nil, ""),
		"events-page":   wire.NewPage([]wire.EventView{{LogID: 12, Hostname: "web-01", RolloutID: rollout, Seq: 9, Kind: lifecycle.KindConverged, Verdict: "refused", Detail: "not declared", ReceivedAt: noon, Event: event}}, ""),
		"evidence-page": wire.NewPage([]wire.EvidenceItem{{LogID: 12, ReceivedAt: noon, Envelope: envelope}}, "12"),
		"rollouts-page": wire.NewPage([]wire.RolloutView{rolloutView}, ""),
		"rollout-lifecycle": wire.RolloutLifecycle{
			RolloutView: rolloutView,
			WaveList:    []wire.WaveView{{Index: 0, SoakSecs: 300, Hosts: 1, ByState: map[string]int{"Converged": 1}, Done: true}},
			Transitions: []wire.RolloutStep{{At: noon, Action: "opened", From: "Opening", To: "Active", Host: "web-01", Who: "alice", Why: "a new fleet document"}},
		},
		"rollout-hosts-page": wire.NewPage([]wire.RolloutHost{{
			Hostname: "web-01", Wave: 1, Target: target, Prior: prior, State: lifecycle.Converged, Since: noon,
			Conditions: []string{wire.ConditionUnhealthy}, Failure: failure, Deferral: &deferral, Reject: reject, LastSeq: 9,
			DeliveredAt: noon, SwitchedAt: noon, ConfirmedAt: noon, EndedAt: noon, SoakedSecs: 300,
		}}, ""),
		"channel": wire.ChannelView{
			Channel: "stable", RolloutID: rollout, State: "Active", Hosts: 3, Converged: 1, Paused: flag,
			FreshnessWindowMinutes: 1440, SignedAt: noon, StaleAt: noon, Why: "paused",
		},
		"deferrals-page":           wire.NewPage([]wire.Deferral{deferral}, ""),
		"quarantine-page":          wire.NewPage([]wire.QuarantineView{{Channel: "stable", Closure: target, RolloutID: rollout, Hostname: "web-01", Cause: lifecycle.CauseProbes, FirstSignedAt: noon, At: noon}}, ""),
		"audit-page":               wire.NewPage([]wire.AuditView{{LogID: 3, At: noon, Who: "alice", Action: "pause", Subject: "stable", Why: "holiday"}}, ""),
		"certificates-page":        wire.NewPage([]wire.CertificateView{{Serial: "0a", Role: "agent", Name: "web-01", KeyFingerprint: "V+2R", NotBefore: noon, NotAfter: noon, Requester: "token", Revoked: true}}, ""),
		"recovery":                 wire.RecoveryView{Recovering: true, Since: noon, Why: "an unknown certificate", Hosts: []wire.RecoveryHost{{Hostname: "web-01", RolloutID: rollout, StoredSeq: 3, AckedSeq: 9, Replayed: false}}},
		"watch-event":              wire.WatchEvent{Topic: wire.WatchHost, Name: "web-01"},
		"action-request":           wire.ActionRequest{Why: "disk was full", Hosts: []string{"web-01"}},
		"rollback-response":        wire.RollbackResponse{GoingBack: []string{"web-01"}, Staying: []string{"web-02"}, Command: "nixfleet release --again stable"},
		"quarantine-clear-request": wire.QuarantineClearRequest{Why: "fixed", Channel: "stable", Closure: target},
	}
}

// TestGolden holds every message to its published form, in both directions.
func TestGolden(t *testing.T) {
	for name, message := range messages() {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, name, got)

			back := reflect.New(reflect.Indirect(reflect.ValueOf(message)).Type())
			if err := json.Unmarshal(got, back.Interface()); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(back.Interface())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, again) {
				t.Errorf("decoded and encoded again:\n%s\nwas:\n%s", again, got)
			}
		})
	}
}

// TestGoldenComplete finds a file that no test reads any more.
func TestGoldenComplete(t *testing.T) {
	known := messages()
	for kind := range bodies() {
		known["event-"+string(kind)] = nil
	}
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		if _, ok := known[name]; !ok {
			t.Errorf("%s belongs to no message", file)
		}
	}
}

// TestEveryFieldInGolden fails when a field was added that no example shows. A
// field that is always sent shows itself.
func TestEveryFieldInGolden(t *testing.T) {
	shown := map[string]map[string]bool{}
	for _, message := range messages() {
		collect(reflect.ValueOf(message), shown)
	}
	for typ, fields := range shown {
		for field, set := range fields {
			if !set {
				t.Errorf("%s.%s is in no golden file", typ, field)
			}
		}
	}
}

// collect notes for each optional field of each type whether any example sets it.
// All pages count as one type.
func collect(v reflect.Value, shown map[string]map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			collect(v.Elem(), shown)
		}
	case reflect.Slice:
		for i := range v.Len() {
			collect(v.Index(i), shown)
		}
	case reflect.Struct:
		if v.Type().PkgPath() != "nixfleet/internal/wire" {
			return
		}
		name, _, _ := strings.Cut(v.Type().Name(), "[")
		if shown[name] == nil {
			shown[name] = map[string]bool{}
		}
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if strings.Contains(field.Tag.Get("json"), ",omit") {
				shown[name][field.Name] = shown[name][field.Name] || !v.Field(i).IsZero()
			}
			collect(v.Field(i), shown)
		}
	}
}

func compare(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", "golden", name+".json")
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, got, "", "  "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	if *update {
		if os.Getenv("CI") == "true" {
			t.Fatal("golden files are not written in CI")
		}
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, pretty.Bytes()) {
		t.Errorf("%s is now\n%s\nwas\n%s", name, pretty.Bytes(), want)
	}
}
