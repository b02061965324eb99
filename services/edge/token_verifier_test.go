package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v3"
	auth0 "github.com/krakend/go-auth0/v2"
	krakendjose "github.com/krakend/krakend-jose/v2"
)

func TestForgedAndExpiredTokensAreUnauthenticated(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	now := time.Now().Unix()
	public := &testKeys()[0].PublicKey
	der, _ := x509.MarshalPKIXPublicKey(public)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	attacker := jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()[2]}
	b64 := base64.RawURLEncoding.EncodeToString
	payload := strings.Split(validToken(t), ".")[1]
	claims := func(change map[string]any) string { return sign(t, 0, kid("k1"), claimsWith(change)) }

	for name, token := range map[string]string{
		"none given":         "",
		"not a token":        "abc",
		"three empty parts":  "..",
		"alg none":           b64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + payload + ".",
		"alg None":           b64([]byte(`{"alg":"None","kid":"k1"}`)) + "." + payload + ".",
		"signature cut off":  validToken(t)[:strings.LastIndex(validToken(t), ".")+1],
		"HS256, public PEM":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: asPEM}, kid("k1"), validClaims()),
		"HS256, public DER":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: der}, kid("k1"), validClaims()),
		"HS256, key of set":  signWith(t, jose.SigningKey{Algorithm: jose.HS256, Key: []byte("a symmetric key that must never verify")}, kid("oct"), validClaims()),
		"RS512":              signWith(t, jose.SigningKey{Algorithm: jose.RS512, Key: testKeys()[0]}, kid("k1"), validClaims()),
		"PS256":              signWith(t, jose.SigningKey{Algorithm: jose.PS256, Key: testKeys()[0]}, kid("k1"), validClaims()),
		"a foreign key":      signWith(t, attacker, kid("k1"), validClaims()),
		"no key id":          sign(t, 0, nil, validClaims()),
		"key id is a path":   sign(t, 0, kid("../../k1"), validClaims()),
		"key id is a query":  sign(t, 0, kid("' OR 1=1 --"), validClaims()),
		"key id is a URL":    sign(t, 0, kid("http://127.0.0.1:1/k1"), validClaims()),
		"jku":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "jku": "http://127.0.0.1:1/jwks"}, validClaims()),
		"x5u":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "x5u": "http://127.0.0.1:1/cert"}, validClaims()),
		"embedded jwk":       signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "jwk": jose.JSONWebKey{Key: &testKeys()[2].PublicKey}}, validClaims()),
		"embedded jwk alone": signWith(t, attacker, map[jose.HeaderKey]any{"jwk": jose.JSONWebKey{Key: &testKeys()[2].PublicKey}}, validClaims()),
		"x5c":                signWith(t, attacker, map[jose.HeaderKey]any{"kid": "k1", "x5c": []string{b64([]byte("no certificate"))}}, validClaims()),
		"unknown extension":  signWith(t, jose.SigningKey{Algorithm: jose.RS256, Key: testKeys()[0]}, map[jose.HeaderKey]any{"kid": "k1", "crit": []string{"x"}, "x": true}, validClaims()),
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
		"trailing text":      validToken(t) + "x",
		"two tokens":         validToken(t) + " " + validToken(t),
	} {
		t.Run(name, func(t *testing.T) {
			got := post(t, edge, unaryPath, token)
			got.wantError(t, 401, codeUnauthenticated)
			if got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", got.header.Get("WWW-Authenticate"))
			}
		})
	}
	if len(seen) != 0 {
		t.Errorf("%d refused calls reached the sidecar", len(seen))
	}
}

func TestOnlyTheCompactFormOfATokenIsAccepted(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	token := validToken(t)
	parts := strings.Split(token, ".")
	for name, row := range map[string]struct {
		token  string
		status int
	}{
		"compact":            {token, 200},
		"JSON":               {`{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`, 401},
		"white space inside": {parts[0] + "." + parts[1] + ". " + parts[2], 401},
		"padded":             {token + "=", 401},
	} {
		if got := post(t, edge, unaryPath, row.token); got.status != row.status {
			t.Errorf("%s: got %d", name, got.status)
		}
	}
}

