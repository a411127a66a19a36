package rollout

import "time"

// Publish makes a release the newest.
func Publish(w *World, r *Release) {}

// Prunable lists, by opening, the rollouts that ended or were superseded before
// the given time and are not their channel's newest.
func Prunable(w *World, before time.Time) []string { return nil }

// RollbackScope tells which hosts a RolledBack would ask to leave the rollout,
// and which it leaves alone, both by wave, then name.
func RollbackScope(w *World, r *Rollout) (back, stay []string) { return nil, nil }
