package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"nixfleet/internal/agent/doctor"
)

// errNotWell: the doctor found something, and has said what.
var errNotWell = errors.New("something is wrong")

// doctorCmd looks at what an agent with the same settings would need.
type doctorCmd struct {
	runCmd `embed:""`
	JSON   bool `help:"As JSON."`
}

func (c *doctorCmd) Run(e *env) error {
	cfg, err := c.config(e)
	if err != nil {
		return err
	}
	patient := doctor.Patient{Config: cfg}
	if patient.Machine, patient.MachineErr = c.HostBackend.open(); patient.MachineErr == nil {
		defer patient.Machine.Close()
	}
	findings := doctor.Examine(e.ctx, patient)
	if c.JSON {
		err = json.NewEncoder(e.out).Encode(findings)
	} else {
		err = prescribe(e.out, findings)
	}
	if err == nil && !doctor.AllWell(findings) {
		err = errNotWell
	}
	return err
}

// prescribe writes findings for a person: a line each, and below it what to do.
func prescribe(out io.Writer, findings []doctor.Finding) error {
	for _, f := range findings {
		if _, err := fmt.Fprintf(out, "%-8s %-16s %s\n", f.Verdict, f.Check, f.Detail); err != nil {
			return err
		}
		if f.Remedy != "" {
			if _, err := fmt.Fprintf(out, "%-8s %-16s to do: %s\n", "", "", f.Remedy); err != nil {
				return err
			}
		}
	}
	return nil
}
