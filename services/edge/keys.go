package main

import (
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v3"
	"github.com/go-jose/go-jose/v3/jwt"
)

var (
	errUnknownKey = errors.New("the token is signed by a key that the issuer does not show")
	errNoKeys     = errors.New("the issuer's keys have never been read")
)

// keySet is the issuer's public keys. Known keys are served from memory, also while the issuer is out of reach;
// an unknown key id causes at most one fetch per interval, whatever the number of requests. krakend-jose's own
// client cannot send the sidecar's token, forgets keys in an outage and fetches once per endpoint and request.
type keySet struct {
	url        string
	token      string
	client     *http.Client
	minRefresh time.Duration
	maxAge     time.Duration

	keys    atomic.Pointer[fetchedKeys]
	mu      sync.Mutex
	attempt time.Time
}

type fetchedKeys struct {
	byID map[string]*rsa.PublicKey
	at   time.Time
}

func newKeySet(s settings, client *http.Client) *keySet {
	set := &keySet{url: s.JWKSURL, client: client, minRefresh: s.JWKSMinRefresh, maxAge: s.JWKSMaxAge}
	if strings.HasPrefix(s.JWKSURL, s.SidecarURL+"/") {
		set.token = s.SidecarToken
	}
	return set
}

// SecretFromToken gives the key of a token to krakend's validator; only the key id of the header is looked at.
func (k *keySet) SecretFromToken(token *jwt.JSONWebToken) (any, error) {
	id := token.Headers[0].KeyID
	current := k.keys.Load()
	if current == nil || current.byID[id] == nil {
		k.refresh(id)
	} else if time.Since(current.at) > k.maxAge && k.due(current) && k.mu.TryLock() {
		go func() {
			defer k.mu.Unlock()
			k.fetchIfDue()
		}()
	}
	current = k.keys.Load()
	if current == nil {
		return nil, errNoKeys
	}
	if key := current.byID[id]; key != nil {
		return key, nil
	}
	return nil, errUnknownKey
}

// fresh is what tokens are verified by now; nil when it has to be read anew.
func (k *keySet) fresh() *fetchedKeys {
	current := k.keys.Load()
	if current == nil || time.Since(current.at) > k.maxAge {
		return nil
	}
	return current
}

// GetSecret completes the validator's interface; tokens are always handed over parsed.
func (k *keySet) GetSecret(*http.Request) (any, error) { return nil, errUnknownKey }

func (k *keySet) due(current *fetchedKeys) bool { return time.Since(current.at) > k.minRefresh }

// refresh fetches for an unknown id; those who waited for the same fetch find its result.
func (k *keySet) refresh(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if current := k.keys.Load(); current == nil || current.byID[id] == nil {
		k.fetchIfDue()
	}
}

func (k *keySet) fetchIfDue() {
	interval := k.minRefresh
	if k.keys.Load() == nil {
		interval = min(interval, time.Second) // at start the issuer may be a moment late
	}
	if !k.attempt.IsZero() && time.Since(k.attempt) < interval {
		return
	}
	k.attempt = time.Now()
	if keys, err := k.fetch(); err == nil {
		k.keys.Store(&fetchedKeys{byID: keys, at: time.Now()})
	}
}

func (k *keySet) fetch() (map[string]*rsa.PublicKey, error) {
	request, err := http.NewRequest(http.MethodGet, k.url, nil)
	if err != nil {
		return nil, err
	}
	if k.token != "" {
		request.Header.Set("dapr-api-token", k.token)
	}
	response, err := k.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the issuer answered %d", response.StatusCode)
	}
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&set); err != nil {
		return nil, err
	}
	return usableKeys(set)
}

// usableKeys keeps RSA keys made for signatures; a symmetric key in the set must never verify anything.
func usableKeys(set jose.JSONWebKeySet) (map[string]*rsa.PublicKey, error) {
	keys := map[string]*rsa.PublicKey{}
	for _, key := range set.Keys {
		public, isRSA := key.Key.(*rsa.PublicKey)
		fits := (key.Use == "" || key.Use == "sig") && (key.Algorithm == "" || key.Algorithm == string(jose.RS256))
		if isRSA && fits && key.KeyID != "" && public.N.BitLen() >= 2048 {
			keys[key.KeyID] = public
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the issuer shows no usable key")
	}
	return keys, nil
}
