package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/luraproject/lura/v2/config"
)

const (
	maxWindows    = 50_000
	defaultWindow = time.Minute
	// bucketsPerWindow bounds a window's memory. A call expires at most one bucket late, never early.
	bucketsPerWindow = 120
)

// processStart is the zero of a monotonic clock, which time.Since reads; the wall clock may be set back.
var processStart = time.Now()

// rateLimiter counts calls per subject in a sliding window. It counts in this process only: N replicas allow N times the
// limit.
type rateLimiter struct {
	name    string
	mu      sync.Mutex
	windows *lru[string, *slidingWindow]
}

type slidingWindow struct {
	limit   int
	span    time.Duration
	used    int
	buckets []bucket // oldest first
}

type bucket struct {
	last  time.Duration // time of its latest call
	calls int
}

// quota is a subject's state after a call; reset is the time until its oldest call expires.
type quota struct {
	name      string
	limit     int
	span      time.Duration
	remaining int
	reset     time.Duration
	exceeded  bool
}

func newRateLimiter(name string) *rateLimiter {
	return &rateLimiter{name: name, windows: newLRU[string, *slidingWindow](maxWindows)}
}

// take counts a call unless the subject's limit is used up.
func (l *rateLimiter) take(subject string, limit int, span, now time.Duration) quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	window, found := l.windows.get(subject)
	if !found || window.limit != limit || window.span != span {
		for range 2 { // two per insertion, so that idle windows do not accumulate
			l.windows.evictOldest(func(w *slidingWindow) bool { return w.isIdle(now) })
		}
		window = &slidingWindow{limit: limit, span: span}
		l.windows.put(subject, window)
	}
	exceeded := !window.take(now)
	return quota{l.name, limit, span, limit - window.used, window.buckets[0].last + span - now, exceeded}
}

func (w *slidingWindow) isIdle(now time.Duration) bool {
	return len(w.buckets) == 0 || w.buckets[len(w.buckets)-1].last+w.span <= now
}

func (w *slidingWindow) take(now time.Duration) bool {
	for len(w.buckets) > 0 && w.buckets[0].last+w.span <= now {
		w.used -= w.buckets[0].calls
		w.buckets = w.buckets[1:]
	}
	if w.used >= w.limit {
		return false
	}
	w.used++
	width := w.span / bucketsPerWindow
	if end := len(w.buckets) - 1; end >= 0 && w.buckets[end].last/width == now/width {
		w.buckets[end] = bucket{max(now, w.buckets[end].last), w.buckets[end].calls + 1}
	} else {
		w.buckets = append(w.buckets, bucket{now, 1})
	}
	return true
}

// enforce counts a call and adds the RateLimit headers; over the limit it answers 429 and returns false.
func (e *edge) enforce(c *gin.Context, l *rateLimiter, subject string, limit int, span time.Duration) bool {
	if limit == 0 {
		return true
	}
	q := l.take(subject, limit, span, time.Since(processStart))
	header := c.Writer.Header()
	appendListField(header, "Ratelimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d`, q.name, q.limit, wholeSeconds(q.span)))
	appendListField(header, "Ratelimit", fmt.Sprintf(`"%s";r=%d;t=%d`, q.name, q.remaining, wholeSeconds(q.reset)))
	if q.exceeded {
		e.abort(c, e.errors.failureWithRetry(codeRateLimited, "Rate limit exceeded; the RateLimit header names the limit.",
			max(wholeSeconds(q.reset), 1)))
	}
	return !q.exceeded
}

// wholeSeconds rounds up: after a Retry-After rounded down, the call would be refused again.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// appendListField appends to a list-valued header field (RFC 9651).
func appendListField(header http.Header, name string, items ...string) {
	header[name] = []string{strings.Join(append(header[name], items...), ", ")}
}

// limitAddress is middleware for every call but health probes and those of other Dapr apps: one calls for many users, each
// with a limit.
func (e *edge) limitAddress(c *gin.Context) {
	call := callFrom(c.Request.Context())
	if c.FullPath() == healthPath || call.callingApp != "" ||
		e.enforce(c, e.addressLimiter, call.clientAddress, e.settings.RateAddress, defaultWindow) {
		c.Next()
	}
}

// limitPrincipal applies an API key's own limit, then the user's.
func (e *edge) limitPrincipal(c *gin.Context, p principal) bool {
	if p.rateLimit != nil && p.rateLimit.Limit > 0 && p.rateLimit.WindowSeconds > 0 &&
		!e.enforce(c, e.keyLimiter, p.keyID, p.rateLimit.Limit, time.Duration(p.rateLimit.WindowSeconds)*time.Second) {
		return false
	}
	return e.enforce(c, e.userLimiter, p.user, e.settings.RateUser, defaultWindow)
}

// limitPublic limits a public method by address; other endpoints without a validator have no limit of their own.
func (e *edge) limitPublic(endpoint *config.EndpointConfig, handler gin.HandlerFunc) gin.HandlerFunc {
	options, err := decodeExtra[endpointOptions](endpoint.ExtraConfig)
	if err != nil || !options.Public {
		return handler
	}
	return func(c *gin.Context) {
		if e.enforce(c, e.publicLimiter, callFrom(c.Request.Context()).clientAddress, e.settings.RatePublic, defaultWindow) {
			handler(c)
		}
	}
}
