package doctor

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"nixfleet/internal/agent"
	"nixfleet/internal/identity"
	"nixfleet/internal/trust"
)

// certificate is the host's certificate, or the token that gets one.
type certificate struct{ cfg agent.Config }

func (certificate) name() string { return "certificate" }

// another is the way out of every certificate that is not this host's.
const another = "mint a bootstrap token for this host (nixfleet token mint), put it where --bootstrap-token-file says, and move the certificate away"

func (c certificate) look(context.Context) Finding {
	raw, err := os.ReadFile(c.cfg.ClientCertFile)
	if errors.Is(err, fs.ErrNotExist) {
		return c.token()
	}
	if err != nil {
		return wrong("run this as the user that the agent runs as: root", "%v", err)
	}
	key, err := identity.LoadHostKey(c.cfg.ClientKeyFile)
	if err != nil {
		return skipped("its key cannot be used")
	}
	roots, err := trust.LoadRoots(c.cfg.TrustFile)
	if err != nil {
		return skipped("the trust file cannot be used")
	}
	cert, err := identity.CheckCertificate(raw, identity.Expected{
		MachineID:   c.cfg.MachineID,
		Key:         key.Public().(ed25519.PublicKey),
		IssuanceCAs: roots.IssuanceCAPems,
		Now:         time.Now(),
	})
	remedy := another
	switch {
	case err == nil:
		return well("%s is that of %s until %s", c.cfg.ClientCertFile, c.cfg.MachineID, cert.NotAfter.Format(time.RFC3339))
	case errors.Is(err, identity.ErrCertDates):
		remedy = "the agent renews it as soon as the control plane answers; look at the clock, and if that is right and nothing comes of it, " + another
	case errors.Is(err, identity.ErrCertName):
		remedy = "give the name that the fleet knows this host by with --machine-id, or " + another
	case errors.Is(err, identity.ErrCertChain):
		remedy = "pin the authority that issued it in issuanceCaPems of " + c.cfg.TrustFile + ", or, if that is not the fleet's, " + another
	}
	return wrong(remedy, "%s: %v", c.cfg.ClientCertFile, err)
}

// token looks at what gets a first certificate.
func (c certificate) token() Finding {
	file := c.cfg.BootstrapTokenFile
	if file == "" {
		return wrong("mint a bootstrap token for this host (nixfleet token mint) and name it with --bootstrap-token-file", "there is no %s and no token to get one", c.cfg.ClientCertFile)
	}
	raw, err := os.ReadFile(file)
	if err == nil && !json.Valid(raw) {
		err = fmt.Errorf("%s is not JSON", file)
	}
	if err != nil {
		return wrong("mint a bootstrap token for this host (nixfleet token mint) and put it there", "there is no %s, and the token that gets one cannot be read: %v", c.cfg.ClientCertFile, err)
	}
	if err := identity.CheckPrivate(file); err != nil {
		return wrong("chmod 600 "+file, "%v", err)
	}
	return well("none yet; %s gets one", file)
}
