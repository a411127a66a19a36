package fleet

import (
	"maps"
	"slices"
)

// Matches tells whether any clause of the selector takes the host of that name.
func (s Selector) Matches(name string, h Host) bool {
	has := func(tag string) bool { return slices.Contains(h.Tags, tag) }
	switch {
	case s.All:
		return true
	case slices.Contains(s.Hosts, name):
		return true
	case s.Channel != nil && *s.Channel == h.Channel:
		return true
	case slices.ContainsFunc(s.TagsAny, has):
		return true
	}
	return len(s.Tags) > 0 && !slices.ContainsFunc(s.Tags, func(tag string) bool { return !has(tag) })
}

// selected are the names of the hosts that the selector matches, sorted.
func (f *Fleet) selected(s Selector) []string {
	var names []string
	for name, h := range f.Hosts {
		if s.Matches(name, h) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sortedKeys makes every walk over a map the same on every machine.
func sortedKeys[V any](m map[string]V) []string {
	return slices.Sorted(maps.Keys(m))
}
