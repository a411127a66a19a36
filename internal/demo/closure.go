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
	etc/restart-service "$closure" 3>&-
	;;
*)
	echo "there is no action $1" >&2
	exit 2
	;;
esac
echo "end $1 $name" >>var/log/switches
`

// restartService is the machine's init system: it lies beside the closures, not
// in them.
const restartService = `#!/bin/sh
exec %s demo-service --restart "$NIXFLEET_ROOT/run/service.pid" "$1" %s %s
`

// file is one file of a closure or a machine.
type file struct {
	path string
	data []byte
	mode os.FileMode
}

// build makes a host's system of a release.
type build func(host, release string) []file

// serving builds systems whose service answers with a status, and whose switch
// program takes some seconds before it changes anything.
func serving(status, switchSecs int) build {
	return func(host, release string) []file {
		service, err := json.Marshal(serviceSpec{Status: status, Body: host + " in release " + release})
		if err != nil {
			panic(err) // a number and a text
		}
		return []file{
			{"bin/switch-to-configuration", fmt.Appendf(nil, switchProgram, switchSecs), 0o755},
			{"system", []byte(hostSystem), 0o644},
			{serviceFile, service, 0o644},
		}
	}
}

// addSystem puts a host's system of a release into the cache.
func addSystem(cache *nix.CacheDir, scratch, host, release string, b build) (fleet.Closure, error) {
	tree, err := os.MkdirTemp(scratch, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tree) // the whole folder goes at the end anyway
	if err := writeFiles(tree, b(host, release)); err != nil {
		return "", err
	}
	base, err := cache.Add("demo-"+host+"-release-"+release, tree)
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
