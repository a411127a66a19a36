package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nixfleet/internal/operator"
)

// connection says which control plane to ask and as whom: by flag, else by
// environment, else by the configuration file.
type connection struct {
	CPURL      string `name:"cp-url" env:"NIXFLEET_CP_URL" placeholder:"URL" help:"The control plane, https://…"`
	CACert     string `name:"ca-cert" env:"NIXFLEET_CA_CERT" placeholder:"FILE" help:"Roots for the control plane's certificate; the system's when unset."`
	ClientCert string `env:"NIXFLEET_CLIENT_CERT" placeholder:"FILE" help:"The operator's certificate."`
	ClientKey  string `env:"NIXFLEET_CLIENT_KEY" placeholder:"FILE" help:"Its key."`
	Config     string `env:"NIXFLEET_CONFIG" placeholder:"FILE" help:"Configuration file (default ~/.config/nixfleet/config.toml)."`
}

// client resolves the settings and makes a client.
func (c *connection) client() (*operator.Client, error) {
	file, path, err := c.file()
	if err != nil {
		return nil, err
	}
	config := operator.Config{}
	settings := []struct {
		flag, key string
		value     string
		into      *string
		required  bool
	}{
		{"--cp-url", "cp-url", c.CPURL, &config.URL, true},
		{"--ca-cert", "ca-cert", c.CACert, &config.CACert, false},
		{"--client-cert", "client-cert", c.ClientCert, &config.ClientCert, true},
		{"--client-key", "client-key", c.ClientKey, &config.ClientKey, true},
	}
	for _, s := range settings {
		*s.into = s.value
		if *s.into == "" {
			*s.into = file[s.key]
			if s.key != "cp-url" && *s.into != "" && !filepath.IsAbs(*s.into) {
				*s.into = filepath.Join(filepath.Dir(path), *s.into)
			}
		}
		if *s.into == "" && s.required {
			return nil, wrongUse("%s is not set: give %s, or NIXFLEET_%s, or write %s = \"…\" to %s", s.key, s.flag, strings.ReplaceAll(strings.ToUpper(s.key), "-", "_"), s.key, path)
		}
	}
	client, err := operator.New(config)
	if err != nil {
		return nil, &codedError{code: exitUse, err: err}
	}
	return client, nil
}

// configKeys are what a configuration file may set.
var configKeys = map[string]bool{"cp-url": true, "ca-cert": true, "client-cert": true, "client-key": true}

// file reads the configuration file. Only one that was named must exist.
func (c *connection) file() (settings map[string]string, path string, err error) {
	path = c.Config
	if path == "" {
		dir := os.Getenv("XDG_CONFIG_HOME")
		if dir == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, "~/.config/nixfleet/config.toml", nil // flags and environment only
			}
			dir = filepath.Join(home, ".config")
		}
		path = filepath.Join(dir, "nixfleet", "config.toml")
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && c.Config == "" {
		return nil, path, nil
	}
	if err != nil {
		return nil, path, wrongUse("configuration file: %w", err)
	}
	settings, err = parseConfig(string(raw))
	if err != nil {
		return nil, path, wrongUse("%s: %w", path, err)
	}
	return settings, path, nil
}

// parseConfig reads the flat part of TOML that the configuration needs: comments
// and lines of key = "value".
func parseConfig(text string) (map[string]string, error) {
	settings := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, rest, found := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !found || !configKeys[key] {
			return nil, fmt.Errorf("line %d: %q: there are cp-url, ca-cert, client-cert and client-key, each as key = \"value\"", n, line)
		}
		value, err := quoted(strings.TrimSpace(rest))
		if err != nil {
			return nil, fmt.Errorf("line %d: value of %s: %w", n, key, err)
		}
		if _, twice := settings[key]; twice {
			return nil, fmt.Errorf("line %d: %s is set twice", n, key)
		}
		settings[key] = value
	}
	return settings, lines.Err()
}

// quoted reads a TOML string, basic or literal, with at most a comment after it.
func quoted(s string) (value string, err error) {
	var rest string
	switch {
	case strings.HasPrefix(s, "'"):
		var closed bool
		if value, rest, closed = strings.Cut(s[1:], "'"); !closed {
			return "", errors.New("the quote is not closed")
		}
	case strings.HasPrefix(s, `"`):
		prefix, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", errors.New("the quote is not closed")
		}
		if value, err = strconv.Unquote(prefix); err != nil {
			return "", err
		}
		rest = s[len(prefix):]
	default:
		return "", errors.New("it must be in quotes")
	}
	if rest = strings.TrimSpace(rest); rest != "" && !strings.HasPrefix(rest, "#") {
		return "", fmt.Errorf("%q after the quote", rest)
	}
	return value, nil
}
