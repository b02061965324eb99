package main

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// revocationsIdle is how long after the last use the list is still read; then the next use reads it first.
const revocationsIdle = 30 * time.Second

// revocations is the list of what no longer counts, read from auth again and again. While it cannot be read the
// last one stays in force; before the first one nobody is let in.
type revocations struct {
	issuer   *issuer
	log      *slog.Logger
	interval time.Duration
	ended    func(*revoked)

	current atomic.Pointer[revoked]
	used    atomic.Int64
	paused  atomic.Bool
	mu      sync.Mutex
	attempt time.Time
	failing bool
}

type revoked map[revokedClaim]revocation

type revokedClaim struct{ claim, value string }

// revocation holds for what was issued up to a second of auth's clock; `seen` is when this process learned of it.
type revocation struct {
	issuedUntil int64
	seen        time.Time
}

func newRevocations(s settings, auth *issuer, log *slog.Logger, ended func(*revoked)) *revocations {
	return &revocations{issuer: auth, log: log, interval: s.RevocationInterval, ended: ended}
}

// refuses says whether a caller's credential was revoked.
func (r *revocations) refuses(who caller) (bool, error) {
	r.used.Store(time.Now().UnixNano())
	if r.current.Load() == nil || r.paused.Load() {
		r.catchUp()
	}
	current := r.current.Load()
	if current == nil {
		return true, errAuthAway
	}
	return current.holds(who), nil
}

// since says whether auth's answer about a key or its owner was given before a revocation was known here.
func (r *revocations) since(asked time.Time, keyID, user string) bool {
	current := r.current.Load()
	return current != nil && current.holds(caller{keyID: keyID, user: user, asked: asked})
}

func (l *revoked) holds(who caller) bool {
	for _, named := range [...]revokedClaim{{"sid", who.session}, {"key_id", who.keyID}, {"sub", who.user}} {
		found, listed := (*l)[named]
		if !listed || named.value == "" {
			continue
		}
		if who.isToken && who.issued <= found.issuedUntil || !who.isToken && !who.asked.After(found.seen) {
			return true
		}
	}
	return false
}

// catchUp reads the list for a call that cannot do without; during an outage one call in a second tries.
func (r *revocations) catchUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current.Load() != nil && !r.paused.Load() || time.Since(r.attempt) < min(r.interval, time.Second) {
		return
	}
	r.read()
	r.paused.Store(false)
}

// follow reads the list at every interval while it is needed, until ctx ends.
func (r *revocations) follow(ctx context.Context, needed func() bool) {
	for {
		pause := r.interval - time.Duration(rand.Int64N(int64(r.interval/5)+1))
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if time.Since(time.Unix(0, r.used.Load())) > revocationsIdle && !needed() {
			r.paused.Store(true)
			continue
		}
		r.mu.Lock()
		r.read()
		r.mu.Unlock()
	}
}

func (r *revocations) read() {
	r.attempt = time.Now()
	next, err := r.fetch()
	if (err != nil) != r.failing {
		r.failing = err != nil
		r.log.Warn("revocations", "app", "edge", "readable", err == nil, "detail", errorText(err))
	}
	if err == nil {
		r.current.Store(&next)
		r.ended(&next)
	}
}

func (r *revocations) fetch() (revoked, error) {
	var answer struct {
		Revocations []struct {
			Claim       string    `json:"claim"`
			Value       string    `json:"value"`
			IssuedUntil time.Time `json:"issuedUntil"`
		} `json:"revocations"`
	}
	if err := r.issuer.ask("TokenService/ListRevocations", struct{}{}, &answer); err != nil {
		return nil, err
	}
	var before revoked
	if current := r.current.Load(); current != nil {
		before = *current
	}
	now, next := time.Now(), revoked{}
	for _, listed := range answer.Revocations {
		key, until := revokedClaim{listed.Claim, listed.Value}, listed.IssuedUntil.Unix()
		if known, twice := next[key]; twice && known.issuedUntil >= until {
			continue
		}
		next[key] = revocation{until, now}
		if known, listedBefore := before[key]; listedBefore && known.issuedUntil == until {
			next[key] = known
		}
	}
	return next, nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
