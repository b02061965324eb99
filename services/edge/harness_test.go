package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v3/jwt"
)

const (
	unaryPath    = "/api/v1/llm/conversation/send-message"
	streamPath   = "/api/v1/llm/conversation/stream-events"
	quickPath    = "/api/v1/llm/conversation/get-turn"
	publicPath   = "/api/v1/auth/token/refresh-token"
	sidecarToken = "sidecar-secret-canary"
	invokeJWKS   = "/v1.0/invoke/auth/method/.well-known/jwks.json"
	invokeVerify = "/v1.0/invoke/auth/method/yocaso.auth.v1.ApiKeyService/VerifyApiKey"
	invokeList   = "/v1.0/invoke/auth/method/yocaso.auth.v1.TokenService/ListRevocations"
)

// Generated once: an RSA key takes up to a second.
var testKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	keys := make([]*rsa.PrivateKey, 3)
	for i := range keys {
		keys[i], _ = rsa.GenerateKey(rand.Reader, 2048)
	}
	return keys
})

// fakeSidecar replaces daprd: it serves the RPCs and the JWKS of app auth, and passes other calls to a handler.
type fakeSidecar struct {
	*httptest.Server
	handle      atomic.Pointer[http.HandlerFunc]
	keys        atomic.Pointer[jose.JSONWebKeySet]
	jwksFetches atomic.Int64
	jwksDown    atomic.Bool

	authDown    atomic.Bool
	verify      atomic.Pointer[func(secret string) any]
	verifyCalls atomic.Int64
	revocations atomic.Pointer[[]map[string]any]
	listCalls   atomic.Int64
}

func newFakeSidecar(t testing.TB, handle http.HandlerFunc) *fakeSidecar {
	t.Helper()
	s := &fakeSidecar{}
	s.handle.Store(&handle)
	s.setJWKS("k1", 0)
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true) // like daprd
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *fakeSidecar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case invokeJWKS:
		s.serveJWKS(w, r)
	case invokeVerify:
		s.serveVerify(w, r)
	case invokeList:
		revocations := []map[string]any{}
		if listed := s.revocations.Load(); listed != nil {
			revocations = *listed
		}
		s.respond(w, r, map[string]any{"revocations": revocations})
		s.listCalls.Add(1)
	default:
		(*s.handle.Load())(w, r)
	}
}

func (s *fakeSidecar) serveVerify(w http.ResponseWriter, r *http.Request) {
	s.verifyCalls.Add(1)
	var body struct {
		Secret string
		Cost   *int
	}
	if json.NewDecoder(r.Body).Decode(&body) != nil || body.Cost == nil || *body.Cost != 0 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var verification any = map[string]any{"valid": false, "code": "NOT_FOUND"}
	if verify := s.verify.Load(); verify != nil {
		verification = (*verify)(body.Secret)
	}
	s.respond(w, r, verification)
}

func (s *fakeSidecar) respond(w http.ResponseWriter, r *http.Request, body any) {
	if s.authDown.Load() || r.Method != http.MethodPost || r.Header.Get("dapr-api-token") != sidecarToken {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}

func (s *fakeSidecar) serveJWKS(w http.ResponseWriter, r *http.Request) {
	s.jwksFetches.Add(1)
	if s.jwksDown.Load() || r.Header.Get("dapr-api-token") != sidecarToken {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s.keys.Load())
}

// setJWKS serves a JWKS of one usable key.
func (s *fakeSidecar) setJWKS(id string, key int) {
	s.keys.Store(&jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &testKeys()[key].PublicKey, KeyID: id, Algorithm: "RS256", Use: "sig"},
		{Key: []byte("a symmetric key that must never verify"), KeyID: "oct", Algorithm: "HS256"},
	}})
}

