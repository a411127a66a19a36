package doctor

import (
	"context"
	"crypto/ed25519"
	"fmt"

	"nixfleet/internal/identity"
)

// hostKey is the SSH host key, with which the host signs.
type hostKey struct{ file string }

func (hostKey) name() string { return "host-key" }

func (c hostKey) look(context.Context) Finding { return lookAtKey(c.file, "--ssh-host-key-file") }

// clientKey is the key of the host's certificate, where that is another.
type clientKey struct{ file string }

func (clientKey) name() string { return "client-key" }

func (c clientKey) look(context.Context) Finding { return lookAtKey(c.file, "--client-key") }

func lookAtKey(file, flag string) Finding {
	key, err := identity.LoadHostKey(file)
	if err != nil {
		return wrong(fmt.Sprintf("ssh-keygen -t ed25519 -N '' -f %s makes one, and %s names another; then declare its public half in the fleet (nixfleet host add)", file, flag),
			"%v", err)
	}
	if err := identity.CheckPrivate(file); err != nil {
		return wrong("chmod 600 "+file+"; whoever could read it could sign as this host: if that may have happened, make another key", "%v", err)
	}
	return well("%s is an ed25519 key that nobody else can read, %s", file, identity.Fingerprint(key.Public().(ed25519.PublicKey)))
}
