package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// burst sends calls concurrently and counts the responses by status.
func burst(t *testing.T, calls int, call func() reply) map[int]int {
	t.Helper()
	var clients sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for range calls {
		clients.Go(func() {
			got := call()
			mu.Lock()
			defer mu.Unlock()
			count[got.status]++
		})
	}
	clients.Wait()
	return count
}

func TestExactlyTheLimitOfAParallelBurstPasses(t *testing.T) {
	handle, _ := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	key := newAPIKey()
	limited := validVerification()
	limited["rateLimit"] = map[string]any{"limit": 50, "windowSeconds": 3600}
	sidecar.setVerification(key, limited)
	for name, row := range map[string]struct {
		variable, path, credential string
		passed                     int
	}{
		"address":        {"EDGE_RATE_ADDRESS", unaryPath, validToken(t), 50},
		"user":           {"EDGE_RATE_USER", unaryPath, validToken(t), 50},
		"key":            {"", unaryPath, key, 50},
		"public":         {"EDGE_RATE_PUBLIC", publicPath, "", 50},
		"no credential":  {"EDGE_RATE_ADDRESS", unaryPath, "", 0},
		"bad credential": {"EDGE_RATE_ADDRESS", unaryPath, newAPIKey(), 0},
		"no such path":   {"EDGE_RATE_ADDRESS", "/nowhere", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, sidecar.URL, map[string]string{row.variable: "50"})
			count := burst(t, 200, func() reply { return post(t, edge, row.path, row.credential) })
			if count[200] != row.passed || count[429] != 150 {
				t.Errorf("got %v", count)
			}
		})
	}
}

func TestLimitsAreSeparatePerUserAndForPublicMethods(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, map[string]string{"EDGE_RATE_USER": "1", "EDGE_RATE_PUBLIC": "1"})
	first, second := validToken(t), sign(t, 0, kid("k1"), claimsWith(map[string]any{"sub": "user-2"}))
	for _, row := range []struct {
		path, token string
		status      int
	}{{unaryPath, first, 200}, {unaryPath, first, 429}, {unaryPath, second, 200}, {publicPath, "", 200}, {publicPath, "", 429}} {
		if got := post(t, edge, row.path, row.token); got.status != row.status {
			t.Errorf("%v: got %d", row, got.status)
		}
	}
}

func TestRateLimitHeadersAreExactAndMergedWithTheApps(t *testing.T) {
	sidecar := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit-Policy", `"app";q=9;w=1`)
		w.Header().Set("RateLimit", `"app";r=8;t=1`)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	})
	key := newAPIKey()
	limited := validVerification()
	limited["rateLimit"] = map[string]any{"limit": 7, "windowSeconds": 10}
	sidecar.setVerification(key, limited)
	edge := startEdge(t, sidecar.URL, map[string]string{
		"EDGE_RATE_ADDRESS": "600", "EDGE_RATE_USER": "2", "EDGE_CORS_ORIGINS": "https://a.example"})
	got := post(t, edge, unaryPath, key, "Origin", "https://a.example")
	for name, want := range map[string]string{
		"RateLimit-Policy": `"address";q=600;w=60, "key";q=7;w=10, "user";q=2;w=60, "app";q=9;w=1`,
		"RateLimit":        `"address";r=599;t=60, "key";r=6;t=10, "user";r=1;t=60, "app";r=8;t=1`,
		"Retry-After":      "",
	} {
		if values := got.header.Values(name); strings.Join(values, "|") != want {
			t.Errorf("%s: %q", name, values)
		}
	}
	exposed := strings.ToLower(got.header.Get("Access-Control-Expose-Headers"))
	if !strings.Contains(exposed, "ratelimit, ratelimit-policy, retry-after") {
		t.Errorf("exposed: %q", exposed)
	}
	post(t, edge, unaryPath, key)
	refused := post(t, edge, unaryPath, key)
	refused.wantError(t, 429, codeRateLimited)
	if limits := refused.header.Get("RateLimit"); !regexp.MustCompile(`^"address";r=597;t=(60|59), "key";r=4;t=(10|9), "user";r=0;t=(60|59)$`).MatchString(limits) {
		t.Errorf("RateLimit: %s", limits)
	}
	after, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if err != nil || after < 59 || after > 60 || !strings.Contains(refused.body, fmt.Sprintf(`"retryAfter":"%ds"`, after)) {
		t.Errorf("Retry-After %q, body %s", refused.header.Get("Retry-After"), refused.body)
	}
	if refused.header.Get("RateLimit-Policy") == "" {
		t.Error("no policy on 429")
	}
}

