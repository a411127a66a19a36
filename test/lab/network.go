package lab

import "fmt"

// The lab's own addresses: control planes listen at the first, caches at the second,
// so that each is an uplink of its own.
const (
	Gateway      = "10.77.0.1"
	cacheAddress = "10.77.0.2"
)

const bridge = "br-lab"

// network makes the bridge that all hosts hang on, inside the lab's own network
// namespace.
func network() error {
	for _, argv := range [][]string{
		// With an address of its own: by default it is that of a host, and another one as
		// hosts come and go, so that those who remember it reach nobody for a while.
		{"ip", "link", "add", bridge, "address", "02:4c:61:62:00:01", "type", "bridge"},
		{"ip", "addr", "add", Gateway + "/16", "dev", bridge},
		{"ip", "addr", "add", cacheAddress + "/16", "dev", bridge},
		{"ip", "link", "set", bridge, "up"},
	} {
		if err := run(argv...); err != nil {
			return err
		}
	}
	return nil
}

// plug gives a host a network namespace with one interface on the bridge. It
// outlives the host's reboots. Both are named after the host's id.
func plug(id string, number int) error {
	for _, argv := range [][]string{
		{"ip", "netns", "add", id},
		{"ip", "link", "add", "v-" + id, "type", "veth", "peer", "name", "eth0", "netns", id},
		{"ip", "link", "set", "v-" + id, "master", bridge, "up"},
		{"ip", "-n", id, "link", "set", "lo", "up"},
		{"ip", "-n", id, "addr", "add", fmt.Sprintf("10.77.%d.%d/16", number/200, 10+number%200), "dev", "eth0"},
		{"ip", "-n", id, "link", "set", "eth0", "up"},
		{"ip", "-n", id, "route", "add", "default", "via", Gateway},
	} {
		if err := run(argv...); err != nil {
			return fmt.Errorf("network of %s: %w", id, err)
		}
	}
	return nil
}

// CutNetwork pulls the host's cable; MendNetwork puts it back.
func (h *Host) CutNetwork() error { return run("ip", "link", "set", "v-"+h.id, "down") }

// MendNetwork puts the host's cable back.
func (h *Host) MendNetwork() error { return run("ip", "link", "set", "v-"+h.id, "up") }
