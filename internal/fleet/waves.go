package fleet

import (
	"fmt"
	"slices"
)

// waves is how a channel's hosts are divided.
type waves struct {
	of       map[string]int // by hostname; hosts that no wave lists have len(soakSecs)
	soakSecs []int          // by wave
	unlisted []string       // hosts that no wave lists
	remarks  []string       // what a person may not have meant
}

// wavesOf divides the channel's hosts by the resolved waves of the document or,
// where it has none, by the selectors of the channel's policy. In both the first
// wave that takes a host wins.
func (f *Fleet) wavesOf(channel string) waves {
	declared := f.RolloutPolicies[f.Channels[channel].RolloutPolicy].Waves
	resolved := f.Waves[channel]
	w := waves{of: map[string]int{}}
	hosts := f.hostsOf(channel)
	if len(resolved) == 0 {
		for i, wave := range declared {
			for _, name := range hosts {
				if _, taken := w.of[name]; !taken && wave.Selector.Matches(name, f.Hosts[name]) {
					w.of[name] = i
				}
			}
			w.soakSecs = append(w.soakSecs, soakSecs(wave.SoakMinutes, wave.SoakSecs))
		}
	}
	for i, wave := range resolved {
		for _, name := range wave.Hosts {
			first, taken := w.of[name]
			switch {
			case f.Hosts[name].Channel != channel:
				w.remark("waves.%s[%d]: host %s is not in this channel and is left out", channel, i, name)
			case taken && first != i:
				w.remark("waves.%s[%d]: host %s is in wave %d already, which wins", channel, i, name, first)
			default:
				w.of[name] = i
			}
		}
		secs := wave.SoakSecs
		if secs == nil && len(declared) == len(resolved) {
			secs = declared[i].SoakSecs
		}
		w.soakSecs = append(w.soakSecs, soakSecs(wave.SoakMinutes, secs))
	}
	for _, name := range hosts {
		if _, listed := w.of[name]; !listed {
			w.of[name] = len(w.soakSecs)
			w.unlisted = append(w.unlisted, name)
		}
	}
	return w
}

func (w *waves) remark(format string, args ...any) {
	w.remarks = append(w.remarks, fmt.Sprintf(format, args...))
}

func soakSecs(minutes int, secs *int) int {
	if secs != nil {
		return *secs
	}
	return minutes * 60
}

// hostsOf are the names of the channel's hosts, sorted.
func (f *Fleet) hostsOf(channel string) []string {
	var names []string
	for name, h := range f.Hosts {
		if h.Channel == channel {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
