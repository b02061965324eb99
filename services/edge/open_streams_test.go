package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestARevocationClosesOpenStreams(t *testing.T) {
	key := newAPIKey()
	for name, row := range map[string]struct{ credential, claim, value string }{
		"session":        {sign(t, 0, kid("k1"), claimsWith(map[string]any{"sid": "session-1"})), "sid", "session-1"},
		"user":           {validToken(t), "sub", "user-1"},
		"key":            {key, "key_id", keyID},
		"token of a key": {sign(t, 0, kid("k1"), claimsWith(map[string]any{"key_id": keyID})), "key_id", keyID},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan string)
			handle, left := eventStream(next)
			sidecar := newFakeSidecar(t, handle)
			sidecar.setVerification(key, validVerification())
			edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
			connect := func(credential string) *http.Response {
				response, err := http.DefaultClient.Do(request(t, http.MethodGet, edge.url+streamPath+"?conversationId=c", credential, nil))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { response.Body.Close() })
				return response
			}
			revokedStream := connect(row.credential)
			other := connect(sign(t, 0, kid("k1"), claimsWith(map[string]any{"sub": "user-2"})))
			if revokedStream.StatusCode != 200 || other.StatusCode != 200 {
				t.Fatalf("%d %d", revokedStream.StatusCode, other.StatusCode)
			}
			sidecar.setVerification(key, map[string]any{"valid": false, "code": "REVOKED"})
			began := time.Now()
			sidecar.revoke(row.claim, row.value, began)
			ended := make(chan error, 1)
			go func() {
				rest, err := io.ReadAll(revokedStream.Body)
				if len(rest) != 0 {
					err = fmt.Errorf("got %q", rest)
				}
				ended <- err
			}()
			if err := receive(t, ended, "the stream to end"); err != nil {
				t.Errorf("want a clean end: %v", err)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			receive(t, left, "the upstream to be closed")
			if retried := connect(row.credential); retried.StatusCode != 401 {
				t.Errorf("reconnecting: %d", retried.StatusCode)
			}
			select {
			case next <- "id: 1\n":
			case <-time.After(5 * time.Second):
				t.Fatal("another user's stream ended too")
			}
			if line, err := bufio.NewReader(other.Body).ReadString('\n'); line != "id: 1\n" || err != nil {
				t.Errorf("another user's stream: %q %v", line, err)
			}
		})
	}
}

func TestAnEndedStreamIsUntracked(t *testing.T) {
	e := &edge{}
	e.draining, e.drain = context.WithCancel(t.Context())
	ctx, end := context.WithCancel(context.WithValue(t.Context(), callKey{}, &call{}))
	e.trackStream(ctx, "llm")
	if !e.streams.any() {
		t.Fatal("the stream is not tracked")
	}
	end()
	eventually(t, "the stream to be untracked", func() bool { return !e.streams.any() })
}

func TestADrainEndsStreamsFinishesCallsAndRefusesConnections(t *testing.T) {
	next := make(chan string)
	streaming, left := eventStream(next)
	working, finish := make(chan struct{}), make(chan struct{})
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "StreamEvents") {
			streaming(w, r)
			return
		}
		close(working)
		<-finish
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}).URL, nil)
	response := open(t, t.Context(), edge, http.MethodGet)
	answered := make(chan reply, 1)
	go func() { answered <- post(t, edge, quickPath, validToken(t)) }()
	receive(t, working, "the call at the sidecar")

	edge.stop()
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != reconnectEvent {
		t.Errorf("the stream: %q %v", rest, err)
	}
	receive(t, left, "the upstream of the stream to be closed")
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(edge.url, "http://"), time.Second); err == nil {
		t.Error("a new connection was accepted")
	}
	close(finish)
	if got := receive(t, answered, "the call in flight"); got.status != 200 {
		t.Errorf("the call in flight: %d %s", got.status, got.body)
	}
	if err := receive(t, edge.done, "the edge to stop"); err != nil {
		t.Error(err)
	}
}

func TestAStreamEndsWhenItsTokenExpires(t *testing.T) {
	next := make(chan string, 1)
	handle, left := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	// Expired, and 2 s before the end of the leeway.
	expired := claimsWith(map[string]any{"exp": time.Now().Add(2*time.Second - tokenLeeway).Unix()})
	r := request(t, http.MethodGet, edge.url+streamPath+"?conversationId=c", sign(t, 0, kid("k1"), expired), nil)
	response, err := http.DefaultClient.Do(r)
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

func TestAppsWithOpenStreamsAreProbed(t *testing.T) {
	next := make(chan string)
	streaming, _ := eventStream(next)
	probed := make(chan string, 100)
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, healthPath) {
			probed <- r.Header.Get("dapr-api-token") + " " + r.URL.Path
			return
		}
		streaming(w, r)
	}).URL, map[string]string{"EDGE_KEEP_CONNECTED_SECONDS": "0.05"})
	if len(probed) != 0 {
		t.Error("an app without open streams was probed")
	}
	open(t, t.Context(), edge, http.MethodGet)
	for range 2 {
		if got := receive(t, probed, "a probe of the app"); got != sidecarToken+" /v1.0/invoke/llm/method/healthz" {
			t.Errorf("got %q", got)
		}
	}
	close(next)
}
