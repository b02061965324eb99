package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

var (
	errKeyInvalid        = errors.New("the API key is invalid")
	errKeyBudgetExceeded = errors.New("the API key has exhausted its budget")
	errKeyRateLimited    = errors.New("the API key has exceeded its rate limit")
)

const maxCachedKeys = 20_000

// apiKeyVerifier verifies API keys through app auth and caches its answers, good or bad, for the TTL. Concurrent
// requests with one key share one call (single flight). A stale answer is never used, not even while auth is down.
type apiKeyVerifier struct {
	auth        *authClient
	ttl         time.Duration
	revocations *revocationList

	mu       sync.Mutex
	cache    *lru[[sha256.Size]byte, keyVerification]
	inFlight singleflight.Group
}

// keyVerification is VerifyApiKeyResponse.
type keyVerification struct {
	Valid     bool          `json:"valid"`
	Code      string        `json:"code"`
	KeyID     string        `json:"keyId"`
	UserID    string        `json:"userId"`
	Email     string        `json:"email"`
	Scopes    []string      `json:"scopes"`
	RateLimit *keyRateLimit `json:"rateLimit"`

	requestedAt time.Time
}

type keyRateLimit struct {
	Limit         int `json:"limit"`
	WindowSeconds int `json:"windowSeconds"`
}

func newAPIKeyVerifier(s settings, auth *authClient, revocations *revocationList) *apiKeyVerifier {
	return &apiKeyVerifier{auth: auth, ttl: s.KeyTTL, revocations: revocations,
		cache: newLRU[[sha256.Size]byte, keyVerification](maxCachedKeys)}
}

// verify returns the claims that an access token issued for the same key would carry.
func (v *apiKeyVerifier) verify(ctx context.Context, secret string) (principal, error) {
	found, err := v.lookup(ctx, secret)
	switch {
	case err != nil:
		return principal{}, err
	case found.Valid && keyIDPattern.MatchString(found.KeyID):
		claims := map[string]any{"sub": found.UserID, "email": found.Email,
			"scope": strings.Join(found.Scopes, " "), "key_id": found.KeyID}
		return principal{claims: claims, user: found.UserID, keyID: found.KeyID, rateLimit: found.RateLimit,
			verifiedAt: found.requestedAt}, nil
	case found.Code == codeBudgetExceeded:
		return principal{}, errKeyBudgetExceeded
	case found.Code == codeRateLimited:
		return principal{}, errKeyRateLimited
	default:
		return principal{}, errKeyInvalid
	}
}

func (v *apiKeyVerifier) lookup(ctx context.Context, secret string) (keyVerification, error) {
	hash := sha256.Sum256([]byte(secret))
	if found, fresh := v.cached(hash); fresh {
		return found, nil
	}
	fetched := v.inFlight.DoChan(string(hash[:]), func() (any, error) {
		if found, fresh := v.cached(hash); fresh { // a flight that has just ended cached it
			return found, nil
		}
		return v.fetch(ctx, hash, secret)
	})
	select {
	case <-ctx.Done():
		return keyVerification{}, ctx.Err()
	case result := <-fetched:
		found, _ := result.Val.(keyVerification)
		return found, result.Err
	}
}

func (v *apiKeyVerifier) cached(hash [sha256.Size]byte) (keyVerification, bool) {
	v.mu.Lock()
	found, hit := v.cache.get(hash)
	v.mu.Unlock()
	fresh := hit && time.Since(found.requestedAt) < v.ttl
	return found, fresh && !v.revocations.isRevokedSince(found.requestedAt, found.KeyID, found.UserID)
}

func (v *apiKeyVerifier) fetch(ctx context.Context, hash [sha256.Size]byte, secret string) (keyVerification, error) {
	fetched := keyVerification{requestedAt: time.Now()}
	asked := map[string]any{"secret": secret, "cost": 0}
	if err := v.auth.call(ctx, "ApiKeyService/VerifyApiKey", asked, &fetched); err != nil {
		return keyVerification{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.cache.put(hash, fetched)
	return fetched, nil
}
