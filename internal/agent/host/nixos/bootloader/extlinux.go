package bootloader

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"nixfleet/internal/fleet"
)

// extlinux reads extlinux.conf, which U-Boot reads, too: DEFAULT names the LABEL
// whose APPEND is the kernel's command line.
func extlinux(root fs.FS, config string) (fleet.Closure, error) {
	text, err := read(root, config)
	if err != nil {
		return "", err
	}
	var chosen, label string
	commandLines := map[string]string{}
	for line := range strings.Lines(text) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		value = strings.TrimSpace(value)
		switch strings.ToUpper(keyword) {
		case "DEFAULT":
			chosen = value
		case "LABEL":
			label = value
			if _, twice := commandLines[label]; twice {
				return "", fmt.Errorf("the label %.100q is there twice", label)
			}
			commandLines[label] = ""
		case "APPEND":
			commandLines[label] = value
		case "ONTIMEOUT", "INCLUDE":
			return "", fmt.Errorf("%s is not understood", keyword)
		}
	}
	if chosen == "" {
		return "", errors.New("there is no DEFAULT")
	}
	commandLine, ok := commandLines[chosen]
	if !ok {
		return "", fmt.Errorf("there is no label %.100q", chosen)
	}
	return initOf(strings.Fields(commandLine))
}
