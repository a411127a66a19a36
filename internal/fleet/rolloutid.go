package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// maxRolloutID keeps ids fit for file names and paths of URLs.
const maxRolloutID = 200

// RolloutID names a channel's rollout of a ref. The first attempt carries no
// number; 0 means 1.
func RolloutID(channel, ref string, attempt int) string {
	id := channel + "@" + ref
	if attempt > 1 {
		id += "." + strconv.Itoa(attempt)
	}
	return id
}

// ParseRolloutID takes an id apart: [a-z0-9_-]+@[0-9a-f]+(\.[1-9][0-9]*)?, at
// most 200 bytes. RolloutID of the parts is the id again, so ".1" is refused.
func ParseRolloutID(id string) (channel, ref string, attempt int, err error) {
	bad := func(why string) (string, string, int, error) {
		return "", "", 0, fmt.Errorf("rollout id %.210q: %s", id, why)
	}
	if len(id) > maxRolloutID {
		return bad(fmt.Sprintf("longer than %d bytes", maxRolloutID))
	}
	channel, rest, found := strings.Cut(id, "@")
	if !found {
		return bad("has no @ between channel and ref")
	}
	if err := checkChannelName(channel); err != nil {
		return bad(err.Error())
	}
	ref, number, numbered := strings.Cut(rest, ".")
	if err := checkRef(ref); err != nil {
		return bad(err.Error())
	}
	attempt = 1
	if numbered {
		attempt, err = strconv.Atoi(number)
		if err != nil || attempt < 2 || number != strconv.Itoa(attempt) {
			return bad("the attempt is a number from 2 on, without sign or zeros before it")
		}
	}
	return channel, ref, attempt, nil
}

func checkChannelName(s string) error { return checkBytes("channel name", s, channelBytes) }

func checkRef(s string) error { return checkBytes("ref", s, hexBytes) }

func checkBytes(what, s string, set *byteSet) error {
	if s == "" {
		return fmt.Errorf("the %s is empty", what)
	}
	if i := indexOther(s, set); i >= 0 {
		return fmt.Errorf("the %s %.80q holds %q", what, s, s[i])
	}
	return nil
}
