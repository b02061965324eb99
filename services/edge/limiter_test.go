package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// burst sends calls at once and counts the answers by status.
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

func TestAParallelBurstIsCutExactlyAtTheLimit(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	key := newKey()
	limited := validKey()
	limited["rateLimit"] = map[string]any{"limit": 50, "windowSeconds": 3600}
	sidecar.knows(key, limited)
	for name, row := range map[string]struct {
		variable, path, credential string
		passed                     int
	}{
		"address":        {"EDGE_RATE_ADDRESS", unaryPath, goodToken(t), 50},
		"user":           {"EDGE_RATE_USER", unaryPath, goodToken(t), 50},
		"key":            {"", unaryPath, key, 50},
		"public":         {"EDGE_RATE_PUBLIC", publicPath, "", 50},
		"no credential":  {"EDGE_RATE_ADDRESS", unaryPath, "", 0},
		"bad credential": {"EDGE_RATE_ADDRESS", unaryPath, newKey(), 0},
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

func TestOneCallersLimitIsNotAnothers(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_RATE_USER": "1", "EDGE_RATE_PUBLIC": "1"})
	first, second := goodToken(t), sign(t, 0, kid("k1"), claimsWith(map[string]any{"sub": "user-2"}))
	for _, row := range []struct {
		path, token string
		status      int
	}{{unaryPath, first, 200}, {unaryPath, first, 429}, {unaryPath, second, 200}, {publicPath, "", 200}, {publicPath, "", 429}} {
		if got := post(t, edge, row.path, row.token); got.status != row.status {
			t.Errorf("%v: got %d", row, got.status)
		}
	}
}

func TestTheFieldsSayWhatIsLeftAndWhenToComeBack(t *testing.T) {
	sidecar := newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("RateLimit-Policy", `"app";q=9;w=1`)
		w.Header().Set("RateLimit", `"app";r=8;t=1`)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	})
	key := newKey()
	limited := validKey()
	limited["rateLimit"] = map[string]any{"limit": 7, "windowSeconds": 10}
	sidecar.knows(key, limited)
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
	refused.wants(t, 429, codeRateLimited)
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

func TestWithoutLimitsThereAreNoFields(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	got := post(t, edge, unaryPath, goodToken(t))
	if got.header.Get("RateLimit") != "" || got.header.Get("RateLimit-Policy") != "" {
		t.Errorf("got %v", got.header)
	}
}

func TestOnALaptopNothingIsLimitedAndElsewhereItIs(t *testing.T) {
	for environment, want := range map[string][3]int{"": {0, 0, 0}, "local": {0, 0, 0}, "production": {600, 1200, 60}} {
		s, err := readSettings(func(name string) string { return map[string]string{"YOCASO_ENV": environment}[name] })
		if err != nil || [3]int{s.RateAddress, s.RateUser, s.RatePublic} != want {
			t.Errorf("%q: %v %v", environment, s, err)
		}
	}
}

func TestAClientCannotChooseItsAddress(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	for name, row := range map[string]struct {
		proxies string
		limited int
	}{"nobody is believed": {"", 19}, "the peer is a proxy of ours": {"127.0.0.0/8", 0}} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_RATE_PUBLIC": "1", "EDGE_TRUSTED_PROXIES": row.proxies})
			var hop atomic.Int64
			count := burst(t, 20, func() reply {
				return post(t, edge, publicPath, "", "X-Forwarded-For", fmt.Sprintf("10.0.0.%d", hop.Add(1)))
			})
			if count[429] != row.limited {
				t.Errorf("got %v", count)
			}
		})
	}
}

