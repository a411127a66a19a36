package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Programs are the paths of the programs that a demo runs.
type Programs struct {
	Nixfleet     string // serves as the machines' service and as the reaper
	Agent        string
	ControlPlane string
}

const (
	agentName        = "nixfleet-agent"
	controlPlaneName = "nixfleet-control-plane"
)

// FindPrograms finds the agent and the control plane that belong to the running
// nixfleet: beside it, else in PATH in the same version, else built from the
// module's source into dir. Building takes minutes the first time, so it is said
// before it begins.
func FindPrograms(ctx context.Context, version, dir string, say func(string)) (Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return Programs{}, fmt.Errorf("find the running program: %w", err)
	}
	if real, err := filepath.EvalSymlinks(self); err == nil {
		self = real
	}
	p := besides(self)
	if executable(p.Agent) && executable(p.ControlPlane) {
		return p, nil
	}
	if agent, ok := inPath(ctx, agentName, version); ok {
		if cp, ok := inPath(ctx, controlPlaneName, version); ok {
			return Programs{Nixfleet: self, Agent: agent, ControlPlane: cp}, nil
		}
	}
	source, err := moduleSource()
	if err != nil {
		return Programs{}, fmt.Errorf("%s and %s are neither beside %s nor in PATH in version %s, and cannot be built: %w; install them beside it, or run this in nixfleet's source", agentName, controlPlaneName, self, version, err)
	}
	say("building " + agentName + " and " + controlPlaneName + " (the first time this takes minutes)")
	if err := compile(ctx, source, dir); err != nil {
		return Programs{}, err
	}
	return Programs{Nixfleet: self, Agent: filepath.Join(dir, agentName), ControlPlane: filepath.Join(dir, controlPlaneName)}, nil
}

func besides(self string) Programs {
	dir := filepath.Dir(self)
	return Programs{Nixfleet: self, Agent: filepath.Join(dir, agentName), ControlPlane: filepath.Join(dir, controlPlaneName)}
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// inPath finds a program in PATH that says it is of this version.
func inPath(ctx context.Context, name, version string) (string, bool) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", false
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", false
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", false
	}
	fields := strings.Fields(string(out))
	return path, len(fields) > 0 && fields[len(fields)-1] == version
}

// moduleSource finds the source of this module: where this file was compiled
// from, else the working directory or a folder above it.
func moduleSource() (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("there is no go command")
	}
	var starts []string
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		starts = append(starts, filepath.Dir(file))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for {
			if mod, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(mod), "module nixfleet\n") {
				return dir, nil
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", errors.New("nixfleet's source is not here")
}

func compile(ctx context.Context, source, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("build: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "./cmd/"+agentName, "./cmd/"+controlPlaneName)
	cmd.Dir = source
	// With everything that it leaves in the demo's folder, and marked as the demo's.
	cmd.Env = append(plainEnviron(), daemonMark+"="+dir, "GOTMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build in %s: %w\n%s", source, err, out)
	}
	return nil
}
