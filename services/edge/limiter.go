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
	maxWindows  = 50_000
	ratesWindow = time.Minute
	// resolution is into how many steps a window is divided: a call is forgotten at most one step late, never early.
	resolution = 120
)

// limiter counts calls by subject in a sliding window: in no window are there more than the limit. It counts in
// this process only, so N edges let through N times the limit.
type limiter struct {
	name    string
	mu      sync.Mutex
	windows *lru[string, *window]
}

// window holds the calls of one subject that still count, in steps; `last` is the latest call of a step.
type window struct {
	limit int
	span  time.Duration
	used  int
	steps []step
}

type step struct {
	last  time.Duration
	calls int
}

// quota is what a subject has left after a call, and when the oldest of its calls stops counting.
type quota struct {
	name      string
	limit     int
	span      time.Duration
	remaining int
	reset     time.Duration
	refused   bool
}

// processStart begins a clock that nobody sets back.
var processStart = time.Now()

func newLimiter(name string) *limiter {
	return &limiter{name: name, windows: newLRU[string, *window](maxWindows)}
}

// take counts a call, unless the subject has used up its limit.
func (l *limiter) take(subject string, limit int, span, now time.Duration) quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	found, known := l.windows.get(subject)
	if !known || found.limit != limit || found.span != span {
		for range 2 {
			l.windows.dropOldest(func(w *window) bool { return w.idle(now) })
		}
		found = &window{limit: limit, span: span}
		l.windows.put(subject, found)
	}
	refused := !found.take(now)
	return quota{l.name, limit, span, limit - found.used, found.steps[0].last + span - now, refused}
}

func (w *window) idle(now time.Duration) bool {
	return len(w.steps) == 0 || w.steps[len(w.steps)-1].last+w.span <= now
}

func (w *window) take(now time.Duration) bool {
	for len(w.steps) > 0 && w.steps[0].last+w.span <= now {
		w.used -= w.steps[0].calls
		w.steps = w.steps[1:]
	}
	if w.used >= w.limit {
		return false
	}
	w.used++
	width := w.span / resolution
	if end := len(w.steps) - 1; end >= 0 && w.steps[end].last/width == now/width {
		w.steps[end] = step{max(now, w.steps[end].last), w.steps[end].calls + 1}
	} else {
		w.steps = append(w.steps, step{now, 1})
	}
	return true
}

func (q quota) policy() string {
	return fmt.Sprintf(`"%s";q=%d;w=%d`, q.name, q.limit, seconds(q.span))
}

func (q quota) state() string {
	return fmt.Sprintf(`"%s";r=%d;t=%d`, q.name, q.remaining, seconds(q.reset))
}

func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// allowed counts a call against a limit and shows what is left of it; past the limit it answers 429.
func (e *edge) allowed(c *gin.Context, l *limiter, subject string, limit int, span time.Duration) bool {
	if limit == 0 {
		return true
	}
	left := l.take(subject, limit, span, time.Since(processStart))
	header := c.Writer.Header()
	addToList(header, "Ratelimit-Policy", left.policy())
	addToList(header, "Ratelimit", left.state())
	if left.refused {
		e.abort(c, e.catalogue.limited(left.reset))
	}
	return !left.refused
}

// addToList appends to a field whose value is a list (RFC 9651).
func addToList(header http.Header, name string, items ...string) {
	header[name] = []string{strings.Join(append(header[name], items...), ", ")}
}

// perAddress counts every call but the questions after the edge's health.
func (e *edge) perAddress(c *gin.Context) {
	if c.FullPath() == healthPath || e.allowed(c, e.addressCalls, callOf(c.Request.Context()).address, e.settings.RateAddress, ratesWindow) {
		c.Next()
	}
}

// perCaller counts a call of a caller that has been verified.
func (e *edge) perCaller(c *gin.Context, who caller) bool {
	if who.rate != nil && who.rate.Limit > 0 && who.rate.WindowSeconds > 0 &&
		!e.allowed(c, e.keyCalls, who.keyID, who.rate.Limit, time.Duration(who.rate.WindowSeconds)*time.Second) {
		return false
	}
	return e.allowed(c, e.userCalls, who.user, e.settings.RateUser, ratesWindow)
}

// unauthenticated serves an endpoint that anybody may call, with a limit of its own.
func (e *edge) unauthenticated(endpoint *config.EndpointConfig, handler gin.HandlerFunc) gin.HandlerFunc {
	options, err := ownConfig[endpointOptions](endpoint.ExtraConfig)
	if err != nil || !options.Public {
		return handler
	}
	return func(c *gin.Context) {
		if e.allowed(c, e.publicCalls, callOf(c.Request.Context()).address, e.settings.RatePublic, ratesWindow) {
			handler(c)
		}
	}
}

// limited is RATE_LIMITED, with the time after which a call is let through again.
func (c catalogue) limited(wait time.Duration) failure {
	return c.failAfter(codeRateLimited, "Too many calls; the RateLimit fields say by which limit.", max(seconds(wait), 1))
}
