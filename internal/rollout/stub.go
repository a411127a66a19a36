package rollout

func (a Opened) check(w *World) error { return nil }
func (a Opened) apply(w *World, s stamp) {}

func (a Refreshed) check(w *World) error { return nil }
func (a Refreshed) apply(w *World, s stamp) {}

func (a Delivered) check(w *World) error { return nil }
func (a Delivered) apply(w *World, s stamp) {}

func (a Released) check(w *World) error { return nil }
func (a Released) apply(w *World, s stamp) {}

func (a Signalled) check(w *World) error { return nil }
func (a Signalled) apply(w *World, s stamp) {}

func (a Advanced) check(w *World) error { return nil }
func (a Advanced) apply(w *World, s stamp) {}

func (a Skipped) check(w *World) error { return nil }
func (a Skipped) apply(w *World, s stamp) {}

func (a Joined) check(w *World) error { return nil }
func (a Joined) apply(w *World, s stamp) {}

func (a Lost) check(w *World) error { return nil }
func (a Lost) apply(w *World, s stamp) {}

func (a Found) check(w *World) error { return nil }
func (a Found) apply(w *World, s stamp) {}

func (a Halted) check(w *World) error { return nil }
func (a Halted) apply(w *World, s stamp) {}

func (a Moved) check(w *World) error { return nil }
func (a Moved) apply(w *World, s stamp) {}

func (a Deferred) check(w *World) error { return nil }
func (a Deferred) apply(w *World, s stamp) {}

func (a Rejected) check(w *World) error { return nil }
func (a Rejected) apply(w *World, s stamp) {}

func (a Removed) check(w *World) error { return nil }
func (a Removed) apply(w *World, s stamp) {}

func (a Recovering) check(w *World) error { return nil }
func (a Recovering) apply(w *World, s stamp) {}

func (a Recovered) check(w *World) error { return nil }
func (a Recovered) apply(w *World, s stamp) {}

func (a Paused) check(w *World) error { return nil }
func (a Paused) apply(w *World, s stamp) {}

func (a Resumed) check(w *World) error { return nil }
func (a Resumed) apply(w *World, s stamp) {}

func (a Accepted) check(w *World) error { return nil }
func (a Accepted) apply(w *World, s stamp) {}

func (a RolledBack) check(w *World) error { return nil }
func (a RolledBack) apply(w *World, s stamp) {}

func (a QuarantineCleared) check(w *World) error { return nil }
func (a QuarantineCleared) apply(w *World, s stamp) {}

func (a Forgotten) check(w *World) error { return nil }
func (a Forgotten) apply(w *World, s stamp) {}

func (a Remembered) check(w *World) error { return nil }
func (a Remembered) apply(w *World, s stamp) {}