func TestWithoutLimitsThereAreNoRateLimitHeaders(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, nil)
	got := post(t, edge, unaryPath, validToken(t))
	if got.header.Get("RateLimit") != "" || got.header.Get("RateLimit-Policy") != "" {
		t.Errorf("got %v", got.header)
	}
}

func TestNoWindowExceedsTheLimitAndNoCallIsRefusedBelowIt(t *testing.T) {
	const limit, span = 20, time.Minute
	for range 200 {
		l := newRateLimiter("user")
		var allowed []time.Duration
		now := time.Duration(0)
		for range 300 {
			now += time.Duration(rand.Int64N(int64(span) / (5 + rand.Int64N(200))))
			quota := l.take("u", limit, span, now)
			if quota.exceeded && (quota.reset <= 0 || quota.reset > span) {
				t.Fatalf("reset %v", quota.reset)
			}
			within, unexpired := 0, 0
			for _, at := range allowed {
				if at > now-span {
					within++
				}
				if at > now-span-span/bucketsPerWindow {
					unexpired++
				}
			}
			if !quota.exceeded {
				allowed = append(allowed, now)
				within++
			}
			if within > limit {
				t.Fatalf("%d calls in a window", within)
			}
			if quota.exceeded && unexpired < limit {
				t.Fatalf("refused after %d calls", unexpired)
			}
			if !quota.exceeded && quota.remaining > limit-within {
				t.Fatalf("%d remaining after %d calls", quota.remaining, within)
			}
		}
		if quota := l.take("u", limit, span, now+span+time.Second); quota.exceeded || quota.remaining != limit-1 {
			t.Fatalf("after a pause: %+v", quota)
		}
	}
}

func TestACallAfterTheResetIsAllowed(t *testing.T) {
	l := newRateLimiter("user")
	now := 17 * time.Second
	for range 3 {
		l.take("u", 3, time.Minute, now)
		now += 7 * time.Second
	}
	refused := l.take("u", 3, time.Minute, now)
	if !refused.exceeded || refused.reset != 39*time.Second {
		t.Fatalf("%+v", refused)
	}
	if again := l.take("u", 3, time.Minute, now+refused.reset); again.exceeded {
		t.Errorf("%+v", again)
	}
}

func TestAChangedLimitStartsANewWindow(t *testing.T) {
	l := newRateLimiter("key")
	l.take("k", 1, time.Minute, 0)
	if got := l.take("k", 1, time.Minute, 1); !got.exceeded {
		t.Errorf("%+v", got)
	}
	if got := l.take("k", 2, time.Minute, 2); got.exceeded {
		t.Errorf("%+v", got)
	}
}

func TestIdleWindowsAreEvicted(t *testing.T) {
	l := newRateLimiter("address")
	for i := range 5_000 {
		l.take(fmt.Sprint(i), 10, time.Minute, time.Duration(i)*time.Second)
	}
	if kept := len(l.windows.items); kept > 70 {
		t.Errorf("%d windows are left", kept)
	}
	for i := range maxWindows + 100 {
		l.take(fmt.Sprint("at once ", i), 10, time.Minute, 9_000*time.Second)
	}
	if kept := len(l.windows.items); kept > maxWindows {
		t.Errorf("%d windows are left", kept)
	}
}

func TestHealthProbesAreNotRateLimited(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, map[string]string{"EDGE_RATE_ADDRESS": "1"})
	for range 5 {
		if got := do(t, request(t, http.MethodGet, edge.url+healthPath, "", nil)); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
	}
}
