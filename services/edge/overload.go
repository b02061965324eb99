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

// The same rule by which an app protects itself (services/kit/http/overload.py), here for all that lies behind the edge: two
// sidecars and the app, whose queues only the edge sees whole, and where a refusal costs least.
const (
	// overloadTarget is how long the fastest call of an interval may take; a call alone takes a few milliseconds.
	overloadTarget   = 100 * time.Millisecond
	overloadInterval = 100 * time.Millisecond
	// overloadStalled is after how long without an answer no more calls are passed on.
	overloadStalled = time.Second
	// overloadFewest calls at once are always passed on: a burst of one user waits a moment, which is better than to be
	// refused.
	overloadFewest = 64
	// overloadMost is the limit beyond which there is none.
	overloadMost = 1000
	overloadDown = 0.8
	overloadUp   = 1.1

	// overloadedHeader is how an app says that it refused a call for want of capacity, not because it is away.
	overloadedHeader = "X-Overloaded"
	shedLogEvery     = time.Second
)

// overload is how many calls to one app are under way, and how many may be, by the delay that is measured.
type overload struct {
	mu       sync.Mutex
	underWay map[string]int
	total    int
	most     int
	began    time.Duration
	fastest  time.Duration
	refused  bool
	limit    float64

	shed     atomic.Int64
	loggedAt atomic.Int64
}

func newOverload() *overload {
	return &overload{underWay: map[string]int{}, fastest: math.MaxInt64, limit: math.Inf(1)}
}

// admits lets a call of a subject through, unless there are too many; then the subject with the fewest comes first.
func (o *overload) admits(subject string, now time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.total == 0 {
		o.endInterval(now)
	} else if o.total >= overloadFewest && now-o.began > overloadStalled {
		o.limit = min(o.limit, float64(o.total))
	}
	own := o.underWay[subject]
	if float64(o.total) >= o.limit && !o.isOwed(own) {
		return false
	}
	o.underWay[subject] = own + 1
	o.total++
	o.most = max(o.most, o.total)
	return true
}

// outcome is what became of a call that was passed on.
type outcome int

const (
	// unanswered calls broke off, or are answered when something else happens: how long they took says nothing.
	unanswered outcome = iota
	answered
	refused
)

// leaves counts a call out that was admitted at some time.
func (o *overload) leaves(subject string, since, now time.Duration, became outcome) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.total--
	if o.underWay[subject]--; o.underWay[subject] == 0 {
		delete(o.underWay, subject)
	}
	switch became {
	case answered:
		o.fastest = min(o.fastest, now-since)
	case refused:
		o.refused = true
	default:
		return
	}
	o.endInterval(now)
}

// isOwed says whether a subject with so many calls has less than its share, and there is room for one more such.
func (o *overload) isOwed(own int) bool {
	subjects := len(o.underWay)
	if own == 0 {
		subjects++
	}
	return float64(own) < o.limit/float64(subjects) && float64(o.total) < 2*o.limit
}

func (o *overload) endInterval(now time.Duration) {
	past := now - o.began
	if past < overloadInterval {
		return
	}
	slow := o.fastest > overloadTarget && o.fastest < math.MaxInt64
	switch {
	case slow || o.refused:
		o.limit = max(overloadFewest, min(o.limit, float64(o.most))*overloadDown)
	case o.limit > overloadMost || past > overloadStalled: // plenty, or nobody came
		o.limit = math.Inf(1)
	default:
		o.limit *= overloadUp
	}
	o.began, o.fastest, o.refused, o.most = now, math.MaxInt64, false, o.total
}

// admit asks whether a call may be passed on to an app, and gives what counts it out once its answer has begun. What
// completes begun work always may.
func (e *edge) admit(load *overload, c *call, options endpointOptions) (leave func(*proxy.Response), admitted bool) {
	if options.Completes {
		return func(*proxy.Response) {}, true
	}
	subject, since := subjectOf(c), time.Since(processStart)
	if !load.admits(subject, since) {
		c.shed = load
		return nil, false
	}
	if options.Waits {
		load.leaves(subject, since, since, unanswered)
	}
	return func(response *proxy.Response) {
		became := unanswered
		if response != nil && refusedByApp(response.Metadata.Headers) {
			became = refused
		} else if response != nil {
			became = answered
		}
		if !options.Waits {
			load.leaves(subject, since, time.Since(processStart), became)
		}
	}, true
}

// loadOf is the load of an app; all its endpoints share it.
func (e *edge) loadOf(app string) *overload {
	if e.loads[app] == nil {
		e.loads[app] = newOverload()
	}
	return e.loads[app]
}

// logShed says once a second how many calls were refused here: a line for each would cost more than the refusal.
func (o *overload) logShed(log *slog.Logger, now time.Duration) {
	count, last := o.shed.Add(1), o.loggedAt.Load()
	if now-time.Duration(last) < shedLogEvery || !o.loggedAt.CompareAndSwap(last, int64(now)) {
		return
	}
	o.shed.Add(-count)
	log.Warn("calls refused for overload", "app", "edge", "calls", count)
}

// refusedByApp tells an app's refusal from its other answers, and keeps the sign between the two of us.
func refusedByApp(header http.Header) bool {
	found := header.Get(overloadedHeader) != ""
	header.Del(overloadedHeader)
	return found
}

// appOf names the app that an endpoint's calls go to.
func appOf(endpoint *config.EndpointConfig) string {
	rest, _ := strings.CutPrefix(endpoint.Backend[0].URLPattern, "/v1.0/invoke/")
	app, _, _ := strings.Cut(rest, "/")
	return app
}

// subjectOf is whose calls to an app are counted together: a user's, or those from one address.
func subjectOf(c *call) string {
	if c.who.user == "" {
		return "address\n" + c.address
	}
	return c.who.user
}

func (e *edge) overloaded() failure {
	return e.catalogue.failAfter(codeUnavailable, "There is more to do than can be done; try again in a moment.",
		1+rand.Int64N(3)) // not all at the same time
}
