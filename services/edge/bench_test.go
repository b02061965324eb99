package main

import (
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkCall gives the time of a call through the edge, by what it shows for itself, beside the same call straight
// to the sidecar. An API key is asked about every 2 s; all other calls find the answer.
func BenchmarkCall(b *testing.B) {
	sidecar := newFakeSidecar(b, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	})
	edge := startEdge(b, sidecar.URL, nil)
	token, key := goodToken(b), newKey()
	sidecar.knows(key, validKey())
	for _, target := range []struct{ name, url, credential string }{
		{"direct", sidecar.URL + "/x", token},
		{"public", edge.url + publicPath, ""},
		{"token", edge.url + unaryPath, token},
		{"key", edge.url + unaryPath, key},
	} {
		call := func(b *testing.B) {
			got := do(b, request(b, http.MethodPost, target.url, target.credential, strings.NewReader(`{"text":"hello"}`)))
			if got.status != 200 {
				b.Fatalf("got %d %s", got.status, got.body)
			}
		}
		b.Run(target.name+"/alone", func(b *testing.B) {
			var times []time.Duration
			for b.Loop() {
				began := time.Now()
				call(b)
				times = append(times, time.Since(began))
			}
			slices.Sort(times)
			b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-us")
			b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-us")
		})
		b.Run(target.name+"/parallel", func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(next *testing.PB) {
				for next.Next() {
					call(b)
				}
			})
		})
	}
}

// BenchmarkKnownKey is what the edge does for a call with an API key that it knows.
func BenchmarkKnownKey(b *testing.B) {
	sidecar := newFakeSidecar(b, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken, KeyTTL: 2 * time.Second, RevocationInterval: 2 * time.Second}
	auth := newIssuer(s, http.DefaultClient)
	keys := newAPIKeys(s, auth, newRevocations(s, auth, slog.New(slog.DiscardHandler), func(*revoked) {}))
	key := newKey()
	sidecar.knows(key, validKey())
	r := request(b, http.MethodPost, "http://edge"+unaryPath, key, nil)
	for b.Loop() {
		given, err := credentialOf(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := keys.identify(b.Context(), given.secret); err != nil {
			b.Fatal(err)
		}
	}
}
