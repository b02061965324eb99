package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkCall measures the latency of a call through the edge by kind of credential, of a call whose spans are exported,
// and of the same call sent directly to the sidecar.
func BenchmarkCall(b *testing.B) {
	sidecar := newFakeSidecar(b, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"ok":true}`)
	})
	edge := startEdge(b, sidecar.URL, nil)
	exporting := startEdge(b, sidecar.URL, exportTo(b, newSpanReceiver(b).URL))
	token, key := validToken(b), newAPIKey()
	sidecar.setVerification(key, validVerification())
	for _, target := range []struct{ name, url, credential string }{
		{"direct", sidecar.URL + "/x", token},
		{"public", edge.url + publicPath, ""},
		{"token", edge.url + unaryPath, token},
		{"key", edge.url + unaryPath, key},
		{"exporting", exporting.url + unaryPath, token},
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

// BenchmarkCachedAPIKey measures the verification of a cached API key.
func BenchmarkCachedAPIKey(b *testing.B) {
	sidecar := newFakeSidecar(b, nil)
	s := settings{SidecarURL: sidecar.URL, SidecarToken: sidecarToken, KeyTTL: 2 * time.Second, RevocationInterval: 2 * time.Second}
	auth := newAuthClient(s, http.DefaultClient, tracing{})
	keys := newAPIKeyVerifier(s, auth, newRevocationList(s, auth, slog.New(slog.DiscardHandler), func(revocationSet) {}))
	key := newAPIKey()
	sidecar.setVerification(key, validVerification())
	r := request(b, http.MethodPost, "http://edge"+unaryPath, key, nil)
	for b.Loop() {
		given, err := extractCredential(r)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := keys.verify(b.Context(), given.secret); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenStream measures heap and stack memory per open stream, of the edge and the fake sidecar's server. The
// client is a bare socket.
func BenchmarkOpenStream(b *testing.B) {
	const streams = 1000
	var sockets sync.Map
	closeAll := func() { sockets.Range(func(socket, _ any) bool { return socket.(net.Conn).Close() != nil || true }) }
	sidecar := newFakeSidecar(b, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, ": open\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	edge := startEdge(b, sidecar.URL, nil)
	defer closeAll()
	token := validToken(b)
	open := func() {
		socket, err := net.Dial("tcp", strings.TrimPrefix(edge.url, "http://"))
		if err != nil {
			b.Fatal(err)
		}
		sockets.Store(socket, nil)
		fmt.Fprintf(socket, "POST %s HTTP/1.0\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: 2\r\n\r\n{}",
			streamPath, token)
		var got [4096]byte
		for read := ""; !strings.HasSuffix(read, ": open\n\n"); {
			n, err := socket.Read(got[:])
			if err != nil {
				b.Fatalf("%v after %q", err, read)
			}
			read += string(got[:n])
		}
	}
	used := func() float64 {
		var now runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&now)
		return float64(now.HeapAlloc + now.StackInuse)
	}
	for range 10 {
		open()
	}
	before := used()
	for b.Loop() {
		for range streams {
			open()
		}
		b.ReportMetric((used()-before)/streams/1024, "KiB/stream")
	}
}
