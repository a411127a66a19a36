//go:build !linux

package demo

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// processes are the living processes of the demo in folder.
func processes(folder string) []int {
	out, err := exec.Command("ps", "-axEww", "-o", "pid=,command=").Output()
	if err != nil {
		return nil
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		field, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, err := strconv.Atoi(field)
		if err == nil && slices.ContainsFunc(marks, func(name string) bool {
			return strings.Contains(rest, " "+name+"="+folder+"/")
		}) {
			pids = append(pids, pid)
		}
	}
	return pids
}
