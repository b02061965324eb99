package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// eventStream sends what a test puts into next, flushed, until the test closes it or the client leaves.
func eventStream(next <-chan string) (http.HandlerFunc, chan struct{}) {
	left := make(chan struct{}, 10)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		for {
			select {
			case event, open := <-next:
				if !open {
					return
				}
				io.WriteString(w, event)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				left <- struct{}{}
				return
			}
		}
	}, left
}

func open(t testing.TB, ctx context.Context, edge *runningEdge, method string) *http.Response {
	t.Helper()
	r := request(t, method, edge.url+streamPath+"?conversationId=c", goodToken(t), nil, "Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestAnEventReachesTheClientBeforeTheNextOneExists(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		t.Run(method, func(t *testing.T) {
			next := make(chan string)
			handle, _ := eventStream(next)
			edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
			response := open(t, t.Context(), edge, method)
			if got := response.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
				t.Errorf("Content-Type: %q", got)
			}
			lines := bufio.NewReader(response.Body)
			for _, event := range []string{"id: 1\n", "id: 2\n", ": heartbeat\n"} {
				next <- event // the sidecar sends the next one only after this one was read
				if got, err := lines.ReadString('\n'); got != event || err != nil {
					t.Fatalf("want %q, got %q %v", event, got, err)
				}
			}
			close(next)
			if rest, err := io.ReadAll(lines); len(rest) != 0 || err != nil {
				t.Errorf("want a clean end, got %q %v", rest, err)
			}
		})
	}
}

func TestAStreamAsksTheSidecarForEventsAndKeepsItsPlace(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	do(t, request(t, http.MethodGet, edge.url+streamPath+"?conversationId=a%26b&turnId=t&after=7", goodToken(t), nil,
		"Accept", "*/*", "Last-Event-Id", "12"))
	r := receive(t, seen, "the call at the sidecar")
	if r.Header.Get("Accept") != "text/event-stream, application/json" || r.Header.Get("Last-Event-Id") != "12" {
		t.Errorf("headers: %v", r.Header)
	}
	if q := r.URL.Query(); r.Method != http.MethodGet || q.Get("conversationId") != "a&b" || q.Get("after") != "7" {
		t.Errorf("%s %s", r.Method, r.URL)
	}
	if want := "/v1.0/invoke/llm/method/yocaso.llm.v1.ConversationService/StreamEvents"; r.URL.Path != want {
		t.Errorf("path: %s", r.URL.Path)
	}
}

func TestAClientThatLeavesClosesTheUpstream(t *testing.T) {
	next := make(chan string)
	handle, left := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	ctx, leave := context.WithCancel(t.Context())
	response := open(t, ctx, edge, http.MethodPost)
	next <- "id: 1\n"
	bufio.NewReader(response.Body).ReadString('\n')
	leave()
	select {
	case <-left:
	case <-time.After(time.Second):
		t.Error("the sidecar still sends a second after the client left")
	}
}

func TestAClientThatLeavesBeforeTheAnswerClosesTheUpstream(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	edge := startEdge(t, newFakeSidecar(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(left)
	}).URL, nil)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		http.DefaultClient.Do(request(t, http.MethodPost, edge.url+unaryPath, goodToken(t), strings.NewReader("{}")).WithContext(ctx))
	}()
	receive(t, arrived, "the call at the sidecar")
	leave()
	select {
	case <-left:
	case <-time.After(time.Second):
		t.Error("the sidecar still works a second after the client left")
	}
}

func TestAStreamOutlivesEveryShorterLimit(t *testing.T) {
	next := make(chan string)
	handle, _ := eventStream(next)
	config := configWith(t, `"timeout": "30s"`, `"timeout": "100ms"`)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{
		"EDGE_CONFIG": config, "EDGE_BODY_TIMEOUT_SECONDS": "0.1"})
	r := request(t, http.MethodPost, edge.url+streamPath, goodToken(t), strings.NewReader(`{"turnId":"t"}`))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	pause := time.NewTicker(150 * time.Millisecond) // longer than both limits above
	defer pause.Stop()
	for range 3 {
		<-pause.C
		next <- "id: 1\n"
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	close(next)
}

func TestAStreamEndsCleanlyAtItsOwnLimit(t *testing.T) {
	handle, left := eventStream(nil)
	config := configWith(t, `"timeout": "660s"`, `"timeout": "200ms"`)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_CONFIG": config})
	response := open(t, t.Context(), edge, http.MethodGet)
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != reconnect {
		t.Errorf("got %q %v", rest, err)
	}
	receive(t, left, "the upstream to be closed")
}