func TestAnAddressIsTheLastHopThatIsNotOurs(t *testing.T) {
	e := &edge{settings: settings{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}}
	for name, row := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no proxy":                    {"203.0.113.9:1", nil, "203.0.113.9"},
		"a client that pretends":      {"203.0.113.9:1", []string{"1.1.1.1"}, "203.0.113.9"},
		"behind one proxy":            {"10.0.0.1:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"pretends behind one proxy":   {"10.0.0.1:1", []string{"1.1.1.1, 203.0.113.9"}, "203.0.113.9"},
		"several fields":              {"10.0.0.1:1", []string{"1.1.1.1", "203.0.113.9"}, "203.0.113.9"},
		"behind two proxies":          {"10.0.0.1:1", []string{"1.1.1.1, 203.0.113.9, 10.2.2.2"}, "203.0.113.9"},
		"pretends to be a proxy":      {"10.0.0.1:1", []string{"10.3.3.3, 203.0.113.9"}, "203.0.113.9"},
		"only proxies":                {"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		"nothing forwarded":           {"10.0.0.1:1", nil, "10.0.0.1"},
		"nonsense":                    {"10.0.0.1:1", []string{"203.0.113.9, <script>"}, "10.0.0.1"},
		"nonsense further away":       {"10.0.0.1:1", []string{"<script>, 10.0.0.2"}, "10.0.0.2"},
		"IPv6 is its network":         {"[2001:db8:1:2:3:4:5:6]:1", nil, "2001:db8:1:2::/64"},
		"IPv4 written as IPv6":        {"[::ffff:203.0.113.9]:1", nil, "203.0.113.9"},
		"IPv6 proxy":                  {"[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::/64"},
		"a proxy, IPv4 within IPv6":   {"[::ffff:10.0.0.1]:1", []string{"203.0.113.9"}, "203.0.113.9"},
		"an address without any port": {"pipe", nil, "pipe"},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = row.peer
		r.Header["X-Forwarded-For"] = row.forwarded
		if got := e.addressOf(r); got != row.want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestInNoWindowAreThereMoreCallsThanTheLimitAndAPatientCallerIsNotHeldBack(t *testing.T) {
	const limit, span = 20, time.Minute
	for range 200 {
		l := newLimiter("user")
		var passed []time.Duration
		now := time.Duration(0)
		for range 300 {
			now += time.Duration(rand.Int64N(int64(span) / (5 + rand.Int64N(200))))
			left := l.take("u", limit, span, now)
			if left.refused && (left.reset <= 0 || left.reset > span) {
				t.Fatalf("reset %v", left.reset)
			}
			within, strictly := 0, 0
			for _, at := range passed {
				if at > now-span {
					within++
				}
				if at > now-span-span/resolution {
					strictly++
				}
			}
			if !left.refused {
				passed = append(passed, now)
				within++
			}
			if within > limit {
				t.Fatalf("%d calls in a window", within)
			}
			if left.refused && strictly < limit {
				t.Fatalf("refused after only %d calls", strictly)
			}
			if !left.refused && left.remaining > limit-within {
				t.Fatalf("%d left after %d", left.remaining, within)
			}
		}
		if left := l.take("u", limit, span, now+span+time.Second); left.refused || left.remaining != limit-1 {
			t.Fatalf("after a pause: %+v", left)
		}
	}
}

func TestTheWaitThatIsNamedIsEnough(t *testing.T) {
	l := newLimiter("user")
	now := 17 * time.Second
	for range 3 {
		l.take("u", 3, time.Minute, now)
		now += 7 * time.Second
	}
	refused := l.take("u", 3, time.Minute, now)
	if !refused.refused || refused.reset != 39*time.Second {
		t.Fatalf("%+v", refused)
	}
	if again := l.take("u", 3, time.Minute, now+refused.reset); again.refused {
		t.Errorf("%+v", again)
	}
}

func TestALimitThatChangesCountsAnew(t *testing.T) {
	l := newLimiter("key")
	l.take("k", 1, time.Minute, 0)
	if got := l.take("k", 1, time.Minute, 1); !got.refused {
		t.Errorf("%+v", got)
	}
	if got := l.take("k", 2, time.Minute, 2); got.refused {
		t.Errorf("%+v", got)
	}
}

func TestSubjectsThatAreIdleAreForgotten(t *testing.T) {
	l := newLimiter("address")
	for i := range 5_000 {
		l.take(fmt.Sprint(i), 10, time.Minute, time.Duration(i)*time.Second)
	}
	if kept := len(l.windows.items); kept > 70 {
		t.Errorf("%d kept", kept)
	}
	for i := range maxWindows + 100 {
		l.take(fmt.Sprint("at once ", i), 10, time.Minute, 9_000*time.Second)
	}
	if kept := len(l.windows.items); kept > maxWindows {
		t.Errorf("%d kept", kept)
	}
}

func TestHealthIsNeverLimited(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, map[string]string{"EDGE_RATE_ADDRESS": "1"})
	for range 5 {
		if got := do(t, request(t, http.MethodGet, edge.url+healthPath, "", nil)); got.status != 200 {
			t.Errorf("got %d", got.status)
		}
	}
}
