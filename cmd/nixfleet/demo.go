package main

import (
	"os"

	"nixfleet/internal/demo"
)

type demoCmd struct{}

type demoServiceCmd struct {
	Closure string `arg:""`
	Address string `arg:""`
	Lock    string `arg:""`
}

func (c *demoServiceCmd) Run(e *env) error { return demo.Serve(e.ctx, c.Closure, c.Address, c.Lock) }

type demoReaperCmd struct {
	Folder string `arg:""`
}

func (c *demoReaperCmd) Run(*env) error { return demo.Reap(os.Stdin, c.Folder) }
