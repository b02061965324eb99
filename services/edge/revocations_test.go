package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestARevokedTokenIsRefusedAndWhatWasIssuedLaterIsNot(t *testing.T) {
	handle, _ := recorded()
	until := time.Now().Add(-10 * time.Second).Truncate(time.Second).Add(300 * time.Millisecond)
	issued := func(offset int64, change map[string]any) string {
		claims := claimsWith(change)
		claims["iat"] = until.Unix() + offset
		return sign(t, 0, kid("k1"), claims)
	}
	for _, listed := range []struct {
		claim, value string
		claims       map[string]any
	}{
		{"sub", "user-1", nil},
		{"sid", "session-1", map[string]any{"sid": "session-1"}},
		{"key_id", keyID, map[string]any{"key_id": keyID}},
	} {
		t.Run(listed.claim, func(t *testing.T) {
			sidecar := newFakeSidecar(t, handle)
			sidecar.revoke(listed.claim, listed.value, until)
			edge := startEdge(t, sidecar.URL, nil)
			for name, row := range map[string]struct {
				token  string
				status int
			}{
				"before":               {issued(-1, listed.claims), 401},
				"in the same second":   {issued(0, listed.claims), 401},
				"in the next second":   {issued(1, listed.claims), 200},
				"another's":            {issued(-1, map[string]any{"sub": "user-2"}), 200},
				"not issued at all":    {sign(t, 0, kid("k1"), claimsWith(merged(listed.claims, map[string]any{"iat": nil}))), 401},
				"value in other claim": {issued(-1, map[string]any{"sub": "other", "email": listed.value}), 200},
			} {
				if got := post(t, edge, unaryPath, row.token); got.status != row.status {
					t.Errorf("%s: got %d %s", name, got.status, got.body)
				}
			}
		})
	}
}

func merged(first, second map[string]any) map[string]any {
	all := map[string]any{}
	for _, part := range []map[string]any{first, second} {
		for name, value := range part {
			all[name] = value
		}
	}
	return all
}

func TestARevocationCountsWithinSecondsAndStaysInForceWhenTheListCannotBeRead(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"sid": "session-1"}))
	if got := post(t, edge, unaryPath, token); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	sidecar.revoke("sid", "session-1", time.Now())
	eventually(t, "the token to end", func() bool { return post(t, edge, unaryPath, token).status == 401 })
	sidecar.authOut.Store(true)
	eventually(t, "the failure to be logged", func() bool { return strings.Contains(edge.log.String(), `"readable":false`) })
	post(t, edge, unaryPath, token).wants(t, 401, codeUnauthenticated)
	if got := post(t, edge, unaryPath, goodToken(t)); got.status != 200 {
		t.Errorf("a good token in the outage: got %d", got.status)
	}
	if got := do(t, request(t, http.MethodGet, edge.url+healthPath, "", nil)); got.status != 200 {
		t.Errorf("health: %d", got.status)
	}
	sidecar.authOut.Store(false)
	eventually(t, "the recovery to be logged", func() bool { return strings.Contains(edge.log.String(), `"readable":true`) })
}

func TestNobodyIsLetInBeforeTheListWasReadOnce(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	sidecar.authOut.Store(true)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, goodToken(t)).wants(t, 503, codeUnavailable)
	if len(seen) != 0 {
		t.Error("a call passed")
	}
	sidecar.authOut.Store(false)
	eventually(t, "calls to pass", func() bool { return post(t, edge, unaryPath, goodToken(t)).status == 200 })
}

func TestAListThatWasNotNeededIsReadBeforeItIsUsed(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken, RevocationInterval: time.Millisecond}
	list := newRevocations(s, newIssuer(s, http.DefaultClient), slog.New(slog.DiscardHandler), func(*revoked) {})
	who := caller{isToken: true, user: "user-1", issued: time.Now().Unix()}
	if refused, err := list.refuses(who); refused || err != nil {
		t.Fatalf("%v %v", refused, err)
	}
	list.used.Store(time.Now().Add(-2 * revocationsIdle).UnixNano())
	go list.follow(t.Context(), func() bool { return false })
	eventually(t, "the reading to pause", list.paused.Load)
	sidecar.revoke("sub", "user-1", time.Now())
	if refused, err := list.refuses(who); !refused || err != nil {
		t.Errorf("%v %v", refused, err)
	}
}

func TestARevocationEndsLiveStreams(t *testing.T) {
	key := newKey()
	for name, row := range map[string]struct{ credential, claim, value string }{
		"session":        {sign(t, 0, kid("k1"), claimsWith(map[string]any{"sid": "session-1"})), "sid", "session-1"},
		"user":           {goodToken(t), "sub", "user-1"},
		"key":            {key, "key_id", keyID},
		"token of a key": {sign(t, 0, kid("k1"), claimsWith(map[string]any{"key_id": keyID})), "key_id", keyID},
	} {
		t.Run(name, func(t *testing.T) {
			next := make(chan string)
			handle, left := eventStream(next)
			sidecar := newFakeSidecar(t, handle)
			sidecar.knows(key, validKey())
			edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
			connect := func(credential string) *http.Response {
				response, err := http.DefaultClient.Do(request(t, http.MethodGet, edge.url+streamPath+"?conversationId=c", credential, nil))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { response.Body.Close() })
				return response
			}
			revokedOne := connect(row.credential)
			other := connect(sign(t, 0, kid("k1"), claimsWith(map[string]any{"sub": "user-2"})))
			if revokedOne.StatusCode != 200 || other.StatusCode != 200 {
				t.Fatalf("%d %d", revokedOne.StatusCode, other.StatusCode)
			}
			sidecar.knows(key, map[string]any{"valid": false, "code": "REVOKED"})
			began := time.Now()
			sidecar.revoke(row.claim, row.value, began)
			ended := make(chan error, 1)
			go func() {
				rest, err := io.ReadAll(revokedOne.Body)
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
			if again := connect(row.credential); again.StatusCode != 401 {
				t.Errorf("again: %d", again.StatusCode)
			}
			select {
			case next <- "id: 1\n":
			case <-time.After(5 * time.Second):
				t.Fatal("another's stream ended too")
			}
			if line, err := bufio.NewReader(other.Body).ReadString('\n'); line != "id: 1\n" || err != nil {
				t.Errorf("another's stream: %q %v", line, err)
			}
		})
	}
}

func TestARevocationIsNewOnlyOnce(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken}
	list := newRevocations(s, newIssuer(s, http.DefaultClient), slog.New(slog.DiscardHandler), func(*revoked) {})
	seen := func(until time.Time) time.Time {
		sidecar.revoke("key_id", keyID, until)
		list.read()
		return (*list.current.Load())[revokedClaim{"key_id", keyID}].seen
	}
	until := time.Now()
	first := seen(until)
	if again := seen(until); again != first {
		t.Error("the same revocation counts as new")
	}
	if later := seen(until.Add(time.Minute)); later == first {
		t.Error("a later revocation does not count as new")
	}
}

func TestAStreamThatEndsIsForgotten(t *testing.T) {
	e := &edge{}
	e.draining, e.drain = context.WithCancel(t.Context())
	ctx, end := context.WithCancel(context.WithValue(t.Context(), callKey{}, &call{}))
	e.opened(ctx, "llm")
	if !e.streams.any() {
		t.Fatal("not kept")
	}
	end()
	eventually(t, "the stream to be forgotten", func() bool { return !e.streams.any() })
}
