package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Flocked tells whether some process holds a flock of the file, without taking
// one: a switch program asks for its lock without waiting, so that even a shared
// lock held for a moment would make another's switch fail.
func Flocked(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // nobody locks what nobody made
	}
	if err != nil {
		return false, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return false, err
	}
	return flockListed(locks, fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)), nil
}

// flockListed looks in the text of /proc/locks for a flock of the file. A line
// is "1: FLOCK ADVISORY WRITE 708 08:01:1234 0 EOF"; waiters have "->" behind
// the number.
func flockListed(locks []byte, file string) bool {
	for lines := bufio.NewScanner(bytes.NewReader(locks)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 6 && fields[1] == "FLOCK" && fields[5] == file {
			return true
		}
	}
	return false
}