func TestTokensAreVerifiedWithALeewayOfThirtySeconds(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	now := time.Now().Unix()
	for name, change := range map[string]map[string]any{
		"just expired": {"exp": now - 20}, "valid in a moment": {"nbf": now + 20}, "several audiences": {"aud": []string{"other", "yocaso"}},
	} {
		if got := post(t, edge, unaryPath, sign(t, 0, kid("k1"), claimsWith(change))); got.status != 200 {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

func TestATokenIsAcceptedOnlyInOneBearerHeader(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	token := validToken(t)
	for name, headers := range map[string][]string{
		"two headers": {"Authorization", "Bearer " + token, "Authorization", "Bearer " + token},
		"bare token":  {"Authorization", token},
		"basic":       {"Authorization", "Basic " + token},
		"cookie":      {"Cookie", "access_token=" + token},
	} {
		t.Run(name, func(t *testing.T) { post(t, edge, unaryPath, "", headers...).wantError(t, 401, codeUnauthenticated) })
	}
	do(t, request(t, http.MethodPost, edge.url+unaryPath+"?access_token="+token, "", nil)).wantError(t, 401, codeUnauthenticated)
}

func TestNoFlippedCharacterOfATokenIsAccepted(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	token := validToken(t)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	// The last character of a part is skipped: it has unused bits, so another character can decode to the same token.
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

// Flips each bit; only a token that decodes to the same bytes may pass (a part's last character has unused bits).
func TestNoFlippedBitOfATokenIsAccepted(t *testing.T) {
	validator := validatorFor(t, newTestVerifier(t), "yocaso")
	token := validToken(t)
	if _, err := verifyToken(token, validator); err != nil {
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
			_, err := verifyToken(string(flipped), validator)
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

func newTestVerifier(t *testing.T) *tokenVerifier {
	jwks := newJWKSCache(settings{JWKSURL: newFakeSidecar(t, nil).URL + invokeJWKS, JWKSMaxAge: time.Hour}, http.DefaultClient, tracing{})
	jwks.endpoint.token = sidecarToken
	return newTokenVerifier(jwks)
}

func validatorFor(t *testing.T, tokens *tokenVerifier, audience string) *auth0.JWTValidator {
	t.Helper()
	signature := krakendjose.SignatureConfig{Alg: "RS256", Issuer: "yocaso", Audience: []string{audience}, Leeway: "0s"}
	validator, err := tokens.validator(&signature, nil)
	if err != nil {
		t.Fatal(err)
	}
	return validator
}

func TestACachedTokenIsRefusedOnceExpired(t *testing.T) {
	tokens := newTestVerifier(t)
	validator := validatorFor(t, tokens, "yocaso")
	if validatorFor(t, tokens, "yocaso") != validator {
		t.Error("endpoints with equal requirements have different validators")
	}
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()}))
	for _, read := range []string{"the JWKS", "the token", "the cached token"} {
		if p, err := tokens.verify(token, validator); err != nil || p.user != "user-1" {
			t.Fatalf("%s: %q %v", read, p.user, err)
		}
	}
	if _, cached := tokens.verified.get(verifiedTokenKey{sha256.Sum256([]byte(token)), validator}); !cached {
		t.Fatal("the token is not cached")
	}
	eventually(t, "the token to expire", func() bool {
		_, err := tokens.verify(token, validator)
		return err != nil
	})
}

func TestACachedTokenIsNotValidForAnotherAudience(t *testing.T) {
	tokens, token := newTestVerifier(t), validToken(t)
	for audience, isValid := range map[string]bool{"yocaso": true, "other": false} {
		validator := validatorFor(t, tokens, audience)
		for range 2 {
			if _, err := tokens.verify(token, validator); (err == nil) != isValid {
				t.Errorf("audience %s: %v", audience, err)
			}
		}
	}
}
