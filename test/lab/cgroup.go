package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const cgroupPrefix = "nixfleet-lab-"

// hierarchies are the cgroup trees in which systemd keeps its units: the unified
// one, and beside it systemd's own where the machine still has version 1.
func hierarchies() []string {
	var found []string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			found = append(found, dir)
		}
	}
	return found
}

// cgroup makes a group for one host in every hierarchy. Without one, two hosts
// would share the groups of their services of the same name.
func cgroup(host string) ([]string, error) {
	var dirs []string
	for _, h := range hierarchies() {
		dir := filepath.Join(h, fmt.Sprintf("%s%s-%s", cgroupPrefix, os.Getenv(inner), host))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, nil
}

// sweepCgroups removes the groups that this run's hosts left, and those of runs
// that were killed.
func sweepCgroups() {
	for _, h := range hierarchies() {
		left, _ := filepath.Glob(filepath.Join(h, cgroupPrefix+"*")) // the pattern is a constant
		for _, dir := range left {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
			if !ours(owner) {
				continue // another lab lives in it
			}
			var all []string
			_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					all = append(all, path)
				}
				return nil
			})
			for i := len(all) - 1; i >= 0; i-- {
				_ = os.Remove(all[i]) // refused while a process is in it
			}
		}
	}
}
