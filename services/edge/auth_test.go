package main

import (
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	krakendjose "github.com/krakend/krakend-jose/v2"
)

func TestForgedAndStaleTokensAreUnauthenticated(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	now := time.Now().Unix()
	public := &testKeys()[0].PublicKey
	der, _ := x509.MarshalPKIXPublicKey(public)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	attacker := jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()[2]}
	b64 := base64.RawURLEncoding.EncodeToString
	payload := strings.Split(goodToken(t), ".")[1]
	claims := func(change map[string]any) string { return sign(t, 0, kid("k1"), claimsWith(change)) }

	for name, token := range map[string]string{
		"none given":         "",
		"not a token":        "abc",
		"three empty parts":  "..",
		"alg none":           b64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + payload + ".",
		"alg None":           b64([]byte(`{"alg":"None","kid":"k1"}`)) + "." + payload + ".",
		"signature cut off":  goodToken(t)[:strings.LastIndex(goodToken(t), ".")+1],
		"HS256, public PEM":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: asPEM}, kid("k1"), goodClaims()),
		"HS256, public DER":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: der}, kid("k1"), goodClaims()),
		"HS256, key of set":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: []byte("a symmetric key that must never verify")}, kid("oct"), goodClaims()),
		"RS512":              signWith(t, jose.SigningKey{Algorithm: jose.RS512, Key: testKeys()[0]}, kid("k1"), goodClaims()),
		"PS256":              signWith(t, jose.SigningKey{Algorithm: jose.PS256, Key: testKeys()[0]}, kid("k1"), goodClaims()),
		"another's key":      signWith(t, attacker, kid("k1"), goodClaims()),
		"no key id":          sign(t, 0, nil, goodClaims()),
		"key id is a path":   sign(t, 0, kid("../../k1"), goodClaims()),
		"key id is a query":  sign(t, 0, kid("' OR 1=1 --"), goodClaims()),
		"key id is a URL":    sign(t, 0, kid("http://127.0.0.1:1/k1"), goodClaims()),
		"jku":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "jku": "http://127.0.0.1:1/jwks"}, goodClaims()),
		"x5u":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "x5u": "http://127.0.0.1:1/cert"}, goodClaims()),
		"embedded jwk":       signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "jwk": jose.JSONWebKey{Key: &testKeys()[2].PublicKey}}, goodClaims()),
		"embedded jwk alone": signWith(t, attacker, map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &testKeys()[2].PublicKey}}, goodClaims()),
		"x5c":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "x5c": []string{b64([]byte("no certificate"))}}, goodClaims()),
		"unknown extension":  signWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()[0]}, map[jose.HeaderKey]any{"kid": "k1", "crit": []string{"x"}, "x": true}, goodClaims()),
		"empty subject":      claims(map[string]any{"sub": ""}),
		"wrong audience":     claims(map[string]any{"aud": "other"}),
		"no audience":        claims(map[string]any{"aud": nil}),
		"wrong issuer":       claims(map[string]any{"iss": "other"}),
		"no issuer":          claims(map[string]any{"iss": nil}),
		"expired":            claims(map[string]any{"exp": now - 60}),
		"never expires":      claims(map[string]any{"exp": nil}),
		"expiry is text":     claims(map[string]any{"exp": "tomorrow"}),
		"not yet valid":      claims(map[string]any{"nbf": now + 60}),
		"issued later":       claims(map[string]any{"iat": now + 60}),
		"trailing text":      goodToken(t) + "x",
		"two tokens":         goodToken(t) + " " + goodToken(t),
	} {
		t.Run(name, func(t *testing.T) {
			got := post(t, edge, unaryPath, token)
			got.wants(t, 401, codeUnauthenticated)
			if got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", got.header.Get("WWW-Authenticate"))
			}
		})
	}
	if len(seen) != 0 {
		t.Errorf("%d refused calls reached the sidecar", len(seen))
	}
}

