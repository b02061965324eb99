package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestTheAccessLogHasNoSecrets(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	token := validToken(t)
	post(t, edge, unaryPath, token, "X-Request-Id", "mine", "Idempotency-Key", "canary-key", "Cookie", "session=canary-cookie")
	do(t, request(t, http.MethodGet, edge.url+streamPath+"?conversationId=canary-query", token, nil))
	post(t, edge, "/nowhere/canary-path", token+"x")
	edge.stop()
	receive(t, edge.done, "the edge to stop")
	text := edge.log.String()
	for _, secret := range []string{"canary", token, strings.Split(token, ".")[2], "user-1", "one@example.org"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
	var first struct {
		Msg, Method, Route, RequestID, TraceID, User string
		Status                                       int
		DurationMs                                   float64
	}
	if err := json.Unmarshal([]byte(strings.SplitN(text, "\n", 2)[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.Msg != "request" || first.Method != "POST" || first.Route != unaryPath || first.RequestID != "mine" ||
		first.Status != 200 || first.DurationMs <= 0 || len(first.TraceID) != 32 || first.User != hashUser("user-1") {
		t.Errorf("got %+v", first)
	}
}
