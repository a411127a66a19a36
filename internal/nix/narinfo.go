package nix

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// NarInfo is what a cache says about one store path.
type NarInfo struct {
	Base        string // of StorePath
	URL         string // of the archive, relative to the cache
	Compression string // none, xz, zstd; others cannot be fetched
	FileHash    string // of the compressed archive; "" when not given
	FileSize    int64  // 0 when not given
	NarHash     Hash
	NarSize     int64
	References  []string // base names, the path's own among them when it refers to itself
	Deriver     string
	CA          string
	Sigs        []string // "name:base64"
}

// narInfoMax is more than the narinfo of a path with thousands of references.
const narInfoMax = 1 << 20

// ParseNarInfo reads a narinfo file. Unknown fields are ignored; the signature is
// not checked, Verify does that.
func ParseNarInfo(text []byte) (*NarInfo, error) {
	if len(text) > narInfoMax {
		return nil, fmt.Errorf("narinfo of %d bytes", len(text))
	}
	n := &NarInfo{Compression: "bzip2"} // what Nix takes a missing field for
	seen := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		line, whole := strings.CutSuffix(line, "\n")
		key, value, ok := strings.Cut(line, ": ")
		if !ok {
			key, ok = strings.CutSuffix(line, ":")
		}
		if !whole || !ok {
			return nil, fmt.Errorf("narinfo: %.80q is no whole line", line)
		}
		if seen[key] && key != "Sig" {
			return nil, fmt.Errorf("narinfo: %s stands twice", key)
		}
		seen[key] = true
		if err := n.set(key, value); err != nil {
			return nil, fmt.Errorf("narinfo: %s: %w", key, err)
		}
	}
	for _, key := range []string{"StorePath", "URL", "NarHash", "NarSize"} {
		if !seen[key] {
			return nil, fmt.Errorf("narinfo: %s is missing", key)
		}
	}
	return n, nil
}

func (n *NarInfo) set(key, value string) (err error) {
	switch key {
	case "StorePath":
		n.Base, err = ParsePath(value)
	case "URL":
		n.URL = value
		err = checkRelative(value)
	case "Compression":
		n.Compression = value
	case "FileHash":
		n.FileHash = value
	case "FileSize":
		n.FileSize, err = parseSize(value)
	case "NarHash":
		n.NarHash, err = ParseHash(value)
	case "NarSize":
		n.NarSize, err = parseSize(value)
	case "References":
		n.References = strings.Fields(value)
		for _, ref := range n.References {
			if err := CheckBase(ref); err != nil {
				return err
			}
		}
	case "Deriver":
		n.Deriver = value
	case "CA":
		n.CA = value
	case "Sig":
		n.Sigs = append(n.Sigs, value)
	}
	return err
}

func parseSize(s string) (int64, error) {
	v, err := strconv.ParseInt(s, 10, 64)
	if err == nil && v < 0 {
		err = errors.New("a negative size")
	}
	return v, err
}

// checkRelative keeps an archive's URL below its cache's.
func checkRelative(url string) error {
	if url == "" || strings.HasPrefix(url, "/") || strings.Contains(url, "://") || strings.ContainsAny(url, "\\\x00#") {
		return fmt.Errorf("%.80q is not relative to the cache", url)
	}
	path, _, _ := strings.Cut(url, "?")
	if slices.Contains(strings.Split(path, "/"), "..") {
		return fmt.Errorf("%.80q is not relative to the cache", url)
	}
	return nil
}

// Format writes the narinfo file.
func (n *NarInfo) Format() []byte {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + ": " + value + "\n") }
	optional := func(key, value string) {
		if value != "" {
			line(key, value)
		}
	}
	line("StorePath", StoreDir+"/"+n.Base)
	line("URL", n.URL)
	line("Compression", n.Compression)
	optional("FileHash", n.FileHash)
	if n.FileSize != 0 {
		line("FileSize", strconv.FormatInt(n.FileSize, 10))
	}
	line("NarHash", n.NarHash.String())
	line("NarSize", strconv.FormatInt(n.NarSize, 10))
	line("References", strings.Join(n.References, " "))
	optional("Deriver", n.Deriver)
	optional("CA", n.CA)
	for _, sig := range n.Sigs {
		line("Sig", sig)
	}
	return []byte(b.String())
}

// Fingerprint is what signatures are over: the path, its contents, and the full
// paths that it refers to, sorted.
func (n *NarInfo) Fingerprint() string {
	refs := slices.Clone(n.References)
	slices.Sort(refs)
	refs = slices.Compact(refs)
	for i, ref := range refs {
		refs[i] = StoreDir + "/" + ref
	}
	return "1;" + StoreDir + "/" + n.Base + ";" + n.NarHash.String() + ";" +
		strconv.FormatInt(n.NarSize, 10) + ";" + strings.Join(refs, ",")
}

// Sign adds the key's signature.
func (n *NarInfo) Sign(key SecretKey) { n.Sigs = append(n.Sigs, key.sign(n.Fingerprint())) }

// Verify tells whether one of the keys signed it.
func (n *NarInfo) Verify(keys []PublicKey) bool {
	return verifyAny(n.Fingerprint(), n.Sigs, keys)
}
