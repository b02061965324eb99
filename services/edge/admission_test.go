package main

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// simulatedApp serves one call at a time, in simulated time.
type simulatedApp struct {
	admission   *admission
	now         time.Duration
	serviceTime time.Duration
	busyUntil   time.Duration
	queue       []simulatedCall
}

type simulatedCall struct {
	subject              string
	admittedAt, servedAt time.Duration
}

// offer makes one call per subject and interval (in milliseconds); it returns the admitted calls by subject and the
// highest latency.
func (a *simulatedApp) offer(milliseconds int, intervals map[string]int) (admitted map[string]int, slowest time.Duration) {
	admitted = map[string]int{}
	for at := range milliseconds {
		a.now += time.Millisecond
		for len(a.queue) > 0 && a.queue[0].servedAt <= a.now {
			served := a.queue[0]
			a.queue = a.queue[1:]
			a.admission.release(served.subject, served.admittedAt, served.servedAt, answered)
			slowest = max(slowest, served.servedAt-served.admittedAt)
		}
		for subject, interval := range intervals {
			if at%interval == 0 && a.admission.admit(subject, a.now) {
				admitted[subject]++
				a.busyUntil = max(a.busyUntil, a.now) + a.serviceTime
				a.queue = append(a.queue, simulatedCall{subject, a.now, a.busyUntil})
			}
		}
	}
	return admitted, slowest
}

func TestExcessCallsAreShedAndLatencyStaysLow(t *testing.T) {
	app := &simulatedApp{admission: newAdmission(), serviceTime: 3 * time.Millisecond}
	app.offer(5000, map[string]int{"heavy": 1})
	admitted, slowest := app.offer(6000, map[string]int{"heavy": 1, "light": 100})
	if admitted["heavy"] < 2000*9/10 || admitted["heavy"] > 2000*11/10 {
		t.Errorf("%d calls of the heavy user were admitted, want about 2000", admitted["heavy"])
	}
	if admitted["light"] != 60 {
		t.Errorf("%d of 60 calls of the light user were admitted", admitted["light"])
	}
	if slowest > 500*time.Millisecond {
		t.Errorf("the highest latency was %s", slowest)
	}
	app.offer(1000, map[string]int{"heavy": 6})
	if admitted, _ := app.offer(2000, map[string]int{"heavy": 6}); admitted["heavy"] != 334 {
		t.Errorf("%d of 334 calls were admitted after the overload", admitted["heavy"])
	}
	if app.offer(2500, nil); len(app.admission.inFlight) != 0 || app.admission.total != 0 {
		t.Errorf("calls in flight at the end: %v", app.admission.inFlight)
	}
}

func TestAShortBurstOfOneUserIsAdmitted(t *testing.T) {
	limiter := newAdmission()
	limiter.limit = minConcurrency
	for call := range minConcurrency {
		if !limiter.admit("user", 0) {
			t.Fatalf("call %d was refused", call)
		}
	}
	if limiter.admit("user", 0) {
		t.Error("a call over the limit was admitted")
	}
	if !limiter.admit("another", 0) {
		t.Error("a user below the fair share was refused")
	}
}

func TestAStalledAppGetsNoFurtherCalls(t *testing.T) {
	limiter := newAdmission()
	admitted := 0
	for at := range 5000 {
		if limiter.admit("user", time.Duration(at)*time.Millisecond) {
			admitted++
		}
	}
	if admitted > 1100 {
		t.Errorf("%d calls were admitted to a stalled app", admitted)
	}
}

func TestSheddingByTheAppLowersTheLimit(t *testing.T) {
	limiter := newAdmission()
	for at := range 300 {
		now := time.Duration(at) * time.Millisecond
		limiter.admit("user", now)
		limiter.release("user", now, now, shedByApp)
	}
	if limiter.limit != minConcurrency {
		t.Errorf("the limit is %v", limiter.limit)
	}
}

func TestAnAppsOverloadResponseIsForwardedAndCancelsAreNeverShed(t *testing.T) {
	var calls atomic.Int64
	sidecar := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "2")
		w.Header().Set(overloadedHeader, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"error":{"code":"UNAVAILABLE","message":"busy","isTerminal":false}}`))
	})
	edge, bearer := startEdge(t, sidecar.URL, nil), validToken(t)
	for range 100 {
		reply := post(t, edge, quickPath, bearer)
		reply.wantError(t, http.StatusServiceUnavailable, codeUnavailable)
		if reply.header.Get("Retry-After") == "" {
			t.Fatal("Retry-After is missing")
		}
		if reply.header.Get(overloadedHeader) != "" {
			t.Fatal("the overload header reached the client")
		}
	}
	calls.Store(0)
	for range 20 {
		post(t, edge, "/api/v1/llm/conversation/cancel-turn", bearer)
	}
	if calls.Load() != 20 {
		t.Errorf("%d of 20 cancels reached the app", calls.Load())
	}
}
