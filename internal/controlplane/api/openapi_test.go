package api

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"nixfleet/internal/wire"
)

// TestOpenAPIEqualsTheRouter compares docs/openapi.yaml with the table of routes,
// so that neither has what the other lacks: routes, who may use them, and the
// answers that follow from what a route demands.
func TestOpenAPIEqualsTheRouter(t *testing.T) {
	text, err := os.ReadFile("../../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pathLine := regexp.MustCompile(`^  (/\S*):$`)
	methodLine := regexp.MustCompile(`^    (get|post|put|delete|patch):$`)
	roleLine := regexp.MustCompile(`^      x-nixfleet-who: (\S+)$`)
	codeLine := regexp.MustCompile(`^        "([0-9]{3})": `)
	var documented []string
	codes := map[string][]string{} // by method and path; "version" where the header is a parameter
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
		if m := codeLine.FindStringSubmatch(line); m != nil {
			codes[method+" "+path] = append(codes[method+" "+path], m[1])
		}
		if strings.Contains(line, "#/components/parameters/Protocol") {
			codes[method+" "+path] = append(codes[method+" "+path], "version")
		}
	}
	names := map[access]string{anyone: "anyone", holders: "holders", members: "members", agents: "agents", operators: "operators", renewers: "renewers"}
	var routed []string
	for _, rt := range (&API{}).routes() {
		routed = append(routed, rt.method+" "+rt.path+" "+names[rt.who])
		has := codes[rt.method+" "+rt.path]
		for code, is := range map[string]bool{"401": rt.who != anyone, "403": rt.who != anyone, "400": rt.limit > 0, "413": rt.limit > 0, "426": rt.protocol, "version": rt.protocol} {
			if is && !slices.Contains(has, code) {
				t.Errorf("docs/openapi.yaml lacks %s of %s %s", code, rt.method, rt.path)
			}
		}
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

// Every slug stands in the document's answers, under its status.
func TestOpenAPINamesEverySlug(t *testing.T) {
	document, err := os.ReadFile("../../../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../../wire/errorbody.go")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for _, m := range regexp.MustCompile(`(?s)\n    E([0-9]{3}):\n(.*?)\n      content:`).FindAllStringSubmatch(string(document), -1) {
		described[m[1]] = m[2]
	}
	slugs := regexp.MustCompile(`Slug\w+ +Slug = "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(slugs) < 30 {
		t.Fatalf("only %d slugs were found", len(slugs))
	}
	for _, m := range slugs {
		if m[1] == "bad-secret" || m[1] == "bad-upstream" {
			continue // of routes that are not there yet
		}
		code := strconv.Itoa(wire.Slug(m[1]).Status())
		if !regexp.MustCompile(`(^|[^a-z-])` + m[1] + `([^a-z-]|$)`).MatchString(described[code]) {
			t.Errorf("docs/openapi.yaml does not name %s under %s", m[1], code)
		}
	}
}
