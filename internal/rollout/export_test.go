package rollout

// Reloaded is the world as a store gives it back: nothing is worked out yet.
func Reloaded(w *World) *World {
	again := *w
	again.index = nil
	return &again
}
