package main

import (
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/luraproject/lura/v2/config"
)

const (
	// overloadedHeader is how an app says that it refused a call for want of capacity, not because it is away.
	overloadedHeader = "X-Overloaded"
	// overloadWindow is over what time calls are weighed; an app that refused nobody for as long again has recovered.
	overloadWindow = 500 * time.Millisecond
	overloadOver   = 2 * overloadWindow
	// overloadProbing is how many more calls than an app accepts are passed on to it, so that recovery shows.
	overloadProbing = 1.2
	maxPressed      = 20_000
)

// overload refuses here, where it costs least, what an overloaded app would refuse: of each user as large a share as
// the app did lately. Users whom the app lets in are left alone.
type overload struct {
	mu      sync.Mutex
	pressed *lru[string, *pressure]
	draw    func() float64
}

// pressure is what a user asked of an app lately, and what of it was accepted, both fading.
type pressure struct {
	asked, accepted    float64
	weighed, refusedAt time.Duration
}

func newOverload() *overload {
	return &overload{pressed: newLRU[string, *pressure](maxPressed), draw: rand.Float64}
}

// refuses says whether a call is not worth passing on.
func (o *overload) refuses(subject string, now time.Duration) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pressed.dropOldest(func(p *pressure) bool { return p.refusedAt+overloadOver < now })
	found, pressed := o.pressed.get(subject)
	if !pressed || found.refusedAt+overloadOver < now {
		return false
	}
	found.fade(now)
	if o.draw() >= (found.asked-overloadProbing*found.accepted)/(found.asked+1) {
		return false
	}
	found.asked++
	return true
}

// note learns from an app's answer.
func (o *overload) note(subject string, refused bool, now time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	found, pressed := o.pressed.get(subject)
	if !pressed {
		if !refused {
			return
		}
		found = &pressure{weighed: now}
		o.pressed.put(subject, found)
	}
	found.fade(now)
	found.asked++
	if refused {
		found.refusedAt = now
	} else {
		found.accepted++
	}
}

func (p *pressure) fade(now time.Duration) {
	kept := math.Exp(-float64(now-p.weighed) / float64(overloadWindow))
	p.asked, p.accepted, p.weighed = p.asked*kept, p.accepted*kept, now
}

// refusedByApp tells an app's refusal from its other answers, and keeps the sign between the two of us.
func refusedByApp(header http.Header) bool {
	refused := header.Get(overloadedHeader) != ""
	header.Del(overloadedHeader)
	return refused
}

// appOf names the app that an endpoint's calls go to.
func appOf(endpoint *config.EndpointConfig) string {
	rest, _ := strings.CutPrefix(endpoint.Backend[0].URLPattern, "/v1.0/invoke/")
	app, _, _ := strings.Cut(rest, "/")
	return app
}

// subjectOf is whose calls to an app are weighed together: a user's, or those from one address.
func subjectOf(app string, c *call) string {
	if c.who.user == "" {
		return app + "\n" + c.address
	}
	return app + "\n" + c.who.user
}

func (e *edge) overloaded() failure {
	return e.catalogue.failAfter(codeUnavailable, "There is more to do than can be done; try again in a moment.",
		1+rand.Int64N(3)) // not all at the same time
}
