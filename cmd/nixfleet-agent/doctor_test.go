package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixfleet/internal/agent/doctor"
)

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	state, _, flags := agentFiles(t)
	if err := os.Chmod(state, 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(t.Context(), append([]string{"doctor"}, flags...), &out, &out); code != exitNo {
		t.Errorf("ended with %d", code)
	}
	for _, want := range []string{"wrong    state-directory", "to do: chmod 700 " + state, "ok       host-key", "wrong    control-plane", "skipped  nix-settings"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if code := run(t.Context(), append([]string{"doctor", "--json"}, flags...), &out, &out); code != exitNo {
		t.Errorf("as JSON it ended with %d", code)
	}
	var findings []doctor.Finding
	if err := json.Unmarshal(out.Bytes(), &findings); err != nil || len(findings) < 10 {
		t.Errorf("%d findings, %v: %s", len(findings), err, out.String())
	}
	for _, f := range findings {
		if f.Check == "" || f.Detail == "" || (f.Verdict == doctor.Wrong) != (f.Remedy != "") {
			t.Errorf("%+v", f)
		}
	}
	if files, err := fs.Glob(os.DirFS(filepath.Dir(state)), "state/*"); err != nil || len(files) > 0 {
		t.Errorf("it left %v, %v", files, err)
	}
}

func TestDoctorUsedWrongly(t *testing.T) {
	_, _, flags := agentFiles(t)
	for _, wrong := range []string{"--control-plane-url=http://cp.test", "--poll-interval=0", "--no-such-flag"} {
		if code, said := try(t, append(append([]string{"doctor"}, flags...), wrong)...); code != exitUse {
			t.Errorf("%s: %d %s", wrong, code, said)
		}
	}
	if code, said := try(t, "doctor"); code != exitUse || !strings.Contains(said, "--control-plane-url") {
		t.Errorf("without settings: %d %s", code, said)
	}
}
