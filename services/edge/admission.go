package main

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
)

// Admission control by measured latency. The apps run the same algorithm for calls that bypass the edge; only the edge
// sees the queues of both sidecars and the app together, and a refusal costs least here.
const (
	// targetLatency is the limit for the fastest call of an interval: a slower one means that there is a queue.
	targetLatency   = 100 * time.Millisecond
	measureInterval = 100 * time.Millisecond
	// stallTimeout without any response stops admission of further calls.
	stallTimeout = time.Second
	// minConcurrency calls are always admitted: queueing a user's short burst is better than refusing it.
	minConcurrency = 64
	// maxConcurrency is the limit above which the app counts as unlimited.
	maxConcurrency = 1000
	decreaseFactor = 0.8
	increaseFactor = 1.1

	// overloadedHeader marks an app's 503 as load shedding, as opposed to an outage.
	overloadedHeader = "X-Overloaded"
	shedLogInterval  = time.Second
)

// admission is the adaptive concurrency limit of one app, shared by its endpoints.
type admission struct {
	mu            sync.Mutex
	inFlight      map[string]int // by subject
	total         int
	peak          int // of total, in this interval
	intervalStart time.Duration
	minLatency    time.Duration
	appShed       bool
	limit         float64

	shedCalls  atomic.Int64
	lastLogged atomic.Int64
}

func newAdmission() *admission {
	return &admission{inFlight: map[string]int{}, minLatency: math.MaxInt64, limit: math.Inf(1)}
}

// admit counts a subject's call in. At the limit it refuses subjects that already use their fair share.
func (a *admission) admit(subject string, now time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total == 0 {
		a.adjustLimit(now)
	} else if a.total >= minConcurrency && now-a.intervalStart > stallTimeout {
		a.limit = min(a.limit, float64(a.total))
	}
	own := a.inFlight[subject]
	if float64(a.total) >= a.limit && !a.isBelowFairShare(own) {
		return false
	}
	a.inFlight[subject] = own + 1
	a.total++
	a.peak = max(a.peak, a.total)
	return true
}

type outcome int

const (
	// unmeasured calls were aborted or wait for an event: their latency is no measure of load.
	unmeasured outcome = iota
	answered
	shedByApp
)

func (a *admission) release(subject string, admittedAt, now time.Duration, result outcome) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.inFlight[subject]--; a.inFlight[subject] == 0 {
		delete(a.inFlight, subject)
	}
	switch result {
	case answered:
		a.minLatency = min(a.minLatency, now-admittedAt)
	case shedByApp:
		a.appShed = true
	default:
		return
	}
	a.adjustLimit(now)
}

// isBelowFairShare admits at most twice the limit in all, or many new subjects could overload the app.
func (a *admission) isBelowFairShare(own int) bool {
	subjects := len(a.inFlight)
	if own == 0 {
		subjects++
	}
	return float64(own) < a.limit/float64(subjects) && float64(a.total) < 2*a.limit
}

func (a *admission) adjustLimit(now time.Duration) {
	elapsed := now - a.intervalStart
	if elapsed < measureInterval {
		return
	}
	slow := a.minLatency > targetLatency && a.minLatency < math.MaxInt64
	switch {
	case slow || a.appShed:
		a.limit = max(minConcurrency, min(a.limit, float64(a.peak))*decreaseFactor)
	case a.limit > maxConcurrency || elapsed > stallTimeout: // a long interval means that there were no calls
		a.limit = math.Inf(1)
	default:
		a.limit *= increaseFactor
	}
	a.intervalStart, a.minLatency, a.appShed, a.peak = now, math.MaxInt64, false, a.total
}

// logShed logs one count per second: a line per shed call would cost more than shedding saves.
func (a *admission) logShed(log *slog.Logger, now time.Duration) {
	count, last := a.shedCalls.Add(1), a.lastLogged.Load()
	if now-time.Duration(last) < shedLogInterval || !a.lastLogged.CompareAndSwap(last, int64(now)) {
		return
	}
	a.shedCalls.Add(-count)
	log.Warn("calls shed by admission control", "app", "edge", "calls", count)
}

// admit asks an app's admission control; release must be called when the response has begun. Methods that complete begun
// work are always admitted.
func (e *edge) admit(app *admission, c *call, options endpointOptions) (release func(*proxy.Response), admitted bool) {
	if options.Completes {
		return func(*proxy.Response) {}, true
	}
	subject, admittedAt := admissionSubject(c), time.Since(processStart)
	if !app.admit(subject, admittedAt) {
		c.shedBy = app
		return nil, false
	}
	if options.Waits {
		app.release(subject, admittedAt, admittedAt, unmeasured)
	}
	return func(response *proxy.Response) {
		result := unmeasured
		if response != nil && takeOverloadedHeader(response.Metadata.Headers) {
			result = shedByApp
		} else if response != nil {
			result = answered
		}
		if !options.Waits {
			app.release(subject, admittedAt, time.Since(processStart), result)
		}
	}, true
}

func (e *edge) admissionOf(app string) *admission {
	if e.admissions[app] == nil {
		e.admissions[app] = newAdmission()
	}
	return e.admissions[app]
}

// takeOverloadedHeader also removes the header: it is internal to app and edge.
func takeOverloadedHeader(header http.Header) bool {
	found := header.Get(overloadedHeader) != ""
	header.Del(overloadedHeader)
	return found
}

// appOf returns the app-id in the invocation URL of a backend.
func appOf(backend *config.Backend) string {
	rest, _ := strings.CutPrefix(backend.URLPattern, "/v1.0/invoke/")
	app, _, _ := strings.Cut(rest, "/")
	return app
}

// admissionSubject is the user or, for a public method, the client address.
func admissionSubject(c *call) string {
	if c.principal.user == "" {
		return "address\n" + c.clientAddress
	}
	return c.principal.user
}

// overloadFailure varies Retry-After, so that shed clients do not return all at once.
func (e *edge) overloadFailure() failure {
	return e.errors.failureWithRetry(codeUnavailable, "The service is overloaded; try again later.", 1+rand.Int64N(3))
}
