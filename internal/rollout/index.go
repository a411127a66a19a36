package rollout

type index struct{}
