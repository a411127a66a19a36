package main

import (
	"errors"
	"fmt"
	"net/http"

	"nixfleet/internal/operator"
	"nixfleet/internal/wire"
)

type channelCmd struct {
	List   channelListCmd   `cmd:"" help:"List the channels."`
	Pause  channelPauseCmd  `cmd:"" help:"Start nothing new in a channel, also of later releases."`
	Resume channelResumeCmd `cmd:"" help:"End a pause."`
}

type channelListCmd struct {
	connection
	JSON bool `help:"As JSON."`
}

func (c *channelListCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	channels, err := operator.List[wire.ChannelView](e.ctx, client, wire.PathChannels, "")
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(e.out, channels)
	}
	writeChannels(e, channels)
	return nil
}

// channelAction is what pause and resume have in common.
type channelAction struct {
	connection
	Channel string `arg:"" help:"The channel."`
	Why     string `required:"" placeholder:"TEXT" help:"The reason, kept in the audit log."`
}

func (c *channelAction) do(e *env, path, done string) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Post(e.ctx, wire.Fill(path, c.Channel), wire.ActionRequest{Why: c.Why}, nil); err != nil {
		return notFound(err, "there is no channel %s; nixfleet channel list names them", c.Channel)
	}
	fmt.Fprintf(e.out, "%s is %s\n", c.Channel, done)
	return nil
}

type channelPauseCmd struct{ channelAction }

func (c *channelPauseCmd) Run(e *env) error { return c.do(e, wire.PathChannelPause, "paused") }

type channelResumeCmd struct{ channelAction }

func (c *channelResumeCmd) Run(e *env) error { return c.do(e, wire.PathChannelResume, "resumed") }

// notFound replaces the control plane's 404 with a sentence; other errors stay.
func notFound(err error, format string, args ...any) error {
	var refused *wire.Error
	if errors.As(err, &refused) && refused.Status() == http.StatusNotFound {
		return fmt.Errorf(format, args...)
	}
	return err
}
