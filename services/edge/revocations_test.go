package main

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTokensIssuedUpToTheRevocationAreRefused(t *testing.T) {
	handle, _ := recordingHandler()
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
			withoutIssueTime := claimsWith(listed.claims)
			delete(withoutIssueTime, "iat")
			for name, row := range map[string]struct {
				token  string
				status int
			}{
				"before":               {issued(-1, listed.claims), 401},
				"in the same second":   {issued(0, listed.claims), 401},
				"in the next second":   {issued(1, listed.claims), 200},
				"another user's":       {issued(-1, map[string]any{"sub": "user-2"}), 200},
				"without iat":          {sign(t, 0, kid("k1"), withoutIssueTime), 401},
				"value in other claim": {issued(-1, map[string]any{"sub": "other", "email": listed.value}), 200},
			} {
				if got := post(t, edge, unaryPath, row.token); got.status != row.status {
					t.Errorf("%s: got %d %s", name, got.status, got.body)
				}
			}
		})
	}
}

func TestTheRevocationListStaysInForceDuringAnOutageOfAuth(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"sid": "session-1"}))
	if got := post(t, edge, unaryPath, token); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	sidecar.revoke("sid", "session-1", time.Now())
	eventually(t, "the token to be refused", func() bool { return post(t, edge, unaryPath, token).status == 401 })
	sidecar.authDown.Store(true)
	eventually(t, "the failure to be logged", func() bool { return strings.Contains(edge.log.String(), `"readable":false`) })
	post(t, edge, unaryPath, token).wantError(t, 401, codeUnauthenticated)
	if got := post(t, edge, unaryPath, validToken(t)); got.status != 200 {
		t.Errorf("a valid token in the outage: got %d", got.status)
	}
	if got := do(t, request(t, http.MethodGet, edge.url+healthPath, "", nil)); got.status != 200 {
		t.Errorf("health: %d", got.status)
	}
	sidecar.authDown.Store(false)
	eventually(t, "the recovery to be logged", func() bool { return strings.Contains(edge.log.String(), `"readable":true`) })
}

func TestBeforeTheFirstRevocationListCallsAreUnavailable(t *testing.T) {
	handle, seen := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	sidecar.authDown.Store(true)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, validToken(t)).wantError(t, 503, codeUnavailable)
	if len(seen) != 0 {
		t.Error("a call reached the sidecar")
	}
	sidecar.authDown.Store(false)
	eventually(t, "a call to succeed", func() bool { return post(t, edge, unaryPath, validToken(t)).status == 200 })
}

func TestAPausedRevocationListIsRefreshedBeforeUse(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken, RevocationInterval: time.Millisecond}
	list := newRevocationList(s, newAuthClient(s, http.DefaultClient, tracing{}), slog.New(slog.DiscardHandler), func(revocationSet) {})
	p := principal{isToken: true, user: "user-1", issuedAt: time.Now().Unix()}
	if revoked, err := list.isRevoked(t.Context(), p); revoked || err != nil {
		t.Fatalf("%v %v", revoked, err)
	}
	list.lastUsed.Store(time.Now().Add(-2 * revocationIdleTimeout).UnixNano())
	go list.poll(t.Context(), func() bool { return false })
	eventually(t, "the polling to pause", list.paused.Load)
	sidecar.revoke("sub", "user-1", time.Now())
	if revoked, err := list.isRevoked(t.Context(), p); !revoked || err != nil {
		t.Errorf("%v %v", revoked, err)
	}
}

func TestAnUnchangedRevocationKeepsItsLearnedTime(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken}
	list := newRevocationList(s, newAuthClient(s, http.DefaultClient, tracing{}), slog.New(slog.DiscardHandler), func(revocationSet) {})
	learnedAt := func(until time.Time) time.Time {
		sidecar.revoke("key_id", keyID, until)
		list.refresh(t.Context())
		return (*list.current.Load())[revokedClaim{"key_id", keyID}].learnedAt
	}
	until := time.Now()
	first := learnedAt(until)
	if again := learnedAt(until); again != first {
		t.Error("an unchanged revocation counts as new")
	}
	if later := learnedAt(until.Add(time.Minute)); later == first {
		t.Error("a later revocation does not count as new")
	}
}
