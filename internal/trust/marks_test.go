package trust_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"nixfleet/internal/trust"
)

func at(minute int) trust.Mark {
	return trust.Mark{SignedAt: noon.Add(time.Duration(minute) * time.Minute), Hash: strings.Repeat("a", minute)}
}

var someMarks = trust.Marks{
	Manifest: at(1), Fleet: at(2), Revocations: at(3), Nonces: at(4),
	Channels:   map[string]trust.Mark{"stable": at(5), "edge": at(6)},
	ClockFloor: noon, ChainLength: 7, ChainHead: strings.Repeat("f", 64),
}

func TestMarksFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "marks.json")
	if _, err := trust.LoadMarks(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("without a file: %v", err)
	}
	for _, want := range []trust.Marks{someMarks, {}, {Manifest: at(9)}} {
		if err := want.Save(path); err != nil {
			t.Fatal(err)
		}
		if got, err := trust.LoadMarks(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("beside the marks: %v, %v", files, err)
	}
}

// A file that cannot be read is not a file that says nothing.
func TestDamagedMarksFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks.json")
	for _, text := range []string{"", "{", `{"manifest":1}`, `{"clockFloor":"now"}`, "\x00\x00\x00"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := trust.LoadMarks(path); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %+v, %v", text, m, err)
		}
	}
}

func TestSaveMarksFails(t *testing.T) {
	dir := t.TempDir()
	if err := someMarks.Save(filepath.Join(dir, "missing", "marks.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(taken, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := someMarks.Save(taken); err == nil {
		t.Error("a folder was replaced")
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("what failed left %v, %v", files, err)
	}
	if err := (trust.Marks{ClockFloor: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}).Save(filepath.Join(dir, "m")); err == nil {
		t.Error("a date that JSON cannot hold was saved")
	}
}

// Losing either of the two places loses no mark.
func TestMarksSurviveTheLossOfOne(t *testing.T) {
	for _, got := range []trust.Marks{
		someMarks.Higher(trust.Marks{}),
		trust.Marks{}.Higher(someMarks),
		someMarks.Higher(someMarks),
	} {
		if !reflect.DeepEqual(got, someMarks) {
			t.Errorf("%+v", got)
		}
	}
}

func TestHigherMarkWinsEachForItself(t *testing.T) {
	a := trust.Marks{Manifest: at(9), Fleet: at(1), Channels: map[string]trust.Mark{"stable": at(1), "edge": at(9)}, ClockFloor: noon, ChainLength: 1, ChainHead: "a"}
	b := trust.Marks{Manifest: at(1), Fleet: at(9), Channels: map[string]trust.Mark{"stable": at(9), "beta": at(2)}, ClockFloor: noon.Add(1), ChainLength: 2, ChainHead: "b"}
	want := trust.Marks{Manifest: at(9), Fleet: at(9), Channels: map[string]trust.Mark{"stable": at(9), "edge": at(9), "beta": at(2)}, ClockFloor: noon.Add(1), ChainLength: 2, ChainHead: "b"}
	if got := a.Higher(b); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := b.Higher(a); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if len(a.Channels) != 2 || len(b.Channels) != 2 {
		t.Error("an argument was changed")
	}
	first, second := trust.Mark{SignedAt: noon, Hash: "1"}, trust.Mark{SignedAt: noon, Hash: "2"}
	if first.Higher(second) != first {
		t.Error("of equals the second won")
	}
}

// The floor is the newest of what is known to have been.
func TestClockFloor(t *testing.T) {
	build := noon.Add(-time.Hour)
	if got := (trust.Marks{}).Floor(build); !got.Equal(build) {
		t.Errorf("floor %s", got)
	}
	for name, m := range map[string]trust.Marks{
		"manifest":    {Manifest: at(1), Fleet: at(0)},
		"channel":     {Channels: map[string]trust.Mark{"a": at(0), "b": at(1)}},
		"fleet":       {Fleet: at(1)},
		"revocations": {Revocations: at(1), Manifest: at(0)},
		"nonces":      {Nonces: at(1)},
		"clock":       {ClockFloor: at(1).SignedAt, Manifest: at(0)},
	} {
		if got := m.Floor(build); !got.Equal(at(1).SignedAt) {
			t.Errorf("%s: floor %s", name, got)
		}
	}
}
