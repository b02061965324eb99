package main

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// playedApp does one call after another, each in so long; calls come each millisecond.
type playedApp struct {
	load *overload
	now  time.Duration
	each time.Duration
	done time.Duration
	wait []playedCall
}

type playedCall struct {
	subject     string
	since, ends time.Duration
}

// offer makes calls of each subject, one in every so many milliseconds, and counts whose were let through; and how long
// the slowest of them took.
func (a *playedApp) offer(milliseconds int, every map[string]int) (passed map[string]int, slowest time.Duration) {
	passed = map[string]int{}
	for at := range milliseconds {
		a.now += time.Millisecond
		for len(a.wait) > 0 && a.wait[0].ends <= a.now {
			ended := a.wait[0]
			a.wait = a.wait[1:]
			a.load.leaves(ended.subject, ended.since, ended.ends, answered)
			slowest = max(slowest, ended.ends-ended.since)
		}
		for subject, pause := range every {
			if at%pause == 0 && a.load.admits(subject, a.now) {
				passed[subject]++
				a.done = max(a.done, a.now) + a.each
				a.wait = append(a.wait, playedCall{subject, a.now, a.done})
			}
		}
	}
	return passed, slowest
}

func TestWhatIsTooMuchIsRefusedAndTheRestIsServedSoon(t *testing.T) {
	app := &playedApp{load: newOverload(), each: 3 * time.Millisecond}
	app.offer(5000, map[string]int{"heavy": 1})
	passed, slowest := app.offer(6000, map[string]int{"heavy": 1, "light": 100})
	if passed["heavy"] < 2000*9/10 || passed["heavy"] > 2000*11/10 {
		t.Errorf("of 2000 calls that the app could do, %d were passed on", passed["heavy"])
	}
	if passed["light"] != 60 {
		t.Errorf("of a user with few calls, %d of 60 were passed on", passed["light"])
	}
	if slowest > 500*time.Millisecond {
		t.Errorf("a call took %s", slowest)
	}
	app.offer(1000, map[string]int{"heavy": 6})
	if passed, _ := app.offer(2000, map[string]int{"heavy": 6}); passed["heavy"] != 334 {
		t.Errorf("after the overload %d of 334 calls were passed on", passed["heavy"])
	}
	if app.offer(2500, nil); len(app.load.underWay) != 0 || app.load.total != 0 {
		t.Errorf("%v are still counted", app.load.underWay)
	}
}

func TestABurstOfOneUserIsServed(t *testing.T) {
	load := newOverload()
	load.limit = overloadFewest
	for call := range overloadFewest {
		if !load.admits("user", 0) {
			t.Fatalf("call %d was refused", call)
		}
	}
	if load.admits("user", 0) {
		t.Error("there is no limit")
	}
	if !load.admits("another", 0) {
		t.Error("a user with no call has to wait for one with many")
	}
}

func TestAStalledAppGetsNoMoreCalls(t *testing.T) {
	load := newOverload()
	passed := 0
	for at := range 5000 {
		if load.admits("user", time.Duration(at)*time.Millisecond) {
			passed++
		}
	}
	if passed > 1100 {
		t.Errorf("%d calls were passed on to an app that does not answer", passed)
	}
}

func TestAnAppsOwnRefusalCountsAsOverload(t *testing.T) {
	load := newOverload()
	for at := range 300 {
		now := time.Duration(at) * time.Millisecond
		load.admits("user", now)
		load.leaves("user", now, now, refused)
	}
	if load.limit != overloadFewest {
		t.Errorf("the limit is %v", load.limit)
	}
}

func TestAnOverloadedAppsAnswerPassesOnAndCancelsAlwaysReachIt(t *testing.T) {
	var calls atomic.Int64
	sidecar := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "2")
		w.Header().Set(overloadedHeader, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"error":{"code":"UNAVAILABLE","message":"busy","isTerminal":false}}`))
	})
	edge, bearer := startEdge(t, sidecar.URL, nil), goodToken(t)
	for range 100 {
		reply := post(t, edge, quickPath, bearer)
		reply.wants(t, http.StatusServiceUnavailable, codeUnavailable)
		if reply.header.Get("Retry-After") == "" {
			t.Fatal("an overloaded app's answer does not say when to come back")
		}
		if reply.header.Get(overloadedHeader) != "" {
			t.Fatal("the client sees what app and edge tell each other")
		}
	}
	calls.Store(0)
	for range 20 {
		post(t, edge, "/api/v1/llm/conversation/cancel-turn", bearer)
	}
	if calls.Load() != 20 {
		t.Errorf("of 20 cancels %d were passed on", calls.Load())
	}
}
