package fleet

// Limit is how many of the budget's resolved hosts may be disrupted at once. A
// percentage is rounded down and allows at least one; of two limits the smaller
// holds. Without a limit all of them may.
func (b Budget) Limit() int {
	limit := len(b.Hosts)
	if b.MaxInFlightPct != nil {
		limit = min(limit, percent(*b.MaxInFlightPct, len(b.Hosts)))
	}
	if b.MaxInFlight != nil {
		limit = min(limit, *b.MaxInFlight)
	}
	return limit
}

// percent is pct of n, rounded down, and at least one.
func percent(pct, n int) int { return max(1, pct*n/100) }
