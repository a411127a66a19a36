package fleet

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
)

// UnmarshalJSON also reads before (for gates) and after (for gated).
func (e *Edge) UnmarshalJSON(doc []byte) error {
	type plain Edge
	var in struct {
		plain
		Before string `json:"before"`
		After  string `json:"after"`
	}
	if err := json.Unmarshal(doc, &in); err != nil {
		return err
	}
	*e = Edge(in.plain)
	for _, name := range []struct {
		to            *string
		given         string
		spelled, also string
	}{{&e.Gates, in.Before, "gates", "before"}, {&e.Gated, in.After, "gated", "after"}} {
		switch {
		case *name.to == "":
			*name.to = name.given
		case name.given != "" && name.given != *name.to:
			return fmt.Errorf("edge: %s is %q and %s is %q", name.spelled, *name.to, name.also, name.given)
		}
	}
	return nil
}

// cycle is a way along the edges that ends where it began, as text, or "".
func cycle(edges []Edge) string {
	next := map[string][]string{}
	for _, e := range edges {
		next[e.Gates] = append(next[e.Gates], e.Gated)
	}
	done := map[string]bool{}
	var path []string
	var walk func(at string) string
	walk = func(at string) string {
		for i, seen := range path {
			if seen == at {
				return strings.Join(append(path[i:], at), " → ")
			}
		}
		if done[at] {
			return ""
		}
		path = append(path, at)
		for _, to := range next[at] {
			if found := walk(to); found != "" {
				return found
			}
		}
		path = path[:len(path)-1]
		done[at] = true
		return ""
	}
	for _, from := range sortedKeys(next) {
		if found := walk(from); found != "" {
			return found
		}
	}
	return ""
}
