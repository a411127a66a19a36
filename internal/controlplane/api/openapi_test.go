package api

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestOpenAPIEqualsTheRouter compares docs/openapi.yaml with the table of routes,
// so that neither has what the other lacks.
func TestOpenAPIEqualsTheRouter(t *testing.T) {
	text, err := os.ReadFile("../../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pathLine := regexp.MustCompile(`^  (/\S*):$`)
	methodLine := regexp.MustCompile(`^    (get|post|put|delete|patch):$`)
	roleLine := regexp.MustCompile(`^      x-nixfleet-who: (\S+)$`)
	var documented []string
	path, method := "", ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if m := pathLine.FindStringSubmatch(line); m != nil {
			path = m[1]
		}
		if m := methodLine.FindStringSubmatch(line); m != nil {
			method = strings.ToUpper(m[1])
		}
		if m := roleLine.FindStringSubmatch(line); m != nil {
			documented = append(documented, method+" "+path+" "+m[1])
		}
	}
	names := map[access]string{anyone: "anyone", holders: "holders", members: "members", agents: "agents", operators: "operators", renewers: "renewers"}
	var routed []string
	for _, rt := range (&API{}).routes() {
		routed = append(routed, rt.method+" "+rt.path+" "+names[rt.who])
	}
	slices.Sort(documented)
	slices.Sort(routed)
	for _, r := range routed {
		if !slices.Contains(documented, r) {
			t.Errorf("docs/openapi.yaml lacks %s", r)
		}
	}
	for _, d := range documented {
		if !slices.Contains(routed, d) {
			t.Errorf("the router lacks %s", d)
		}
	}
}
