package main

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// shedLoad plays calls of a user, one each millisecond, against an app that does one in so long and lets 16 wait.
func shedLoad(o *overload, subject string, calls int, each time.Duration, now *time.Duration) (reached, accepted int) {
	const waiting = 16
	done := *now
	for range calls {
		*now += time.Millisecond
		if o.refuses(subject, *now) {
			continue
		}
		reached++
		done = max(done, *now)
		takes := done-*now < waiting*each
		if takes {
			accepted++
			done += each
		}
		o.note(subject, !takes, *now)
	}
	return reached, accepted
}

func TestWhatAnAppRefusesIsRefusedBeforeItAndRecoveryIsQuick(t *testing.T) {
	o, now := newOverload(), time.Duration(0)
	o.draw = rand.New(rand.NewPCG(1, 2)).Float64
	const third, always = 3 * time.Millisecond, time.Millisecond
	shedLoad(o, "llm\nheavy", 2000, third, &now)
	reached, accepted := shedLoad(o, "llm\nheavy", 6000, third, &now)
	if reached > 6000/2 || accepted < 2000*8/10 {
		t.Errorf("%d of 6000 calls still reached the app, and of 2000 that it could take, it took %d", reached, accepted)
	}
	if reached, _ := shedLoad(o, "llm\nlight", 1000, always, &now); reached != 1000 {
		t.Errorf("of a user whom the app lets in, %d of 1000 calls reached it", reached)
	}
	shedLoad(o, "llm\nheavy", 1000, always, &now)
	if reached, _ := shedLoad(o, "llm\nheavy", 1000, always, &now); reached != 1000 {
		t.Errorf("after the overload %d of 1000 calls reached the app", reached)
	}
	if len(o.pressed.items) > 1 {
		t.Errorf("%d users are still remembered", len(o.pressed.items))
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
	if calls.Load() >= 100 {
		t.Error("everything was passed on to an app that accepts nothing")
	}
	calls.Store(0)
	for range 20 {
		post(t, edge, "/api/v1/llm/conversation/cancel-turn", bearer)
	}
	if calls.Load() != 20 {
		t.Errorf("of 20 cancels %d were passed on", calls.Load())
	}
}
