package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestEveryRequestGetsARequestIDAndATrace(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fresh := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	for name, row := range map[string]struct {
		sent      []string
		id, trace string
		state     string
	}{
		"kept":       {[]string{"X-Request-Id", "abc-1", "Traceparent", trace, "Tracestate", "a=b"}, "abc-1", trace, "a=b"},
		"made":       {[]string{"Tracestate", "a=b"}, "", "", ""},
		"malformed":  {[]string{"X-Request-Id", "a b", "Traceparent", "00-xyz-1-01", "Tracestate", "a=b"}, "", "", ""},
		"too long":   {[]string{"X-Request-Id", strings.Repeat("a", 129)}, "", "", ""},
		"all zero":   {[]string{"Traceparent", "00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"}, "", "", ""},
		"duplicates": {[]string{"X-Request-Id", "a", "X-Request-Id", "b", "Traceparent", trace, "Traceparent", trace}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := post(t, edge, unaryPath, validToken(t), row.sent...)
			r := receive(t, seen, "the call at the sidecar")
			ids, traces := r.Header.Values("X-Request-Id"), r.Header.Values("Traceparent")
			if len(ids) != 1 || !requestIDPattern.MatchString(ids[0]) || got.header.Get("X-Request-Id") != ids[0] {
				t.Errorf("request ids: %q, answered %q", ids, got.header.Get("X-Request-Id"))
			}
			if row.id != "" && ids[0] != row.id {
				t.Errorf("request id: %q", ids)
			}
			if len(traces) != 1 || (row.trace != "" && traces[0] != row.trace) || !fresh.MatchString(traces[0]) {
				t.Errorf("traces: %q", traces)
			}
			if r.Header.Get("Tracestate") != row.state {
				t.Errorf("tracestate: %q", r.Header.Get("Tracestate"))
			}
		})
	}
}
