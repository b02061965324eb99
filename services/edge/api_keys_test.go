package main

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAnAPIKeySetsItsOwnersIdentityHeaders(t *testing.T) {
	edge, sidecar, seen := startRecordingEdge(t, nil)
	key := newAPIKey()
	sidecar.setVerification(key, validVerification())
	for name, headers := range map[string][]string{
		"bearer":           {"Authorization", "Bearer " + key},
		"lower case":       {"authorization", "bearer " + key},
		"header":           {"X-Api-Key", key},
		"forged headers":   {"X-Api-Key", key, "X-User-Id", "root", "x_key_id", "key_root", "X-Key-Id", "key_root", "X-Scopes", "admin"},
		"hop by hop":       {"X-Api-Key", key, "Connection", "x-key-id, x-user-id"},
		"underscore names": {"X-Api-Key", key, "X_Api_Key", "yk_live_other", "X-Api_Key", "yk_live_other"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := post(t, edge, unaryPath, "", headers...); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			r := receive(t, seen, "the call at the sidecar")
			for header, want := range map[string]string{"X-User-Id": "user-1", "X-User-Email": "one@example.org",
				"X-Scopes": "chat read", "X-Key-Id": keyID} {
				if got := r.Header.Values(header); len(got) != 1 || got[0] != want {
					t.Errorf("%s: want %q, got %q", header, want, got)
				}
			}
			for name, values := range r.Header {
				if strings.Contains(strings.Join(values, " "), key) || strings.Contains(name, "_") {
					t.Errorf("%s passed on", name)
				}
			}
		})
	}
	edge.stop()
	receive(t, edge.done, "the edge to stop")
	if text := edge.log.String(); strings.Contains(text, key) || strings.Contains(text, "user-1") ||
		!strings.Contains(text, `"keyId":"`+keyID+`"`) || !strings.Contains(text, `"user":"`+hashUser("user-1")+`"`) {
		t.Errorf("log: %s", text)
	}
}