func TestACutAnswerIsNotTakenForAWholeOne(t *testing.T) {
	var size atomic.Int64
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, strings.Repeat("[", int(size.Load())))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}).URL, nil)
	for _, sent := range []int{10, 100_000} { // one that fits the edge's buffer, and one whose head is gone already
		size.Store(int64(sent))
		response, err := http.DefaultClient.Do(request(t, http.MethodPost, edge.url+unaryPath, goodToken(t), nil))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("want a visible cut, got %v", err)
		}
	}
}

func TestAStopEndsStreamsFinishesCallsAndRefusesNewOnes(t *testing.T) {
	next := make(chan string)
	streaming, left := eventStream(next)
	working, finish := make(chan struct{}), make(chan struct{})
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "StreamEvents") {
			streaming(w, r)
			return
		}
		close(working)
		<-finish
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, "{}")
	}).URL, nil)
	response := open(t, t.Context(), edge, http.MethodGet)
	answered := make(chan reply, 1)
	go func() { answered <- post(t, edge, quickPath, goodToken(t)) }()
	receive(t, working, "the call at the sidecar")

	edge.stop()
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != reconnect {
		t.Errorf("the stream: %q %v", rest, err)
	}
	receive(t, left, "the upstream of the stream to be closed")
	if _, err := net.DialTimeout("tcp", strings.TrimPrefix(edge.url, "http://"), time.Second); err == nil {
		t.Error("a new connection was accepted")
	}
	close(finish)
	if got := receive(t, answered, "the call under way"); got.status != 200 {
		t.Errorf("the call under way: %d %s", got.status, got.body)
	}
	if err := receive(t, edge.done, "the edge to stop"); err != nil {
		t.Error(err)
	}
}

func TestHealthFlipsBeforeTheDoorCloses(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, map[string]string{"EDGE_DRAIN_SECONDS": "1"})
	health := func() reply { return do(t, request(t, http.MethodGet, edge.url+"/healthz", "", nil)) }
	if got := health(); got.status != 200 {
		t.Fatalf("got %d", got.status)
	}
	edge.stop()
	for deadline := time.Now().Add(900 * time.Millisecond); ; {
		if got := health(); got.status == 503 {
			got.wants(t, 503, codeUnavailable)
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("health never flipped")
		}
	}
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	next := make(chan string, 1)
	handle, left := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	// Taken for half a minute after its expiry, which was almost that long ago.
	expired := claimsWith(map[string]any{"exp": time.Now().Add(2*time.Second - tokenLeeway).Unix()})
	r := request(t, http.MethodGet, edge.url+streamPath+"?conversationId=c", sign(t, 0, kid("k1"), expired), nil)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	next <- "id: 1\n\n"
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != "id: 1\n\n"+reconnect {
		t.Errorf("got %q %v", got, err)
	}
	receive(t, left, "the upstream to be closed")
}

func TestAStreamThatIsCutWithinAnEventIsNotContinued(t *testing.T) {
	next := make(chan string, 1)
	handle, _ := eventStream(next)
	config := configWith(t, `"timeout": "660s"`, `"timeout": "500ms"`)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_CONFIG": config})
	response := open(t, t.Context(), edge, http.MethodGet)
	next <- "id: 1\nevent: text"
	if got, err := io.ReadAll(response.Body); err != nil || string(got) != "id: 1\nevent: text" {
		t.Errorf("got %q %v", got, err)
	}
}

func TestAppsWithOpenStreamsAreSpokenTo(t *testing.T) {
	next := make(chan string)
	streaming, _ := eventStream(next)
	greeted := make(chan string, 100)
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, healthPath) {
			greeted <- r.Header.Get("dapr-api-token") + " " + r.URL.Path
			return
		}
		streaming(w, r)
	}).URL, map[string]string{"EDGE_KEEP_CONNECTED_SECONDS": "0.05"})
	if len(greeted) != 0 {
		t.Error("an app without streams was spoken to")
	}
	open(t, t.Context(), edge, http.MethodGet)
	for range 2 {
		if got := receive(t, greeted, "a word to the app"); got != sidecarToken+" /v1.0/invoke/llm/method/healthz" {
			t.Errorf("got %q", got)
		}
	}
	close(next)
}
