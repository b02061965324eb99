package main

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// BenchmarkCall gives the time of a call through the edge beside the same call straight to the sidecar.
func BenchmarkCall(b *testing.B) {
	sidecar := newFakeSidecar(b, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	})
	edge := startEdge(b, sidecar.URL, nil)
	token := goodToken(b)
	for _, target := range []struct{ name, url string }{{"direct", sidecar.URL + "/x"}, {"edge", edge.url + unaryPath}} {
		call := func(b *testing.B) {
			got := do(b, request(b, http.MethodPost, target.url, token, strings.NewReader(`{"text":"hello"}`)))
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