func TestClocksMayDifferByHalfAMinute(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	now := time.Now().Unix()
	for name, change := range map[string]map[string]any{
		"just expired": {"exp": now - 20}, "valid in a moment": {"nbf": now + 20}, "several audiences": {"aud": []string{"other", "yocaso"}},
	} {
		if got := post(t, edge, unaryPath, sign(t, 0, kid("k1"), claimsWith(change))); got.status != 200 {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

func TestOnlyOneBearerHeaderIsATokensPlace(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	token := goodToken(t)
	for name, headers := range map[string][]string{
		"two headers": {"Authorization", "Bearer " + token, "Authorization", "Bearer " + token},
		"bare token":  {"Authorization", token},
		"basic":       {"Authorization", "Basic " + token},
		"cookie":      {"Cookie", "access_token=" + token},
	} {
		t.Run(name, func(t *testing.T) { post(t, edge, unaryPath, "", headers...).wants(t, 401, codeUnauthenticated) })
	}
	do(t, request(t, http.MethodPost, edge.url+unaryPath+"?access_token="+token, "", nil)).wants(t, 401, codeUnauthenticated)
}

func TestNoFlippedCharacterOfATokenIsAccepted(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	token := goodToken(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	// The last character of a part carries unused bits, so another spelling of it can be the same token.
	for at := 0; at < len(token); at++ {
		last := at == len(token)-1 || token[at+1] == '.'
		replacement := alphabet[rand.IntN(len(alphabet))]
		if token[at] == '.' || last || replacement == token[at] {
			continue
		}
		forged := token[:at] + string(replacement) + token[at+1:]
		if got := post(t, edge, unaryPath, forged); got.status != 401 {
			t.Fatalf("character %d: got %d", at, got.status)
		}
	}
}

// Every bit of every byte: only another spelling of the same bytes (a part's last character has unused bits) may pass.
func TestNoFlippedBitOfATokenIsAccepted(t *testing.T) {
	handle, _ := recorded()
	keys := newKeySet(settings{JWKSURL: newFakeSidecar(t, handle).URL + invokeKeys}, http.DefaultClient)
	keys.token = sidecarToken
	validator, err := newVerifiedTokens(keys).validator(&krakendjose.SignatureConfig{Alg: "RS256", Issuer: "yocaso", Audience: []string{"yocaso"}, Leeway: "30s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := goodToken(t)
	if _, err := ofToken(token, validator); err != nil {
		t.Fatal(err)
	}
	decoded := func(text string) string {
		var parts []string
		for _, part := range strings.Split(text, ".") {
			raw, err := base64.RawURLEncoding.DecodeString(part)
			if err != nil {
				return "?" + text
			}
			parts = append(parts, string(raw))
		}
		return strings.Join(parts, ".")
	}
	refused := 0
	for at := range token {
		for bit := range 8 {
			flipped := []byte(token)
			flipped[at] ^= 1 << bit
			_, err := ofToken(string(flipped), validator)
			if err == nil && decoded(string(flipped)) != decoded(token) {
				t.Fatalf("byte %d, bit %d was accepted", at, bit)
			}
			if err != nil {
				refused++
			}
		}
	}
	if refused < len(token)*8-12 {
		t.Errorf("only %d of %d were refused", refused, len(token)*8)
	}
}

func TestARotatedKeyWorksAtOnceAndTheOldOneEndsWithTheSet(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "0"})
	old := goodToken(t)
	if got := post(t, edge, unaryPath, old); got.status != 200 {
		t.Fatalf("got %d", got.status)
	}
	sidecar.show("k2", 1)
	if got := post(t, edge, unaryPath, sign(t, 1, kid("k2"), goodClaims())); got.status != 200 {
		t.Fatalf("the new key: got %d %s", got.status, got.body)
	}
	post(t, edge, unaryPath, old).wants(t, 401, codeUnauthenticated)
}

func TestAStormOfUnknownKeysFetchesOncePerInterval(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "60"})
	post(t, edge, unaryPath, goodToken(t))
	before := sidecar.fetches.Load()
	var clients sync.WaitGroup
	for range 200 {
		forged := sign(t, 2, kid(randomHex(8)), goodClaims())
		clients.Go(func() { post(t, edge, unaryPath, forged).wants(t, 401, codeUnauthenticated) })
	}
	clients.Wait()
	if extra := sidecar.fetches.Load() - before; extra > 1 {
		t.Errorf("%d fetches in one interval", extra)
	}
	if got := post(t, edge, unaryPath, goodToken(t)); got.status != 200 {
		t.Errorf("a good token in the storm: got %d", got.status)
	}
}

func TestAColdStartUnderLoadFetchesOnce(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	token := goodToken(t)
	var clients sync.WaitGroup
	for range 50 {
		clients.Go(func() {
			if got := post(t, edge, unaryPath, token); got.status != 200 {
				t.Errorf("got %d", got.status)
			}
		})
	}
	clients.Wait()
	if got := sidecar.fetches.Load(); got != 1 {
		t.Errorf("%d fetches", got)
	}
}

func TestKnownKeysOutliveAnOutageOfTheIssuer(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{
		"EDGE_JWKS_MIN_REFRESH_SECONDS": "0", "EDGE_JWKS_MAX_AGE_SECONDS": "0"})
	token := goodToken(t)
	post(t, edge, unaryPath, token)
	sidecar.keysOut.Store(true)
	for range 20 {
		if got := post(t, edge, unaryPath, token); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	post(t, edge, unaryPath, sign(t, 1, kid("k2"), goodClaims())).wants(t, 401, codeUnauthenticated)
}

func TestWithoutAnyKeyTheAnswerIsUnavailableUntilTheIssuerIsThere(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	sidecar.keysOut.Store(true)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_JWKS_MIN_REFRESH_SECONDS": "0"})
	got := post(t, edge, unaryPath, goodToken(t))
	got.wants(t, 503, codeUnavailable)
	if got.header.Get("Retry-After") == "" || len(seen) != 0 {
		t.Errorf("Retry-After %q, %d calls passed", got.header.Get("Retry-After"), len(seen))
	}
	sidecar.keysOut.Store(false)
	if got := post(t, edge, unaryPath, goodToken(t)); got.status != 200 {
		t.Errorf("after the outage: got %d", got.status)
	}
}

func TestTheSidecarsTokenGoesToNoOtherIssuer(t *testing.T) {
	handle, _ := recorded()
	seen := make(chan string, 10)
	other := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Get("dapr-api-token")
		w.WriteHeader(http.StatusNotFound)
	})
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_JWKS_URL": other.URL + "/keys"})
	post(t, edge, unaryPath, goodToken(t)).wants(t, 503, codeUnavailable)
	if got := receive(t, seen, "the fetch"); got != "" {
		t.Error("the token was sent to another host")
	}
}

func TestOnlyStrongKeysForSignaturesAreUsed(t *testing.T) {
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
		t.Error("an empty set replaces the keys that work")
	}
}
