package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"nixfleet/internal/agent"
	"nixfleet/internal/agent/activation"
	"nixfleet/internal/agent/host"
	"nixfleet/internal/nix"
	"nixfleet/internal/trust"
)

// controlPlane is whether it answers and is who it should be.
type controlPlane struct{ p Patient }

func (controlPlane) name() string { return "control-plane" }

func (c controlPlane) look(ctx context.Context) Finding {
	client := c.p.uplink()
	defer client.Close()
	if _, err := client.Certificate(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return skipped("this host's certificate and its key cannot be used")
	}
	err := client.Reach(ctx)
	if err == nil {
		return well("%s answers", c.p.Config.ControlPlane)
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var file *fs.PathError
	remedy := "look at the network, name resolution and proxies of this host, and at whether the control plane runs; --control-plane-url says where it is looked for"
	switch {
	case errors.As(err, &file):
		remedy = "name a file that can be read with --ca-cert, or none for the system's roots"
	case errors.As(err, &unknown):
		remedy = "name the authority that issued the control plane's certificate with --ca-cert; if that is right, somebody else answers there"
	case errors.As(err, &name):
		remedy = "give --control-plane-url a name that stands in the control plane's certificate, or issue one for this name"
	case errors.As(err, &invalid):
		remedy = "look at this host's clock, and renew the control plane's certificate if it has ended"
	}
	return wrong(remedy, "%v", err)
}

// secondUplink is whether the host can tell a control plane that is down from a
// network that the new system broke.
type secondUplink struct {
	cfg     agent.Config
	resolve func(ctx context.Context, host string) (addresses []string, err error)
}

func (secondUplink) name() string { return "second-uplink" }

func (c secondUplink) look(ctx context.Context) Finding {
	home := c.addresses(ctx, c.cfg.ControlPlane.Hostname())
	var same []string
	for _, address := range slices.Concat(c.cfg.ConfirmURLs, c.cfg.CacheURLs) {
		u, err := url.Parse(address)
		if err != nil {
			return wrong("write it as https://host[:port]", "%v", err)
		}
		if !slices.ContainsFunc(c.addresses(ctx, u.Hostname()), func(a string) bool { return slices.Contains(home, a) }) {
			return well("%s confirms a new system when the control plane is down", u.Redacted())
		}
		same = append(same, u.Redacted())
	}
	const remedy = "name an uplink at another address, with --cache-url a binary cache that has this fleet's systems, or with --confirm-url anything over https"
	if len(same) > 0 {
		return wrong(remedy, "there is one uplink only: %s is at the control plane's own address. A switch while that is down is taken back", strings.Join(same, ", "))
	}
	return wrong(remedy, "there is one uplink only, the control plane. A switch while that is down is taken back")
}

// addresses are those of a host, and its name, which also stands for one that
// cannot be resolved.
func (c secondUplink) addresses(ctx context.Context, host string) []string {
	all, _ := c.resolve(ctx, host) // then the name alone is compared
	return append(all, strings.ToLower(host))
}

// caches are the binary caches from which closures come.
type caches struct{ p Patient }

func (caches) name() string { return "caches" }

func (c caches) look(ctx context.Context) Finding {
	if c.p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	roots, err := trust.LoadRoots(c.p.Config.TrustFile)
	if err != nil {
		return skipped("the trust file cannot be used")
	}
	keys, err := nix.ParsePublicKeys(roots.CacheKeys)
	if err != nil {
		return wrong("correct cacheKeys in "+c.p.Config.TrustFile, "%v", err)
	}
	addresses, err := c.addresses(ctx)
	if err != nil {
		return wrong("look at `nix config show`", "the caches of this machine's Nix are not known: %v", err)
	}
	facts, err := c.p.Machine.Facts(ctx)
	if err != nil || facts.Current == "" {
		return skipped("what this machine runs is not known")
	}
	if len(addresses) == 0 {
		return wrong("name the fleet's binary cache with --cache-url", "there is no binary cache, so no new target can be fetched")
	}
	var bad, answers []string
	for _, address := range addresses {
		err := c.ask(ctx, address, keys, string(facts.Current))
		switch {
		case err == nil, errors.Is(err, nix.ErrMissing):
			answers = append(answers, address)
		default:
			bad = append(bad, err.Error())
		}
	}
	if len(bad) > 0 {
		return wrong("look at the cache and the way to it, pin its key in cacheKeys of "+c.p.Config.TrustFile+", or name another with --cache-url", "%s", strings.Join(bad, "; "))
	}
	return well("%s answers", strings.Join(answers, ", "))
}

// addresses are the caches that a fetch would ask, as the machine's backend has it.
func (c caches) addresses(ctx context.Context) ([]string, error) {
	if len(c.p.Config.CacheURLs) > 0 {
		return c.p.Config.CacheURLs, nil
	}
	machine, ok := c.p.Machine.(host.HasNix)
	if !ok {
		return nil, nil
	}
	settings, err := machine.NixSettings(ctx)
	// Those that would be believed without signatures are left out of a fetch, and
	// told of by the check of Nix's settings.
	return slices.DeleteFunc(settings.Substituters, nix.WithoutSignatures), err
}

// ask asks a cache for what runs: also one that does not have it is alive.
func (c caches) ask(ctx context.Context, address string, keys []nix.PublicKey, closure string) error {
	client, err := nix.NewClient(address, keys, nix.ClientOptions{Dial: c.p.Dial})
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Info(ctx, closure)
	return err
}

// confirmURLs are the uplinks that are asked for nothing but an answer.
type confirmURLs struct{ p Patient }

func (confirmURLs) name() string { return "confirm-urls" }

func (c confirmURLs) look(ctx context.Context) Finding {
	if len(c.p.Config.ConfirmURLs) == 0 {
		return skipped("none is named")
	}
	if c.p.Machine == nil {
		return skipped("the machine cannot be looked at")
	}
	for _, address := range c.p.Config.ConfirmURLs {
		if _, err := activation.Confirm(ctx, c.p.Machine, activation.Uplinks{URLs: []string{address}, Dial: c.p.Dial}); err != nil {
			return wrong("look at the way to "+address+", or name another with --confirm-url", "%v", err)
		}
	}
	return well("%s answers", strings.Join(c.p.Config.ConfirmURLs, ", "))
}
