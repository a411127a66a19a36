package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckPrivate(t *testing.T) {
	dir := t.TempDir()
	file, folder := filepath.Join(dir, "key"), filepath.Join(dir, "state")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		mode os.FileMode
		want string // "": private
	}{
		{file, 0o600, ""},
		{file, 0o400, ""},
		{file, 0o640, "key has mode 0640, so others can read it: chmod 600 " + file},
		{file, 0o604, "key has mode 0604"},
		{file, 0o620, "key has mode 0620"},
		{folder, 0o700, ""},
		{folder, 0o755, "state has mode 0755, so others can look into it: chmod 700 " + folder},
		{folder, 0o701, "state has mode 0701"},
	} {
		if err := os.Chmod(c.path, c.mode); err != nil {
			t.Fatal(err)
		}
		err := CheckPrivate(c.path)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s with mode %04o: %v", c.path, c.mode, err)
		}
	}
	if err := CheckPrivate(filepath.Join(dir, "absent")); err != nil {
		t.Error(err)
	}
	if err := CheckPrivate(os.DevNull); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Error(err)
	}
}
