package agent

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// exposition writes metrics in Prometheus' text format. A library would cost
// every host more memory than all that is told here.
type exposition struct{ bytes.Buffer }

// metric begins a metric: its samples follow.
func (x *exposition) metric(name, kind, help string) func(value float64, labels ...string) {
	fmt.Fprintf(x, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	return func(value float64, labels ...string) { x.sample(name, value, labels...) }
}

// gauge is a metric of one sample.
func (x *exposition) gauge(name, help string, value float64) { x.metric(name, "gauge", help)(value) }

// counter is a metric of one sample that only grows.
func (x *exposition) counter(name, help string, value float64) {
	x.metric(name, "counter", help)(value)
}

// sample writes one line. Labels are names and values in turn.
func (x *exposition) sample(name string, value float64, labels ...string) {
	x.WriteString(name)
	for i := 0; i < len(labels); i += 2 {
		x.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		x.WriteString(labels[i] + `="` + labelValue.Replace(labels[i+1]) + `"`)
	}
	if len(labels) > 0 {
		x.WriteByte('}')
	}
	x.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

// labelValue escapes what may stand in a label's value.
var labelValue = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
