package main

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestTheChecksumIsAuths(t *testing.T) {
	for body, want := range map[string]string{"yk_test_" + strings.Repeat("0", 38): "0nfHFs", "a": "4GEHKN"} {
		if got := checksum(body); got != want {
			t.Errorf("%s: %s", body, got)
		}
	}
}

func TestAKeySpeaksForItsOwner(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	key := newKey()
	sidecar.knows(key, validKey())
	for name, headers := range map[string][]string{
		"bearer":          {"Authorization", "Bearer " + key},
		"lower case":      {"authorization", "bearer " + key},
		"header":          {"X-Api-Key", key},
		"with forgeries":  {"X-Api-Key", key, "X-User-Id", "root", "x_key_id", "key_root", "X-Key-Id", "key_root", "X-Scopes", "admin"},
		"hop by hop":      {"X-Api-Key", key, "Connection", "x-key-id, x-user-id"},
		"odd second name": {"X-Api-Key", key, "X_Api_Key", "yk_live_other", "X-Api_Key", "yk_live_other"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := post(t, edge, unaryPath, "", headers...); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			r := receive(t, seen, "the call at the sidecar")
			for header, want := range map[string]string{"X-User-Id": "user-1", "X-User-Email": "one@example.org",
				"X-Scopes": "chat read", "X-Key-Id": keyID} {
				if got := r.Header.Values(header); len(got) != 1 || got[0] != want {
					t.Errorf("%s: want %q, got %q", header, want, got)
				}
			}
			for name, values := range r.Header {
				if strings.Contains(strings.Join(values, " "), key) || strings.Contains(name, "_") {
					t.Errorf("%s passed on", name)
				}
			}
		})
	}
	edge.stop()
	receive(t, edge.done, "the edge to stop")
	if text := edge.log.String(); strings.Contains(text, key) || strings.Contains(text, "user-1") ||
		!strings.Contains(text, `"keyId":"`+keyID+`"`) || !strings.Contains(text, `"user":"`+userHash("user-1")+`"`) {
		t.Errorf("log: %s", text)
	}
}

func TestACallCarriesExactlyOneCredentialAndNoneInItsQuery(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	key, other, token := newKey(), newKey(), goodToken(t)
	sidecar.knows(key, validKey())
	flipped := []byte(key)
	flipped[20] = base62[(strings.IndexByte(base62, flipped[20])+1)%62]
	bearer := func(secret string) []string { return []string{"Authorization", "Bearer " + secret} }
	header := func(secret string) []string { return []string{"X-Api-Key", secret} }
	for name, row := range map[string]struct {
		headers []string
		query   string
	}{
		"none":                       {nil, ""},
		"token and key":              {append(bearer(token), header(key)...), ""},
		"the same key twice":         {append(bearer(key), header(key)...), ""},
		"two headers":                {append(header(key), header(key)...), ""},
		"two spellings":              {[]string{"X-Api-Key", key, "x-api-key", other}, ""},
		"two bearers":                {append(bearer(key), bearer(key)...), ""},
		"key and basic":              {append(header(key), "Authorization", "Basic eDp5"), ""},
		"key and an empty bearer":    {append(header(key), "Authorization", ""), ""},
		"empty key and token":        {append(bearer(token), header("")...), ""},
		"a comma list":               {header(key + "," + key), ""},
		"a token in the key's place": {header(token), ""},
		"key in basic":               {[]string{"Authorization", "Basic " + key}, ""},
		"key without a scheme":       {[]string{"Authorization", key}, ""},
		"key in a cookie":            {[]string{"Cookie", "api_key=" + key}, ""},
		"a typo":                     {bearer(string(flipped)), ""},
		"cut off":                    {bearer(key[:len(key)-1]), ""},
		"longer":                     {bearer(key + "0"), ""},
		"another prefix":             {bearer("yk_prod_" + key[8:]), ""},
		"upper case":                 {header(strings.ToUpper(key)), ""},
		"only the prefix":            {bearer("yk_live_"), ""},
		"only a letter":              {bearer("yk_"), ""},
		"in the query":               {nil, "?api_key=" + key},
		"in the query by its header": {nil, "?x-api-key=" + key},
		"in the query as a token":    {nil, "?access_token=" + key},
		"query beside a good key":    {header(key), "?apiKey=" + key},
		"query beside a good token":  {bearer(token), "?api_key=x"},
		"under any name":             {bearer(token), "?conversationId=" + key},
		"encoded":                    {bearer(token), "?conversationId=%79%6b_test_" + key[8:]},
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range []string{unaryPath, streamPath} {
				post(t, edge, path+row.query, "", row.headers...).wants(t, 401, codeUnauthenticated)
			}
			do(t, request(t, http.MethodGet, edge.url+streamPath+row.query, "", nil, row.headers...)).wants(t, 401, codeUnauthenticated)
		})
	}
	if len(seen) != 0 || sidecar.verifies.Load() != 0 {
		t.Errorf("%d calls passed, auth was asked %d times", len(seen), sidecar.verifies.Load())
	}
}