func TestEveryInvalidKeyGetsTheSameResponse(t *testing.T) {
	edge, sidecar, seen := startRecordingEdge(t, nil)
	known := func(change map[string]any) map[string]any {
		answer := validVerification()
		for name, value := range change {
			answer[name] = value
		}
		return answer
	}
	want := post(t, edge, unaryPath, "")
	want.wantError(t, 401, codeUnauthenticated)
	for name, answer := range map[string]map[string]any{
		"unknown":           {"valid": false, "code": "NOT_FOUND"},
		"expired":           known(map[string]any{"valid": false, "code": "EXPIRED"}),
		"revoked":           known(map[string]any{"valid": false, "code": "REVOKED"}),
		"low scope":         known(map[string]any{"valid": false, "code": "INSUFFICIENT_SCOPE"}),
		"an unknown code":   known(map[string]any{"valid": false, "code": "WHATEVER"}),
		"no user":           known(map[string]any{"userId": ""}),
		"two users":         known(map[string]any{"userId": "user-1,root"}),
		"no id":             known(map[string]any{"keyId": ""}),
		"a malformed id":    known(map[string]any{"keyId": "key_1\r\nX-Scopes: admin"}),
		"line break":        known(map[string]any{"email": "a@b\r\nX-Scopes: admin"}),
		"malformed scopes":  known(map[string]any{"scopes": []string{"a\nb"}}),
		"an empty response": {},
	} {
		t.Run(name, func(t *testing.T) {
			key := newAPIKey()
			sidecar.setVerification(key, answer)
			if got := post(t, edge, unaryPath, key); got.status != 401 || got.body != want.body ||
				got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	for code, status := range map[string]int{codeBudgetExceeded: 402, codeRateLimited: 429} {
		key := newAPIKey()
		sidecar.setVerification(key, known(map[string]any{"valid": false, "code": code}))
		post(t, edge, unaryPath, key).wantError(t, status, code)
	}
	if len(seen) != 0 {
		t.Error("a refused call reached the sidecar")
	}
}

func TestConcurrentRequestsWithOneKeyShareOneVerification(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, nil)
	for name, row := range map[string]struct {
		answer map[string]any
		status int
	}{
		"good": {validVerification(), 200}, "bad": {map[string]any{"valid": false, "code": "REVOKED"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			key := newAPIKey()
			sidecar.setVerification(key, row.answer)
			before := sidecar.verifyCalls.Load()
			var clients sync.WaitGroup
			for range 200 {
				clients.Go(func() {
					if got := post(t, edge, unaryPath, key); got.status != row.status {
						t.Errorf("got %d %s", got.status, got.body)
					}
				})
			}
			clients.Wait()
			if calls := sidecar.verifyCalls.Load() - before; calls != 1 {
				t.Errorf("auth was called %d times", calls)
			}
		})
	}
}

func TestARevokedKeyIsRefusedAfterItsTTLOrOnceListed(t *testing.T) {
	for name, environment := range map[string]map[string]string{
		"TTL":  {"EDGE_KEY_TTL_SECONDS": "0.3"},
		"list": {"EDGE_REVOCATION_SECONDS": "0.05"},
	} {
		t.Run(name, func(t *testing.T) {
			edge, sidecar, _ := startRecordingEdge(t, environment)
			key := newAPIKey()
			sidecar.setVerification(key, validVerification())
			if got := post(t, edge, unaryPath, key); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			sidecar.setVerification(key, map[string]any{"valid": false, "code": "REVOKED", "keyId": keyID})
			if name == "list" {
				sidecar.revoke("key_id", keyID, time.Now())
			}
			began := time.Now()
			eventually(t, "the key to be refused", func() bool { return post(t, edge, unaryPath, key).status == 401 })
			if took := time.Since(began); took > 1500*time.Millisecond { // shorter than the default TTL of 2 s
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestAKeyReinstatedAfterARevocationIsVerifiedOnce(t *testing.T) {
	handle, _ := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	sidecar.revoke("key_id", keyID, time.Now().Add(time.Hour)) // auth's clock is ahead
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, validToken(t)) // fetches the list
	key := newAPIKey()
	sidecar.setVerification(key, validVerification())
	for range 20 {
		if got := post(t, edge, unaryPath, key); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	if got := sidecar.verifyCalls.Load(); got != 1 {
		t.Errorf("auth was called %d times", got)
	}
}

func TestAKeyStaysValidWhenOnlyItsTokensAreRevoked(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	key := newAPIKey()
	sidecar.setVerification(key, validVerification())
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"key_id": keyID}))
	for _, credential := range []string{key, token} {
		if got := post(t, edge, unaryPath, credential); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	sidecar.revoke("key_id", keyID, time.Now()) // as when its scopes are narrowed
	eventually(t, "the token to be refused", func() bool {
		if got := post(t, edge, unaryPath, key); got.status != 200 {
			t.Fatalf("the key: got %d %s", got.status, got.body)
		}
		return post(t, edge, unaryPath, token).status == 401
	})
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Errorf("the key: got %d %s", got.status, got.body)
	}
}

func TestAVerificationThatRacesWithARevocationIsRepeated(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, validToken(t)) // starts the polling
	verify := func(string) any {
		if sidecar.verifyCalls.Load() == 1 {
			sidecar.revoke("key_id", keyID, time.Now())
			polled := sidecar.listCalls.Load() // a poll in flight may predate the revocation
			for deadline := time.Now().Add(2 * time.Second); sidecar.listCalls.Load() < polled+3 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		return validVerification()
	}
	sidecar.verify.Store(&verify)
	if got := post(t, edge, unaryPath, newAPIKey()); got.status != 200 || sidecar.verifyCalls.Load() != 2 {
		t.Errorf("got %d %s after %d verifications", got.status, got.body, sidecar.verifyCalls.Load())
	}
}

func TestDuringAnOutageOfAuthOnlyFreshVerificationsAreUsed(t *testing.T) {
	edge, sidecar, seen := startRecordingEdge(t, map[string]string{"EDGE_KEY_TTL_SECONDS": "0.5"})
	key, other := newAPIKey(), newAPIKey()
	sidecar.setVerification(key, validVerification())
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	sidecar.authDown.Store(true)
	got := post(t, edge, unaryPath, other)
	got.wantError(t, 503, codeUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	began := time.Now()
	eventually(t, "the cached verification to expire", func() bool { return post(t, edge, unaryPath, key).status == 503 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a stale verification was used for %v", took)
	}
	for len(seen) > 0 {
		<-seen
	}
	post(t, edge, unaryPath, key).wantError(t, 503, codeUnavailable)
	if len(seen) != 0 {
		t.Error("a call reached the sidecar")
	}
	sidecar.authDown.Store(false)
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Errorf("after the outage: %d", got.status)
	}
}

func TestACancelledRequestDoesNotFailOthersInTheSameFlight(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, nil)
	key := newAPIKey()
	called, proceed := make(chan struct{}), make(chan struct{})
	verify := func(string) any {
		close(called)
		<-proceed
		return validVerification()
	}
	sidecar.verify.Store(&verify)
	first := request(t, http.MethodPost, edge.url+unaryPath, key, strings.NewReader("{}"))
	ctx, cancel := context.WithCancel(t.Context())
	go http.DefaultClient.Do(first.WithContext(ctx))
	receive(t, called, "the call to auth")
	second := make(chan reply, 1)
	go func() { second <- post(t, edge, unaryPath, key) }()
	cancel()
	close(proceed)
	if got := receive(t, second, "the second call"); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}
