package lab

import "fmt"

// Gateway is the lab's own address, where control planes and caches listen.
const Gateway = "10.77.0.1"

const bridge = "br-lab"

// network makes the bridge that all hosts hang on, inside the lab's own network
// namespace.
func network() error {
	for _, argv := range [][]string{
		{"ip", "link", "add", bridge, "type", "bridge"},
		{"ip", "addr", "add", Gateway + "/24", "dev", bridge},
		{"ip", "link", "set", bridge, "up"},
	} {
		if err := run(argv...); err != nil {
			return err
		}
	}
	return nil
}

// plug gives a host a network namespace with one interface on the bridge. It
// outlives the host's reboots.
func plug(host, address string) error {
	ns, port := "lab-"+host, "v-"+host
	for _, argv := range [][]string{
		{"ip", "netns", "add", ns},
		{"ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", ns},
		{"ip", "link", "set", port, "master", bridge, "up"},
		{"ip", "-n", ns, "link", "set", "lo", "up"},
		{"ip", "-n", ns, "addr", "add", address + "/24", "dev", "eth0"},
		{"ip", "-n", ns, "link", "set", "eth0", "up"},
		{"ip", "-n", ns, "route", "add", "default", "via", Gateway},
	} {
		if err := run(argv...); err != nil {
			return fmt.Errorf("network of %s: %w", host, err)
		}
	}
	return nil
}

// CutNetwork pulls the host's cable; MendNetwork puts it back.
func (h *Host) CutNetwork() error { return run("ip", "link", "set", "v-"+h.Name, "down") }

// MendNetwork puts the host's cable back.
func (h *Host) MendNetwork() error { return run("ip", "link", "set", "v-"+h.Name, "up") }