func TestWhatIsWrongWithACredentialIsNotTold(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	known := func(change map[string]any) map[string]any {
		answer := validKey()
		for name, value := range change {
			answer[name] = value
		}
		return answer
	}
	want := post(t, edge, unaryPath, "")
	want.wants(t, 401, codeUnauthenticated)
	for name, answer := range map[string]map[string]any{
		"unknown":          {"valid": false, "code": "NOT_FOUND"},
		"expired":          known(map[string]any{"valid": false, "code": "EXPIRED"}),
		"revoked":          known(map[string]any{"valid": false, "code": "REVOKED"}),
		"low scope":        known(map[string]any{"valid": false, "code": "INSUFFICIENT_SCOPE"}),
		"a code of later":  known(map[string]any{"valid": false, "code": "WHATEVER"}),
		"of nobody":        known(map[string]any{"userId": ""}),
		"two users":        known(map[string]any{"userId": "user-1,root"}),
		"no id":            known(map[string]any{"keyId": ""}),
		"an odd id":        known(map[string]any{"keyId": "key_1\r\nX-Scopes: admin"}),
		"line break":       known(map[string]any{"email": "a@b\r\nX-Scopes: admin"}),
		"odd scopes":       known(map[string]any{"scopes": []string{"a\nb"}}),
		"nothing answered": {},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey()
			sidecar.knows(key, answer)
			if got := post(t, edge, unaryPath, key); got.status != 401 || got.body != want.body ||
				got.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	for code, status := range map[string]int{codeBudgetExceeded: 402, codeRateLimited: 429} {
		key := newKey()
		sidecar.knows(key, known(map[string]any{"valid": false, "code": code}))
		post(t, edge, unaryPath, key).wants(t, status, code)
	}
	if len(seen) != 0 {
		t.Error("a refused call reached the sidecar")
	}
}

func TestABurstAsksOnce(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	for name, row := range map[string]struct {
		answer map[string]any
		status int
	}{
		"good": {validKey(), 200}, "bad": {map[string]any{"valid": false, "code": "REVOKED"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			key := newKey()
			sidecar.knows(key, row.answer)
			before := sidecar.verifies.Load()
			var clients sync.WaitGroup
			for range 200 {
				clients.Go(func() {
					if got := post(t, edge, unaryPath, key); got.status != row.status {
						t.Errorf("got %d %s", got.status, got.body)
					}
				})
			}
			clients.Wait()
			if asked := sidecar.verifies.Load() - before; asked != 1 {
				t.Errorf("auth was asked %d times", asked)
			}
		})
	}
}

func TestARevokedKeyEndsWhenItsAnswerIsOldAndAtOnceWhenTheListSaysSo(t *testing.T) {
	for name, environment := range map[string]map[string]string{
		"old answer": {"EDGE_KEY_TTL_SECONDS": "0.3"},
		"the list":   {"EDGE_REVOCATION_SECONDS": "0.05"},
	} {
		t.Run(name, func(t *testing.T) {
			handle, _ := recorded()
			sidecar := newFakeSidecar(t, handle)
			edge := startEdge(t, sidecar.URL, environment)
			key := newKey()
			sidecar.knows(key, validKey())
			if got := post(t, edge, unaryPath, key); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			sidecar.knows(key, map[string]any{"valid": false, "code": "REVOKED", "keyId": keyID})
			if name == "the list" {
				sidecar.revoke("key_id", keyID, time.Now())
			}
			began := time.Now()
			eventually(t, "the key to end", func() bool { return post(t, edge, unaryPath, key).status == 401 })
			if took := time.Since(began); took > 1500*time.Millisecond { // less than the 2 s of the default
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestAKeyThatIsGoodAgainAfterARevocationIsAskedAboutOnce(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	sidecar.revoke("key_id", keyID, time.Now().Add(time.Hour)) // whatever auth's clock says
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, goodToken(t)) // reads the list
	key := newKey()
	sidecar.knows(key, validKey())
	for range 20 {
		if got := post(t, edge, unaryPath, key); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	if got := sidecar.verifies.Load(); got != 1 {
		t.Errorf("auth was asked %d times", got)
	}
}

func TestAKeyThatSurvivesARevocationOfItsTokensNeverFails(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	key := newKey()
	sidecar.knows(key, validKey())
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"key_id": keyID}))
	for _, credential := range []string{key, token} {
		if got := post(t, edge, unaryPath, credential); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
	}
	sidecar.revoke("key_id", keyID, time.Now()) // its scopes were narrowed, say
	eventually(t, "the token to end", func() bool {
		if got := post(t, edge, unaryPath, key); got.status != 200 {
			t.Fatalf("the key: got %d %s", got.status, got.body)
		}
		return post(t, edge, unaryPath, token).status == 401
	})
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Errorf("the key: got %d %s", got.status, got.body)
	}
}

func TestAnAnswerThatARevocationOvertakesIsAskedForAgain(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_REVOCATION_SECONDS": "0.05"})
	post(t, edge, unaryPath, goodToken(t)) // from now on the list is read
	verify := func(string) any {
		if sidecar.verifies.Load() == 1 {
			sidecar.revoke("key_id", keyID, time.Now())
			read := sidecar.lists.Load() // the one under way may not have it yet
			for deadline := time.Now().Add(2 * time.Second); sidecar.lists.Load() < read+3 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		}
		return validKey()
	}
	sidecar.verify.Store(&verify)
	if got := post(t, edge, unaryPath, newKey()); got.status != 200 || sidecar.verifies.Load() != 2 {
		t.Errorf("got %d %s after %d questions", got.status, got.body, sidecar.verifies.Load())
	}
}

func TestWhileAuthIsAwayOnlyAFreshAnswerCounts(t *testing.T) {
	handle, seen := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, map[string]string{"EDGE_KEY_TTL_SECONDS": "0.5"})
	key, other := newKey(), newKey()
	sidecar.knows(key, validKey())
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	sidecar.authOut.Store(true)
	got := post(t, edge, unaryPath, other)
	got.wants(t, 503, codeUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	began := time.Now()
	eventually(t, "the answer to be too old", func() bool { return post(t, edge, unaryPath, key).status == 503 })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("a stale yes lived %v", took)
	}
	for len(seen) > 0 {
		<-seen
	}
	post(t, edge, unaryPath, key).wants(t, 503, codeUnavailable)
	if len(seen) != 0 {
		t.Error("a call passed")
	}
	sidecar.authOut.Store(false)
	if got := post(t, edge, unaryPath, key); got.status != 200 {
		t.Errorf("after the outage: %d", got.status)
	}
}

func TestWhoLeavesWhileAuthIsAskedSpoilsItForNobody(t *testing.T) {
	handle, _ := recorded()
	sidecar := newFakeSidecar(t, handle)
	edge := startEdge(t, sidecar.URL, nil)
	key := newKey()
	asked, goOn := make(chan struct{}), make(chan struct{})
	verify := func(string) any {
		close(asked)
		<-goOn
		return validKey()
	}
	sidecar.verify.Store(&verify)
	first := request(t, http.MethodPost, edge.url+unaryPath, key, strings.NewReader("{}"))
	ctx, leave := context.WithCancel(t.Context())
	go http.DefaultClient.Do(first.WithContext(ctx))
	receive(t, asked, "auth to be asked")
	second := make(chan reply, 1)
	go func() { second <- post(t, edge, unaryPath, key) }()
	leave()
	close(goOn)
	if got := receive(t, second, "the second call"); got.status != 200 {
		t.Errorf("got %d %s", got.status, got.body)
	}
}

func TestWhatWasAskedLongestAgoIsForgottenFirst(t *testing.T) {
	cache := newLRU[int, int](3)
	for i := range 5 {
		cache.put(i, i)
		cache.get(0)
	}
	for key, want := range map[int]bool{0: true, 1: false, 2: false, 3: true, 4: true} {
		if _, found := cache.get(key); found != want {
			t.Errorf("%d: %v", key, found)
		}
	}
	if len(cache.items) != 3 || cache.order.Len() != 3 {
		t.Errorf("%d entries", len(cache.items))
	}
}
