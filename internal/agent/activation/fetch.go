package activation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nixfleet/internal/agent/host"
	"nixfleet/internal/crashpoint"
	"nixfleet/internal/lifecycle"
	"nixfleet/internal/wire"
)

// fetchTimeout is the outer deadline of one attempt. What arrived by then stays,
// and the next attempt goes on from there.
const fetchTimeout = 2 * time.Hour

// Fetch brings the target into the store. When this boot is not the one in which
// the fetch began, the contents of what is there are checked and repaired: a
// power cut leaves paths that the store calls valid and whose files are empty.
func Fetch(ctx context.Context, m host.Machine, s Spec, rec Recorder) (lifecycle.Body, error) {
	facts, err := m.Facts(ctx)
	if err != nil {
		return nil, transient(ctx, "look at the machine", err)
	}
	mark, err := rec.Recall(ctx, s.Rollout, StepFetch)
	if err != nil {
		return nil, transient(ctx, "recall the fetch", err)
	}
	began := Mark{BootID: facts.BootID}
	if mark.BootID == "" {
		if err := rec.Record(ctx, s.Rollout, StepFetch, began); err != nil {
			return nil, transient(ctx, "record the fetch", err)
		}
		crashpoint.Here("activation/fetch-marked", "the fetch is known to have begun in this boot; nothing was fetched")
	}
	repair := mark.BootID != "" && mark.BootID != facts.BootID
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err = m.Fetch(limited, host.Fetch{
		Rollout:   s.Rollout,
		Closure:   s.Target,
		Caches:    s.Caches,
		CacheKeys: s.CacheKeys,
		Repair:    repair,
		Progress:  s.Progress,
	})
	if err != nil {
		return fetchFailed(ctx, err)
	}
	crashpoint.Here("activation/fetched", "the target is in the store; nothing is committed about it")
	if repair {
		if err := rec.Record(ctx, s.Rollout, StepFetch, began); err != nil {
			return nil, transient(ctx, "record the fetch", err)
		}
	}
	return nil, nil
}

// FetchAhead brings a target into the store before anything about it was decided.
// It gives final failures as they are, and a *Wait for what may come right. The
// caller has recorded the boot in which it began, for the Fetch that follows.
func FetchAhead(ctx context.Context, m host.Machine, s Spec) error {
	space, err := m.Space(ctx)
	if err != nil {
		return transient(ctx, "look at the free space", err)
	}
	if err := StoreSpace(space, s.MinFreeStore); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	err = m.Fetch(limited, host.Fetch{Rollout: s.Rollout, Closure: s.Target, Caches: s.Caches, CacheKeys: s.CacheKeys})
	if err == nil {
		return nil
	}
	if failed, wait := fetchFailed(ctx, err); failed == nil {
		return wait
	}
	return err
}

// fetchFailed tells final failures from those that are waited out.
func fetchFailed(ctx context.Context, err error) (lifecycle.Body, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fetch: %w", context.Cause(ctx))
	}
	var failed *host.FetchError
	if !errors.As(err, &failed) {
		return nil, &Wait{On: wire.WaitingOnCache, Err: err}
	}
	switch failed.Kind {
	case host.FetchBadSignature, host.FetchNoKeys:
		return lifecycle.ActivationFailed{
			ExitCode:     exitUnseen,
			StderrTail:   host.Tail([]byte(failed.Error() + "\n" + failed.Detail)),
			Phase:        lifecycle.PhaseFetch,
			BadSignature: failed.Kind == host.FetchBadSignature,
		}, nil
	case host.FetchNoSpace:
		return nil, &Wait{On: wire.WaitingOnDiskNix, Err: err}
	}
	return nil, &Wait{On: wire.WaitingOnCache, Err: err}
}
