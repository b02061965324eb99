package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

const appToken = "app-secret-canary"

// fromApp adds what the edge's sidecar adds to a call of another Dapr app.
func fromApp(r *http.Request, token string) *http.Request {
	r.Header.Set("dapr-api-token", token)
	r.Header.Set("dapr-caller-app-id", "shop")
	return r
}

func TestTheStreamOfAnotherDaprAppEndsWithReconnectBeforeItsSidecarCutsIt(t *testing.T) {
	next := make(chan string, 1)
	handle, left := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{
		"APP_API_TOKEN": appToken, "EDGE_SIDECAR_STREAM_SECONDS": "1",
	})
	path := edge.url + streamPath + "?conversationId=c"
	response, err := http.DefaultClient.Do(fromApp(request(t, http.MethodGet, path, validToken(t), nil), appToken))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	next <- "id: 1\n\n"
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != "id: 1\n\n"+reconnectEvent {
		t.Errorf("got %q %v", got, err)
	}
	receive(t, left, "the upstream to be closed")
}

func TestCallsOfAnotherDaprAppAreNotLimitedByAddress(t *testing.T) {
	for name, row := range map[string]struct {
		token   string
		limited int
	}{
		"through the edge's sidecar": {appToken, 0},
		"with a wrong token":         {"guess", 4},
		"without one":                {"", 4},
	} {
		t.Run(name, func(t *testing.T) {
			edge, _, _ := startRecordingEdge(t, map[string]string{"APP_API_TOKEN": appToken, "EDGE_RATE_ADDRESS": "1"})
			count := burst(t, 5, func() reply {
				return do(t, fromApp(request(t, http.MethodPost, edge.url+quickPath, validToken(t), strings.NewReader("{}")), row.token))
			})
			if count[429] != row.limited {
				t.Errorf("got %v", count)
			}
		})
	}
}

func TestPublicCallsOfAnotherDaprAppAreLimitedByApp(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, map[string]string{"APP_API_TOKEN": appToken, "EDGE_RATE_PUBLIC": "1"})
	for _, row := range []struct {
		app    string
		status int
	}{{"shop", 200}, {"shop", 429}, {"desk", 200}} {
		r := fromApp(request(t, http.MethodPost, edge.url+publicPath, "", strings.NewReader("{}")), appToken)
		r.Header.Set("dapr-caller-app-id", row.app)
		if got := do(t, r); got.status != row.status {
			t.Errorf("%s: got %d", row.app, got.status)
		}
	}
}
