package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// install puts programs into a folder that say they are of a version.
func install(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{agentName, controlPlaneName} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho "+name+" "+version+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProgramsBesideComeFirst(t *testing.T) {
	p := besides(filepath.Join(install(t, "1"), "nixfleet"))
	if !executable(p.Agent) || !executable(p.ControlPlane) || executable(p.Nixfleet) {
		t.Errorf("%+v", p)
	}
}

func TestProgramsInPathMustBeOfTheSameVersion(t *testing.T) {
	bin := install(t, "1.2.3")
	t.Setenv("PATH", bin)
	p, err := FindPrograms(t.Context(), "1.2.3", t.TempDir(), nil)
	if err != nil || p.Agent != filepath.Join(bin, agentName) || p.ControlPlane != filepath.Join(bin, controlPlaneName) {
		t.Errorf("%+v %v", p, err)
	}
	// Of another version, and with nothing to build others with.
	_, err = FindPrograms(t.Context(), "1.2.4", t.TempDir(), nil)
	if err == nil || !strings.Contains(err.Error(), "in version 1.2.4") || !strings.Contains(err.Error(), "there is no go command") {
		t.Error(err)
	}
}

func TestProgramsAreBuiltWhenThereAreNone(t *testing.T) {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(goCommand)+":/usr/bin:/bin")
	said := ""
	dir := filepath.Join(t.TempDir(), "bin")
	p, err := FindPrograms(t.Context(), "none is of this version", dir, func(text string) {
		if _, err := os.Stat(dir); err == nil {
			t.Error("it was said after it had begun")
		}
		said = text
	})
	if err != nil || p.Agent != filepath.Join(dir, agentName) || !executable(p.Agent) || !executable(p.ControlPlane) {
		t.Errorf("%+v %v", p, err)
	}
	if !strings.Contains(said, "building") {
		t.Errorf("it said %q", said)
	}
}
