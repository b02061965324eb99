package main

import (
	"crypto/rsa"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v3/jwt"
)

var (
	errUnknownKeyID = errors.New("the token's key id is not in the JWKS")
	errNoJWKS       = errors.New("the JWKS has never been fetched")
)

const maxJWKSBytes = 1 << 20

// jwksCache holds the issuer's public keys (JWKS). It serves known keys during an outage of the issuer, and fetches for
// unknown key ids at most once per minRefresh. It replaces krakend-jose's client, which cannot send the sidecar's API
// token, loses its keys in an outage and fetches once per endpoint and request.
type jwksCache struct {
	url        string
	endpoint   authEndpoint
	minRefresh time.Duration
	maxAge     time.Duration

	keys        atomic.Pointer[keySet]
	mu          sync.Mutex
	lastAttempt time.Time
}

type keySet struct {
	byID      map[string]*rsa.PublicKey
	fetchedAt time.Time
}

func newJWKSCache(s settings, client *http.Client, tracing tracing) *jwksCache {
	endpoint := authEndpoint{client: client, tracing: tracing}
	if strings.HasPrefix(s.JWKSURL, s.SidecarURL+"/") {
		endpoint.token = s.SidecarToken
	}
	return &jwksCache{url: s.JWKSURL, endpoint: endpoint, minRefresh: s.JWKSMinRefresh, maxAge: s.JWKSMaxAge}
}

// SecretFromToken implements auth0.TokenSecretProvider. Of the token's header it uses only the key id.
func (j *jwksCache) SecretFromToken(token *jwt.JSONWebToken) (any, error) {
	id := token.Headers[0].KeyID
	current := j.keys.Load()
	if current == nil || current.byID[id] == nil {
		j.fetchUnknown(id)
	} else if age := time.Since(current.fetchedAt); age > j.maxAge && age > j.minRefresh && j.mu.TryLock() {
		go func() {
			defer j.mu.Unlock()
			j.fetchIfDue()
		}()
	}
	current = j.keys.Load()
	if current == nil {
		return nil, errNoJWKS
	}
	if key := current.byID[id]; key != nil {
		return key, nil
	}
	return nil, errUnknownKeyID
}

// GetSecret only satisfies auth0.SecretProvider: the edge always passes parsed tokens.
func (j *jwksCache) GetSecret(*http.Request) (any, error) { return nil, errUnknownKeyID }

// fresh returns the key set, or nil when it is older than maxAge.
func (j *jwksCache) fresh() *keySet {
	current := j.keys.Load()
	if current == nil || time.Since(current.fetchedAt) > j.maxAge {
		return nil
	}
	return current
}

// fetchUnknown checks again under the lock: a concurrent caller may have fetched the key.
func (j *jwksCache) fetchUnknown(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if current := j.keys.Load(); current == nil || current.byID[id] == nil {
		j.fetchIfDue()
	}
}

func (j *jwksCache) fetchIfDue() {
	interval := j.minRefresh
	if j.keys.Load() == nil {
		interval = min(interval, time.Second) // the issuer may start after the edge
	}
	if !j.lastAttempt.IsZero() && time.Since(j.lastAttempt) < interval {
		return
	}
	j.lastAttempt = time.Now()
	if keys, err := j.fetch(); err == nil {
		j.keys.Store(&keySet{byID: keys, fetchedAt: time.Now()})
	}
}

func (j *jwksCache) fetch() (map[string]*rsa.PublicKey, error) {
	request, err := http.NewRequest(http.MethodGet, j.url, nil)
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := j.endpoint.fetchJSON(request, maxJWKSBytes, &set); err != nil {
		return nil, err
	}
	return usableKeys(set)
}

// usableKeys keeps RSA signature keys of at least 2048 bits. A symmetric key must never verify a token: its holder could
// also sign.
func usableKeys(set jose.JSONWebKeySet) (map[string]*rsa.PublicKey, error) {
	keys := map[string]*rsa.PublicKey{}
	for _, key := range set.Keys {
		public, isRSA := key.Key.(*rsa.PublicKey)
		isForSignatures := (key.Use == "" || key.Use == "sig") && (key.Algorithm == "" || key.Algorithm == string(jose.RS256))
		if isRSA && isForSignatures && key.KeyID != "" && public.N.BitLen() >= 2048 {
			keys[key.KeyID] = public
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the JWKS has no usable key")
	}
	return keys, nil
}
