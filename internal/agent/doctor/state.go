package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"nixfleet/internal/identity"
)

// stateDirectory is where the agent remembers: there, private, and on a disk.
type stateDirectory struct{ path string }

func (stateDirectory) name() string { return "state-directory" }

func (c stateDirectory) look(context.Context) Finding {
	info, err := os.Stat(c.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return wrong(fmt.Sprintf("install -d -m 700 %s; where the root file system does not survive a reboot, keep it on one that does. The agent makes it at its start, if it may", c.path),
			"%s is not there", c.path)
	case err != nil:
		return wrong("run this as the user that the agent runs as: root", "%v", err)
	case !info.IsDir():
		return wrong(fmt.Sprintf("move %s away, or name another folder with --state-dir", c.path), "%s is no folder", c.path)
	}
	if err := identity.CheckPrivate(c.path); err != nil {
		return wrong("chmod 700 "+c.path, "%v", err)
	}
	volatile, err := inMemory(c.path)
	switch {
	case err != nil:
		return wrong("look at the file system of "+c.path, "the file system of %s cannot be asked what it is: %v", c.path, err)
	case volatile:
		return wrong("keep it on a disk: mount one there or name another folder with --state-dir (on NixOS with impermanence, declare it persistent)",
			"%s is in memory and gone at the next reboot, and with it what the agent must not forget", c.path)
	}
	return well("%s is private and on a disk", c.path)
}
