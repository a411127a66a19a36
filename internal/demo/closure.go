package demo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nixfleet/internal/fleet"
	"nixfleet/internal/nix"
)

// switchProgram is the switch program of a demo's systems: what that of NixOS
// does, for a machine that is a directory. Its unit's lock, descriptor 3, is not
// for the service, which outlives the unit.
const switchProgram = `#!/bin/sh
set -eu
closure=$(cd "$(dirname "$0")/.." && pwd -P)
name=${closure##*/}
cd "$NIXFLEET_ROOT"
echo "begin $1 $name" >>var/log/switches
case $1 in
boot)
	echo "/nix/store/$name" >boot/.new-default
	mv boot/.new-default boot/default
	;;
test)
	sleep %d
	ln -sfn "../nix/store/$name" run/current-system
	etc/restart-services "$closure" 3>&-
	;;
*)
	echo "there is no action $1" >&2
	exit 2
	;;
esac
echo "end $1 $name" >>var/log/switches
`

// restartServices is the machine's init system: it lies beside the closures, not
// in them.
const restartServices = `#!/bin/sh
exec %s demo-services "$NIXFLEET_ROOT" "$1"
`

// file is one file of a closure or a machine.
type file struct {
	path string
	data []byte
	mode os.FileMode
}

// system is what a host's system of a release is built for.
type system struct {
	host, release string
	routes        routes // of the network that it is to run in
}

// build makes a system.
type build func(system) []file

// serving builds systems whose web service answers with a status, and whose switch
// program takes some seconds before it changes anything.
func serving(status, switchSecs int) build {
	return func(s system) []file {
		return []file{
			{"bin/switch-to-configuration", fmt.Appendf(nil, switchProgram, switchSecs), 0o755},
			{"system", []byte(hostSystem), 0o644},
			{webFile, settings(webSettings{Status: status, Body: s.host + " in release " + s.release}), 0o644},
			{networkFile, settings(networkSettings{Routes: s.routes}), 0o644},
		}
	}
}

// cutOff builds what b does, but for a network that leads nowhere.
func cutOff(b build) build {
	return func(s system) []file {
		s.routes = nil
		return b(s)
	}
}

func settings(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // numbers and texts
	}
	return raw
}

// addSystem puts a system into the cache.
func addSystem(cache *nix.CacheDir, scratch string, s system, b build) (fleet.Closure, error) {
	tree, err := os.MkdirTemp(scratch, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tree) // the whole folder goes at the end anyway
	if err := writeFiles(tree, b(s)); err != nil {
		return "", err
	}
	base, err := cache.Add("demo-"+s.host+"-release-"+s.release, tree)
	return fleet.Closure(base), err
}

// writeFiles writes files below a folder.
func writeFiles(folder string, files []file) error {
	for _, f := range files {
		path := filepath.Join(folder, filepath.FromSlash(f.path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// shellQuote makes one word of a shell out of any text.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
