package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"nixfleet/internal/evidence/bundle"
	"nixfleet/internal/fleet"
	"nixfleet/internal/identity"
	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

type evidenceCmd struct {
	Export evidenceExportCmd `cmd:"" help:"Export hosts' signed records for an auditor."`
	Verify evidenceVerifyCmd `cmd:"" help:"Verify an exported bundle offline: exit 0 good, 1 not good, 2 wrong use."`
}

type evidenceExportCmd struct {
	connection
	Hosts []string `arg:"" name:"host" help:"The hosts."`
	Out   string   `required:"" placeholder:"PATH" help:"Where to: an archive when it ends with .tar.gz or .tgz, else a new folder."`
	JSON  bool     `help:"As JSON."`
}

// exported is what was written about one host.
type exported struct {
	Hostname string `json:"hostname"`
	Records  int    `json:"records"`
	Heads    int    `json:"heads"` // records with an SSH signature
}

func (c *evidenceExportCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	doc, err := client.Raw(e.ctx, wire.PathFleet)
	if err != nil {
		return fmt.Errorf("the fleet document, for the hosts' keys: %w", err)
	}
	keys, err := declaredKeys(doc)
	if err != nil {
		return fmt.Errorf("the control plane's fleet document: %w", err)
	}
	records := map[string][]wire.Envelope{}
	var written []exported
	for _, host := range c.Hosts {
		if _, twice := records[host]; twice {
			continue
		}
		x := exported{Hostname: host}
		if _, err := operator.Get[wire.HostView](e.ctx, client, wire.Fill(wire.PathHost, host)); err != nil {
			return notFound(err, "there is no host %s; nixfleet host list names them", host)
		}
		items, err := operator.List[wire.EvidenceItem](e.ctx, client, wire.Fill(wire.PathHostEvidence, host), "")
		if err != nil {
			return fmt.Errorf("evidence of %s: %w", host, err)
		}
		records[host] = make([]wire.Envelope, 0, len(items))
		for _, item := range items {
			records[host] = append(records[host], item.Envelope)
			if item.Envelope.SSHSig != "" {
				x.Heads++
			}
		}
		x.Records = len(items)
		written = append(written, x)
	}
	b, err := bundle.New(records, keys)
	if err != nil {
		return err
	}
	if err := b.Write(c.Out); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return wrongUse("%w; name a path where nothing is yet", err)
		}
		return err
	}
	if c.JSON {
		return writeJSON(e.out, written)
	}
	for _, x := range written {
		fmt.Fprintf(e.out, "%s: %d records, %d signed heads\n", x.Hostname, x.Records, x.Heads)
	}
	fmt.Fprintf(e.out, "written to %s; nixfleet evidence verify checks it with the fleet document of whoever wants to know\n", c.Out)
	return nil
}

// declaredKeys are the hosts' keys in a fleet document, of those that declare one.
func declaredKeys(doc []byte) (map[string]ed25519.PublicKey, error) {
	var f fleet.Fleet
	if err := json.Unmarshal(doc, &f); err != nil {
		return nil, err
	}
	if len(f.Hosts) == 0 {
		return nil, errors.New("it declares no hosts")
	}
	keys := map[string]ed25519.PublicKey{}
	for name, h := range f.Hosts {
		if h.Pubkey == nil {
			continue
		}
		key, err := identity.ParsePublicKey(*h.Pubkey)
		if err != nil {
			return nil, fmt.Errorf("pubkey of %s: %w", name, err)
		}
		keys[name] = key
	}
	return keys, nil
}
