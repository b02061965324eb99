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

// BenchmarkOpenStream gives the memory of a stream that stands open: heap and stacks of the edge and of a server as the
// sidecar has it; the client is a bare socket.
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
	token := goodToken(b)
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
