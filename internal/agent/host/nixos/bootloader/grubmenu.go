package bootloader

import (
	"errors"
	"slices"
	"strings"
)

// menu is what matters of a grub.cfg.
type menu struct {
	defaults []string // all values that the default entry is set to
	entries  []menuEntry
}

// menuEntry is one line of a menu.
type menuEntry struct {
	title, id string
	submenu   bool
	entries   []menuEntry // of a submenu
	words     []string    // of all commands of an entry
}

// parseMenu reads a grub.cfg. What is not about the menu is skipped, but its
// blocks are followed, so that no entry is seen where there is none.
func parseMenu(text string) (menu, error) {
	p := menuParser{rest: text}
	entries, err := p.block(nil)
	if err == nil && p.closed {
		err = errors.New("a block ends that did not begin")
	}
	return menu{defaults: p.defaults, entries: entries}, err
}

type menuParser struct {
	rest     string
	depth    int
	closed   bool // the last block ended with a brace
	defaults []string
}

// depthMax is more than any menu is nested.
const depthMax = 32

// block reads commands up to the brace that ends the block, or the end of the
// text, and gives the entries among them. Words of commands are added to words
// when it is not nil.
func (p *menuParser) block(words *[]string) ([]menuEntry, error) {
	if p.depth++; p.depth > depthMax {
		return nil, errors.New("blocks are nested too deep")
	}
	defer func() { p.depth-- }()
	p.closed = false
	var entries []menuEntry
	for {
		command, end, err := p.command()
		if err != nil {
			return nil, err
		}
		if words != nil {
			*words = append(*words, command...)
		}
		p.setting(command)
		switch end {
		case blockBegins:
			e, ok := entryOf(command)
			inner := words
			if ok {
				inner = &e.words
			}
			if e.entries, err = p.block(inner); err != nil {
				return nil, err
			}
			if !p.closed {
				return nil, errors.New("a block does not end")
			}
			p.closed = false
			if ok {
				entries = append(entries, e) // those in a function are not there before it is called
			}
		case blockEnds:
			p.closed = true
			return entries, nil
		case textEnds:
			return entries, nil
		}
	}
}

// setting notes what the default is set to.
func (p *menuParser) setting(command []string) {
	if len(command) < 2 || command[len(command)-2] != "set" {
		return // "then set …" and "else set …" on one line, too
	}
	if value, ok := strings.CutPrefix(command[len(command)-1], "default="); ok {
		p.defaults = append(p.defaults, value)
	}
}

// entryOf reads the command before an entry's block.
func entryOf(command []string) (menuEntry, bool) {
	if len(command) < 2 || command[0] != "menuentry" && command[0] != "submenu" {
		return menuEntry{}, false
	}
	e := menuEntry{title: command[1], submenu: command[0] == "submenu"}
	if i := slices.IndexFunc(command, func(w string) bool {
		return w == "--id" || w == "$menuentry_id_option" || w == "${menuentry_id_option}"
	}); i > 0 && i+1 < len(command) {
		e.id = command[i+1]
	}
	return e, true
}

// The ends of a command.
type commandEnd int

const (
	commandEnds commandEnd = iota
	blockBegins
	blockEnds
	textEnds
)

// command reads the words of one command, as a shell splits them.
func (p *menuParser) command() (words []string, end commandEnd, err error) {
	var word strings.Builder
	begun := false // an empty word in quotes is a word, too
	finish := func() {
		if begun {
			words = append(words, word.String())
			word.Reset()
			begun = false
		}
	}
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '\n' || c == ';':
			finish()
			return words, commandEnds, nil
		case c == ' ' || c == '\t' || c == '\r':
			finish()
		case c == '#' && !begun:
			if i := strings.IndexByte(p.rest, '\n'); i >= 0 {
				p.rest = p.rest[i:]
			} else {
				p.rest = ""
			}
		case c == '{' && !begun:
			return words, blockBegins, nil
		case c == '}' && !begun:
			return words, blockEnds, nil
		default:
			begun = true
			if err := p.piece(c, &word); err != nil {
				return nil, textEnds, err
			}
		}
	}
	finish()
	return words, textEnds, nil
}

// piece reads a part of a word that begins with c: a quoted text, an escaped
// character, a variable, or one character.
func (p *menuParser) piece(c byte, word *strings.Builder) error {
	switch c {
	case '\\':
		if p.rest == "" {
			return errors.New("it ends with a backslash")
		}
		if p.rest[0] != '\n' {
			word.WriteByte(p.rest[0])
		}
		p.rest = p.rest[1:]
	case '\'':
		text, rest, ok := strings.Cut(p.rest, "'")
		if !ok {
			return errors.New("a quoted text does not end")
		}
		word.WriteString(text)
		p.rest = rest
	case '"':
		return p.quoted(word)
	case '$':
		word.WriteByte(c)
		if strings.HasPrefix(p.rest, "{") {
			i := strings.IndexAny(p.rest, "}\n")
			if i < 0 || p.rest[i] != '}' {
				return errors.New("a variable's name does not end")
			}
			word.WriteString(p.rest[:i+1])
			p.rest = p.rest[i+1:]
		}
	default:
		word.WriteByte(c)
	}
	return nil
}

// quoted reads up to the closing quotation mark.
func (p *menuParser) quoted(word *strings.Builder) error {
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return nil
		case c == '\\' && i+1 < len(p.rest) && strings.IndexByte(`"\$`, p.rest[i+1]) >= 0:
			i++
			word.WriteByte(p.rest[i])
		default:
			word.WriteByte(c)
		}
	}
	return errors.New("a quoted text does not end")
}
