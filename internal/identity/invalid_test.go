package identity_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// eachInvalid parses each file of a folder of wrong inputs; the text in the .err
// beside it has to be in the error.
func eachInvalid(t *testing.T, folder, ext string, parse func([]byte) error) {
	for _, file := range invalidFiles(t, folder, ext) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want := strings.TrimSpace(string(read(t, strings.TrimSuffix(file, ext)+".err")))
			if err := parse(read(t, file)); err == nil || want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func seedInvalid(f *testing.F, folder, ext string) {
	for _, file := range invalidFiles(f, folder, ext) {
		f.Add(read(f, file))
	}
}

func invalidFiles(t testing.TB, folder, ext string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "invalid", folder, "*"+ext))
	if err != nil || len(files) == 0 {
		t.Fatalf("no invalid files: %v", err)
	}
	return files
}