type runningEdge struct {
	url  string
	log  *lockedBuffer
	stop context.CancelFunc
	done chan error
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func startEdge(t testing.TB, sidecarURL string, environment map[string]string) *runningEdge {
	t.Helper()
	variables := map[string]string{
		"EDGE_SIDECAR_URL": sidecarURL,
		"DAPR_API_TOKEN":   sidecarToken,
	}
	maps.Copy(variables, environment)
	settings, err := readSettings(func(name string) string { return variables[name] })
	if err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	e, err := newEdge(settings, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	running := &runningEdge{url: "http://" + listener.Addr().String(), log: log, stop: stop, done: make(chan error, 1)}
	go func() { running.done <- e.serve(ctx, listener); close(running.done) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections() // a connection without a call delays Shutdown by 5 s
		stop()
		<-running.done
	})
	return running
}

// startRecordingEdge starts an edge in front of a sidecar with a recordingHandler.
func startRecordingEdge(t testing.TB, environment map[string]string) (*runningEdge, *fakeSidecar, chan *http.Request) {
	t.Helper()
	handle, seen := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	return startEdge(t, sidecar.URL, environment), sidecar, seen
}

// configWith writes a copy of krakend.json with a replacement and returns its path.
func configWith(t testing.TB, old, replacement string) string {
	t.Helper()
	changed := strings.ReplaceAll(string(embeddedConfig), old, replacement)
	if changed == string(embeddedConfig) {
		t.Fatalf("the configuration has no %s", old)
	}
	file := filepath.Join(t.TempDir(), "krakend.json")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func validClaims() map[string]any {
	now := time.Now().Unix()
	return map[string]any{"iss": "yocaso", "aud": "yocaso", "sub": "user-1", "email": "one@example.org",
		"scope": "chat read", "iat": now, "nbf": now, "exp": now + 300}
}

func claimsWith(change map[string]any) map[string]any {
	claims := validClaims()
	for name, value := range change {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

func sign(t testing.TB, key int, headers map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	return signWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()[key]}, headers, claims)
}

func signWith(t testing.TB, key jose.SigningKey, headers map[jose.HeaderKey]any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(key, &jose.SignerOptions{ExtraHeaders: headers})
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

const keyID = "key_01k9x2m4q7r8s5t6v0w1y2z3c6"

// newAPIKey returns a well-formed random key.
func newAPIKey() string {
	body := "yk_test_"
	for range 38 {
		body += string(base62[mrand.IntN(len(base62))])
	}
	return body + keyChecksum(body)
}

func validVerification() map[string]any {
	return map[string]any{"valid": true, "code": "VALID", "keyId": keyID, "userId": "user-1", "email": "one@example.org",
		"scopes": []string{"chat", "read"}}
}

// setVerification sets the response for one key; every other key is NOT_FOUND.
func (s *fakeSidecar) setVerification(key string, answer map[string]any) {
	verify := func(secret string) any {
		if secret == key {
			return answer
		}
		return map[string]any{"valid": false, "code": "NOT_FOUND"}
	}
	s.verify.Store(&verify)
}

// revoke replaces the revocation list by one entry.
func (s *fakeSidecar) revoke(claim, value string, until time.Time) {
	listed := []map[string]any{{"claim": claim, "value": value,
		"issuedUntil": until.UTC().Format(time.RFC3339Nano), "expiresAt": until.Add(time.Hour).UTC().Format(time.RFC3339Nano)}}
	s.revocations.Store(&listed)
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}

func kid(id string) map[jose.HeaderKey]any { return map[jose.HeaderKey]any{"kid": id} }

func validToken(t testing.TB) string { return sign(t, 0, kid("k1"), validClaims()) }

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) errorCode(t testing.TB) string {
	t.Helper()
	var body struct {
		Error struct {
			Code       string
			Message    string
			IsTerminal *bool
			Details    map[string]any
		}
	}
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.Error.IsTerminal == nil || body.Error.Message == "" {
		t.Fatalf("not an RpcError: %d %q", r.status, r.body)
	}
	return body.Error.Code
}

func (r reply) wantError(t testing.TB, status int, code string) {
	t.Helper()
	if got := r.errorCode(t); r.status != status || got != code {
		t.Errorf("want %d %s, got %d %s", status, code, r.status, r.body)
	}
}

func request(t testing.TB, method, url, token string, body io.Reader, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header[headers[i]] = append(r.Header[headers[i]], headers[i+1])
	}
	return r
}

func do(t testing.TB, r *http.Request) reply {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

func post(t testing.TB, e *runningEdge, path, token string, headers ...string) reply {
	t.Helper()
	return do(t, request(t, http.MethodPost, e.url+path, token, strings.NewReader(`{"text":"hello"}`), headers...))
}

// receive bounds the wait, so that a missing value fails the test instead of hanging it.
func receive[T any](t testing.TB, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(10 * time.Second):
		t.Fatalf("timed out: %s", what)
		panic("unreachable")
	}
}

// recordingHandler answers 200 with {} and sends each request to the channel.
func recordingHandler() (http.HandlerFunc, chan *http.Request) {
	seen := make(chan *http.Request, 1000)
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		select {
		case seen <- r:
		default: // a polling test sends more requests than it reads
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte(`{}`))
	}, seen
}
