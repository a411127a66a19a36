package demo

import (
	"os"
	"path/filepath"
	"strconv"
)

// processes are the living processes of the demo in folder.
func processes(folder string) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// Unreadable: another user's, or gone by now. A zombie's is empty.
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err == nil && marked(string(environ), folder) {
			pids = append(pids, pid)
		}
	}
	return pids
}
