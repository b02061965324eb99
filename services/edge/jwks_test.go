package main

import (
	crand "crypto/rand"
	"crypto/rsa"
	"net/http"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v3"
)

func TestARotatedKeyWorksAtOnceAndARemovedOneIsRefused(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "0"})
	old := validToken(t)
	if got := post(t, edge, unaryPath, old); got.status != 200 {
		t.Fatalf("got %d", got.status)
	}
	sidecar.setJWKS("k2", 1)
	if got := post(t, edge, unaryPath, sign(t, 1, kid("k2"), validClaims())); got.status != 200 {
		t.Fatalf("the new key: got %d %s", got.status, got.body)
	}
	post(t, edge, unaryPath, old).wantError(t, 401, codeUnauthenticated)
}

func TestUnknownKeyIDsCauseOneFetchPerInterval(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "60"})
	post(t, edge, unaryPath, validToken(t))
	before := sidecar.jwksFetches.Load()
	var clients sync.WaitGroup
	for range 200 {
		forged := sign(t, 2, kid(randomHex(8)), validClaims())
		clients.Go(func() { post(t, edge, unaryPath, forged).wantError(t, 401, codeUnauthenticated) })
	}
	clients.Wait()
	if extra := sidecar.jwksFetches.Load() - before; extra > 1 {
		t.Errorf("%d fetches in one interval", extra)
	}
	if got := post(t, edge, unaryPath, validToken(t)); got.status != 200 {
		t.Errorf("a valid token during the burst: got %d", got.status)
	}
}

func TestConcurrentRequestsAtStartFetchTheJWKSOnce(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, nil)
	token := validToken(t)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if got := post(t, edge, unaryPath, token); got.status != 200 {
				t.Errorf("got %d", got.status)
			}
		})
	}
	clients.Wait()
	if got := sidecar.jwksFetches.Load(); got != 1 {
		t.Errorf("%d fetches", got)
	}
}

func TestKnownKeysAreUsedDuringAnOutageOfTheIssuer(t *testing.T) {
	edge, sidecar, _ := startRecordingEdge(t, map[string]string{
		"EDGE_JWKS_MIN_REFRESH_SECONDS": "0", "EDGE_JWKS_MAX_AGE_SECONDS": "0"})
	token := validToken(t)
	post(t, edge, unaryPath, token)
	sidecar.jwksDown.Store(true)
	for range 20 {
		if got := post(t, edge, unaryPath, token); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	post(t, edge, unaryPath, sign(t, 1, kid("k2"), validClaims())).wantError(t, 401, codeUnauthenticated)
}

func TestBeforeTheFirstJWKSCallsAreUnavailable(t *testing.T) {
	handle, seen := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	sidecar.jwksDown.Store(true)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "0"})
	got := post(t, edge, unaryPath, validToken(t))
	got.wantError(t, 503, codeUnavailable)
	if got.header.Get("Retry-After") == "" || len(seen) != 0 {
		t.Errorf("Retry-After %q, %d calls reached the sidecar", got.header.Get("Retry-After"), len(seen))
	}
	sidecar.jwksDown.Store(false)
	if got := post(t, edge, unaryPath, validToken(t)); got.status != 200 {
		t.Errorf("after the outage: got %d", got.status)
	}
}

func TestTheSidecarTokenIsNotSentToAnExternalIssuer(t *testing.T) {
	handle, _ := recordingHandler()
	seen := make(chan string, 10)
	other := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("dapr-api-token")
		w.WriteHeader(http.StatusNotFound)
	})
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_JWKS_URL": other.URL + "/keys"})
	post(t, edge, unaryPath, validToken(t)).wantError(t, 503, codeUnavailable)
	if got := receive(t, seen, "the fetch"); got != "" {
		t.Error("the token was sent to another host")
	}
}

func TestOnlyStrongSignatureKeysAreUsed(t *testing.T) {
	weak, err := rsa.GenerateKey(crand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public := &testKeys()[0].PublicKey
	keys, err := usableKeys(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: public, KeyID: "good"},
		{Key: public, KeyID: "good too", Use: "sig", Algorithm: "RS256"},
		{Key: public, KeyID: ""},
		{Key: public, KeyID: "for encryption", Use: "enc"},
		{Key: public, KeyID: "another algorithm", Algorithm: "RS512"},
		{Key: &weak.PublicKey, KeyID: "weak"},
		{Key: []byte("symmetric"), KeyID: "symmetric"},
	}})
	if err != nil || len(keys) != 2 || keys["good"] == nil || keys["good too"] == nil {
		t.Errorf("%v %v", keys, err)
	}
	if _, err := usableKeys(jose.JSONWebKeySet{}); err == nil {
		t.Error("an empty JWKS replaces usable keys")
	}
}
