package bootloader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// efiVariables is where the kernel shows them, and loaderVendor who systemd-boot is.
const (
	efiVariables = "sys/firmware/efi/efivars"
	loaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
)

// efiVariable is one of systemd-boot's variables, "" when it is not set or cannot
// be seen: four bytes of attributes, then text in UTF-16 that a zero ends.
func efiVariable(root fs.FS, name string) (string, error) {
	text, err := read(root, efiVariables+"/"+name+"-"+loaderVendor)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(text) < 4 || len(text)%2 != 0 {
		return "", fmt.Errorf("the EFI variable %s has %d bytes", name, len(text))
	}
	var units []uint16
	for i := 4; i < len(text); i += 2 {
		units = append(units, binary.LittleEndian.Uint16([]byte(text[i:i+2])))
	}
	value, _, _ := strings.Cut(string(utf16.Decode(units)), "\x00")
	return value, nil
}
