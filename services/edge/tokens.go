package main

import (
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	auth0 "github.com/krakend/go-auth0/v2"
	krakendjose "github.com/krakend/krakend-jose/v2"
)

const maxVerifiedTokens = 20_000

// verifiedTokens remembers which tokens were verified, by the keys that the issuer shows now: a signature costs more
// than all else that the edge does for a call. Revocations are asked at each use all the same.
type verifiedTokens struct {
	keys       *keySet
	validators map[tokenDemand]*auth0.JWTValidator

	mu    sync.Mutex
	known *lru[tokenUse, verifiedToken]
}

// tokenUse is a token and what verified it: endpoints may demand different issuers and audiences.
type tokenUse struct {
	token     [sha256.Size]byte
	validator *auth0.JWTValidator
}

type verifiedToken struct {
	who  caller
	ends time.Time
	by   *fetchedKeys
}

func newVerifiedTokens(keys *keySet) *verifiedTokens {
	return &verifiedTokens{keys: keys, validators: map[tokenDemand]*auth0.JWTValidator{}, known: newLRU[tokenUse, verifiedToken](maxVerifiedTokens)}
}

// tokenDemand is what an endpoint demands of a token; endpoints with the same demand share what was verified.
type tokenDemand struct {
	issuer, audiences string
	leeway            time.Duration
}

// validator of an endpoint, from krakend-jose's configuration of it.
func (v *verifiedTokens) validator(signature *krakendjose.SignatureConfig, err error) (*auth0.JWTValidator, error) {
	if err != nil {
		return nil, err
	}
	algorithm, known := krakendjose.SupportedAlgorithm(signature.Alg)
	if !known || signature.Alg != "RS256" {
		return nil, errors.New("auth/validator.alg: want RS256")
	}
	leeway, err := time.ParseDuration(signature.Leeway)
	if err != nil {
		return nil, err
	}
	demand := tokenDemand{signature.Issuer, strings.Join(signature.Audience, "\n"), leeway}
	if v.validators[demand] == nil {
		expected := auth0.NewConfiguration(v.keys, signature.Audience, signature.Issuer, algorithm)
		v.validators[demand] = auth0.NewValidatorWithLeeway(expected, nil, leeway)
	}
	return v.validators[demand], nil
}

// identify tells whose token it is. A token is verified anew when the issuer's keys were read again.
func (v *verifiedTokens) identify(raw string, validator *auth0.JWTValidator) (caller, error) {
	use := tokenUse{hashOf(raw), validator}
	by, now := v.keys.fresh(), time.Now()
	v.mu.Lock()
	known, found := v.known.get(use)
	v.mu.Unlock()
	if found && by != nil && known.by == by && now.Before(known.ends) {
		return known.who, nil
	}
	who, err := ofToken(raw, validator)
	if err != nil {
		return caller{}, err
	}
	// Verifying may have read newer keys; by these it has to be verified once more.
	if by != nil && by == v.keys.fresh() {
		v.mu.Lock()
		v.known.put(use, verifiedToken{who, who.ends, by})
		v.mu.Unlock()
	}
	return who, nil
}

func hashOf(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }
