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

// system is what one release makes of one host.
type system struct {
	status     int // what its service answers
	switchSecs int // how long its switch program takes before it changes anything
}

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

// addSystem builds a host's system of a release and puts it into the cache.
func addSystem(cache *nix.CacheDir, scratch, host, release string, s system) (fleet.Closure, error) {
	tree, err := os.MkdirTemp(scratch, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tree) // the whole folder goes at the end anyway
	service, err := json.Marshal(serviceSpec{Status: s.status, Body: host + " in release " + release})
	if err != nil {
		return "", err
	}
	files := []struct {
		path string
		data []byte
		mode os.FileMode
	}{
		{"bin/switch-to-configuration", fmt.Appendf(nil, switchProgram, s.switchSecs), 0o755},
		{"system", []byte(hostSystem), 0o644},
		{serviceFile, service, 0o644},
	}
	for _, f := range files {
		path := filepath.Join(tree, f.path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(path, f.data, f.mode); err != nil {
			return "", err
		}
	}
	base, err := cache.Add("demo-"+host+"-release-"+release, tree)
	return fleet.Closure(base), err
}

// shellQuote makes one word of a shell out of any text.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
