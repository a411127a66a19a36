// Package buildinfo says which build a program is.
//
// It promises the same answer in every program of one build. It needs nothing:
// what the linker was not told is taken from what the Go tool stamped.
package buildinfo

import (
	"runtime/debug"
	"time"
)

// version is set by packagers: -ldflags "-X nixfleet/internal/buildinfo.version=1.2.3".
var version string

// unknown is the version of a build that nobody stamped.
const unknown = "devel"

// Version names the build: the packager's version, else the module's, else
// the commit (with "+" when there were changes to it), else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	commit := setting(info, "vcs.revision")
	if commit == "" {
		return unknown
	}
	if len(commit) > 12 {
		commit = commit[:12]
	}
	if setting(info, "vcs.modified") == "true" {
		commit += "+"
	}
	return commit
}

// CommitTime is when the source of this build was committed; zero when unknown.
// No clock can be right that is before it.
func CommitTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, setting(info, "vcs.time"))
	if err != nil {
		return time.Time{}
	}
	return at
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
