package main

import (
	"crypto/sha256"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v3/jwt"
	auth0 "github.com/krakend/go-auth0/v2"
	krakendjose "github.com/krakend/krakend-jose/v2"
)

const maxVerifiedTokens = 20_000

// tokenVerifier verifies access tokens and caches the results, since the RSA signature check is the edge's largest CPU
// cost per call. Revocation is not cached: it is checked on each call.
type tokenVerifier struct {
	jwks       *jwksCache
	validators map[tokenRequirements]*auth0.JWTValidator

	mu       sync.Mutex
	verified *lru[verifiedTokenKey, verifiedToken]
}

// verifiedTokenKey includes the validator: endpoints may require different issuers and audiences.
type verifiedTokenKey struct {
	token     [sha256.Size]byte
	validator *auth0.JWTValidator
}

type verifiedToken struct {
	principal principal
	keys      *keySet // that verified it
}

// tokenRequirements identify a validator; endpoints with equal requirements share one and its cached results.
type tokenRequirements struct {
	issuer, audiences string
	leeway            time.Duration
}

func newTokenVerifier(jwks *jwksCache) *tokenVerifier {
	return &tokenVerifier{jwks: jwks, validators: map[tokenRequirements]*auth0.JWTValidator{},
		verified: newLRU[verifiedTokenKey, verifiedToken](maxVerifiedTokens)}
}

// validator takes the results of krakend-jose's GetSignatureConfig.
func (v *tokenVerifier) validator(signature *krakendjose.SignatureConfig, err error) (*auth0.JWTValidator, error) {
	if err != nil {
		return nil, err
	}
	algorithm, known := krakendjose.SupportedAlgorithm(signature.Alg)
	if !known || signature.Alg != "RS256" {
		return nil, errors.New("auth/validator.alg must be RS256")
	}
	leeway, err := time.ParseDuration(signature.Leeway)
	if err != nil {
		return nil, err
	}
	required := tokenRequirements{signature.Issuer, strings.Join(signature.Audience, "\n"), leeway}
	if v.validators[required] == nil {
		expected := auth0.NewConfiguration(v.jwks, signature.Audience, signature.Issuer, algorithm)
		v.validators[required] = auth0.NewValidatorWithLeeway(expected, nil, leeway)
	}
	return v.validators[required], nil
}

// verify uses the cached result until the token expires or the JWKS is fetched again.
func (v *tokenVerifier) verify(raw string, validator *auth0.JWTValidator) (principal, error) {
	key := verifiedTokenKey{sha256.Sum256([]byte(raw)), validator}
	keys, now := v.jwks.fresh(), time.Now()
	v.mu.Lock()
	cached, found := v.verified.get(key)
	v.mu.Unlock()
	if found && keys != nil && cached.keys == keys && now.Before(cached.principal.expiresAt) {
		return cached.principal, nil
	}
	p, err := verifyToken(raw, validator)
	if err != nil {
		return principal{}, err
	}
	// The validator may have fetched a newer key set; then it is unknown which one verified the token.
	if keys != nil && keys == v.jwks.fresh() {
		v.mu.Lock()
		v.verified.put(key, verifiedToken{p, keys})
		v.mu.Unlock()
	}
	return p, nil
}

// compactPattern is the only form of a JWT (RFC 7519). go-jose also takes its JSON form, with headers that are not signed,
// and drops white space.
var compactPattern = regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+$`)

func verifyToken(raw string, validator *auth0.JWTValidator) (principal, error) {
	if !compactPattern.MatchString(raw) {
		return principal{}, errCredential
	}
	token, err := jwt.ParseSigned(raw)
	if err != nil {
		return principal{}, err
	}
	if _, err := validator.ValidateToken(token); err != nil {
		return principal{}, err
	}
	claims := map[string]any{}
	if err := token.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return principal{}, err
	}
	p := principal{claims: claims, isToken: true}
	p.user, _ = claims["sub"].(string)
	p.keyID, _ = claims["key_id"].(string)
	p.session, _ = claims["sid"].(string)
	issuedAt, _ := claims["iat"].(float64)
	p.issuedAt = int64(issuedAt)
	expiresAt, hasExpiry := claims["exp"].(float64)
	p.expiresAt = time.Unix(int64(expiresAt), 0)
	_, hasKeyID := claims["key_id"]
	_, hasSession := claims["sid"]
	if !hasExpiry || hasKeyID && !keyIDPattern.MatchString(p.keyID) || hasSession && p.session == "" {
		return principal{}, errInvalidClaims
	}
	return p, nil
}
