package fleet

import (
	"errors"
	"fmt"
	"slices"
)

// problems collects what is wrong with a document, each under its field.
type problems struct{ found []error }

func (p *problems) add(field, format string, args ...any) {
	p.check(field, fmt.Errorf(format, args...))
}

// check adds err, if there is one.
func (p *problems) check(field string, err error) {
	if err != nil {
		p.found = append(p.found, fmt.Errorf("%s: %w", field, err))
	}
}

// oneOf refuses a value that is not in the list.
func (p *problems) oneOf(field, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.add(field, "%.80q is none of %q", value, allowed)
	}
}

// within refuses a number that is not from least to most.
func (p *problems) within(field string, value, least, most int) {
	if value < least || value > most {
		p.add(field, "%d is not within %d to %d", value, least, most)
	}
}

func (p *problems) err() error { return errors.Join(p.found...) }
