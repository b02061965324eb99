package main

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// revocationIdleTimeout is how long after its last use the list is still polled; the next use then fetches it first.
const revocationIdleTimeout = 30 * time.Second

// revocationList is polled from app auth. During an outage the last list stays in force; before the first fetch every
// credential is refused.
type revocationList struct {
	auth     *authClient
	log      *slog.Logger
	interval time.Duration
	onUpdate func(revocationSet)

	current     atomic.Pointer[revocationSet]
	lastUsed    atomic.Int64 // Unix nanoseconds
	paused      atomic.Bool
	mu          sync.Mutex
	lastAttempt time.Time
	failing     bool
}

type revocationSet map[revokedClaim]revocation

type revokedClaim struct{ claim, value string }

type revocation struct {
	issuedUntil int64     // tokens issued up to this Unix second of auth's clock are revoked
	learnedAt   time.Time // keys verified up to this time of the edge's clock must be verified again
}

func newRevocationList(s settings, auth *authClient, log *slog.Logger, onUpdate func(revocationSet)) *revocationList {
	return &revocationList{auth: auth, log: log, interval: s.RevocationInterval, onUpdate: onUpdate}
}

func (l *revocationList) isRevoked(ctx context.Context, p principal) (bool, error) {
	l.lastUsed.Store(time.Now().UnixNano())
	if l.current.Load() == nil || l.paused.Load() {
		l.resume(ctx)
	}
	current := l.current.Load()
	if current == nil {
		return true, errAuthUnavailable
	}
	return current.revokes(p), nil
}

// isRevokedSince reports whether a key or its owner was revoked after auth verified the key.
func (l *revocationList) isRevokedSince(verifiedAt time.Time, keyID, user string) bool {
	current := l.current.Load()
	return current != nil && current.revokes(principal{keyID: keyID, user: user, verifiedAt: verifiedAt})
}

func (s revocationSet) revokes(p principal) bool {
	for _, key := range [...]revokedClaim{{"sid", p.session}, {"key_id", p.keyID}, {"sub", p.user}} {
		found, listed := s[key]
		if !listed || key.value == "" {
			continue
		}
		if p.isToken && p.issuedAt <= found.issuedUntil || !p.isToken && !p.verifiedAt.After(found.learnedAt) {
			return true
		}
	}
	return false
}

// resume fetches a list that is missing or was not polled; in an outage attempts are min(interval, 1 s) apart.
func (l *revocationList) resume(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current.Load() != nil && !l.paused.Load() || time.Since(l.lastAttempt) < min(l.interval, time.Second) {
		return
	}
	l.refresh(ctx)
	l.paused.Store(false)
}

// poll fetches the list every interval until ctx ends, and pauses while it is idle and no stream is open.
func (l *revocationList) poll(ctx context.Context, hasStreams func() bool) {
	for {
		jitter := time.Duration(rand.Int64N(int64(l.interval/5) + 1))
		select {
		case <-ctx.Done():
			return
		case <-time.After(l.interval - jitter):
		}
		if time.Since(time.Unix(0, l.lastUsed.Load())) > revocationIdleTimeout && !hasStreams() {
			l.paused.Store(true)
			continue
		}
		l.mu.Lock()
		l.refresh(ctx)
		l.mu.Unlock()
	}
}

func (l *revocationList) refresh(ctx context.Context) {
	l.lastAttempt = time.Now()
	next, err := l.fetch(ctx)
	if (err != nil) != l.failing {
		l.failing = err != nil
		detail := ""
		if l.failing {
			detail = err.Error()
		}
		l.log.Warn("revocation list", "app", "edge", "readable", !l.failing, "detail", detail)
	}
	if err == nil {
		l.current.Store(&next)
		l.onUpdate(next)
	}
}

func (l *revocationList) fetch(ctx context.Context) (revocationSet, error) {
	var response struct {
		Revocations []struct {
			Claim       string    `json:"claim"`
			Value       string    `json:"value"`
			IssuedUntil time.Time `json:"issuedUntil"`
		} `json:"revocations"`
	}
	if err := l.auth.call(ctx, "TokenService/ListRevocations", struct{}{}, &response); err != nil {
		return nil, err
	}
	var previous revocationSet
	if current := l.current.Load(); current != nil {
		previous = *current
	}
	now, next := time.Now(), revocationSet{}
	for _, listed := range response.Revocations {
		key, until := revokedClaim{listed.Claim, listed.Value}, listed.IssuedUntil.Unix()
		if duplicate, found := next[key]; found && duplicate.issuedUntil >= until {
			continue
		}
		next[key] = revocation{until, now}
		if known, found := previous[key]; found && known.issuedUntil == until {
			next[key] = known // keeps learnedAt
		}
	}
	return next, nil
}
