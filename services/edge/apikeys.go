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
	errKeyRefused = errors.New("the API key is not valid")
	errKeyBudget  = errors.New("the API key has spent its budget")
	errKeyLimited = errors.New("the API key is past its rate limit")
)

const maxKeyAnswers = 20_000

// apiKeys knows for a moment what auth said of an API key, good or not. Who comes while auth is being asked waits
// for the same answer. While auth is away only what is still fresh counts.
type apiKeys struct {
	issuer      *issuer
	ttl         time.Duration
	revocations *revocations

	mu      sync.Mutex
	answers *lru[[sha256.Size]byte, keyAnswer]
	asking  singleflight.Group
}

// keyAnswer is VerifyApiKeyResponse.
type keyAnswer struct {
	Valid     bool     `json:"valid"`
	Code      string   `json:"code"`
	KeyID     string   `json:"keyId"`
	UserID    string   `json:"userId"`
	Email     string   `json:"email"`
	Scopes    []string `json:"scopes"`
	RateLimit *keyRate `json:"rateLimit"`

	asked time.Time
}

type keyRate struct {
	Limit         int `json:"limit"`
	WindowSeconds int `json:"windowSeconds"`
}

func newAPIKeys(s settings, auth *issuer, revoked *revocations) *apiKeys {
	return &apiKeys{issuer: auth, ttl: s.KeyTTL, revocations: revoked,
		answers: newLRU[[sha256.Size]byte, keyAnswer](maxKeyAnswers)}
}

// identify tells whose key it is; the claims are those that a token of the same key would have.
func (k *apiKeys) identify(ctx context.Context, secret string) (caller, error) {
	answer, err := k.find(ctx, secret)
	switch {
	case err != nil:
		return caller{}, err
	case answer.Valid && keyIDPattern.MatchString(answer.KeyID):
		claims := map[string]any{"sub": answer.UserID, "email": answer.Email,
			"scope": strings.Join(answer.Scopes, " "), "key_id": answer.KeyID}
		return caller{claims: claims, user: answer.UserID, keyID: answer.KeyID, rate: answer.RateLimit, asked: answer.asked}, nil
	case answer.Code == "BUDGET_EXCEEDED":
		return caller{}, errKeyBudget
	case answer.Code == "RATE_LIMITED":
		return caller{}, errKeyLimited
	default:
		return caller{}, errKeyRefused
	}
}

func (k *apiKeys) find(ctx context.Context, secret string) (keyAnswer, error) {
	id := hashOf(secret)
	if answer, fresh := k.remembered(id); fresh {
		return answer, nil
	}
	answered := k.asking.DoChan(string(id[:]), func() (any, error) {
		if answer, fresh := k.remembered(id); fresh { // asked by the one who was here just before
			return answer, nil
		}
		return k.ask(id, secret)
	})
	select {
	case <-ctx.Done():
		return keyAnswer{}, ctx.Err()
	case result := <-answered:
		answer, _ := result.Val.(keyAnswer)
		return answer, result.Err
	}
}

func (k *apiKeys) remembered(id [sha256.Size]byte) (keyAnswer, bool) {
	k.mu.Lock()
	answer, found := k.answers.get(id)
	k.mu.Unlock()
	fresh := found && time.Since(answer.asked) < k.ttl
	return answer, fresh && !k.revocations.since(answer.asked, answer.KeyID, answer.UserID)
}

func (k *apiKeys) ask(id [sha256.Size]byte, secret string) (keyAnswer, error) {
	answer := keyAnswer{asked: time.Now()}
	if err := k.issuer.ask("ApiKeyService/VerifyApiKey", map[string]any{"secret": secret, "cost": 0}, &answer); err != nil {
		return keyAnswer{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers.put(id, answer)
	return answer, nil
}
