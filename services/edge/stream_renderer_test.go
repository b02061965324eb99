package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// eventStream flushes each event from next until the channel closes or the client disconnects, which it reports.
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
	r := request(t, method, edge.url+streamPath+"?conversationId=c", validToken(t), nil, "Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(r.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func TestEachEventIsFlushedBeforeTheNext(t *testing.T) {
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
				next <- event // the next event is sent only after this one was read
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

func TestAStreamForwardsItsQueryAndLastEventID(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	do(t, request(t, http.MethodGet, edge.url+streamPath+"?conversationId=a%26b&turnId=t&after=7", validToken(t), nil,
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

func TestADisconnectedClientClosesTheUpstream(t *testing.T) {
	next := make(chan string)
	handle, left := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	ctx, disconnect := context.WithCancel(t.Context())
	response := open(t, ctx, edge, http.MethodPost)
	next <- "id: 1\n"
	bufio.NewReader(response.Body).ReadString('\n')
	disconnect()
	select {
	case <-left:
	case <-time.After(time.Second):
		t.Error("the upstream is open a second after the client disconnected")
	}
}

func TestAClientThatDisconnectsBeforeTheResponseClosesTheUpstream(t *testing.T) {
	arrived, left := make(chan struct{}), make(chan struct{})
	edge := startEdge(t, newFakeSidecar(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(arrived)
		<-r.Context().Done()
		close(left)
	}).URL, nil)
	ctx, disconnect := context.WithCancel(t.Context())
	go func() {
		http.DefaultClient.Do(request(t, http.MethodPost, edge.url+unaryPath, validToken(t), strings.NewReader("{}")).WithContext(ctx))
	}()
	receive(t, arrived, "the call at the sidecar")
	disconnect()
	select {
	case <-left:
	case <-time.After(time.Second):
		t.Error("the upstream is open a second after the client disconnected")
	}
}

func TestCallTimeoutsDoNotApplyToStreams(t *testing.T) {
	next := make(chan string)
	handle, _ := eventStream(next)
	config := configWith(t, `"timeout": "30s"`, `"timeout": "100ms"`)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{
		"EDGE_CONFIG": config, "EDGE_BODY_TIMEOUT_SECONDS": "0.1"})
	r := request(t, http.MethodPost, edge.url+streamPath, validToken(t), strings.NewReader(`{"turnId":"t"}`))
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewReader(response.Body)
	pause := time.NewTicker(150 * time.Millisecond) // longer than both timeouts
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

func TestAStreamEndsWithReconnectAtItsTimeout(t *testing.T) {
	handle, left := eventStream(nil)
	config := configWith(t, `"timeout": "660s"`, `"timeout": "200ms"`)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_CONFIG": config})
	response := open(t, t.Context(), edge, http.MethodGet)
	if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != reconnectEvent {
		t.Errorf("got %q %v", rest, err)
	}
	receive(t, left, "the upstream to be closed")
}

func TestATruncatedResponseAbortsTheConnection(t *testing.T) {
	var size atomic.Int64
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, strings.Repeat("[", int(size.Load())))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}).URL, nil)
	for _, sent := range []int{10, 100_000} { // one body that fits net/http's write buffer, and one that does not
		size.Store(int64(sent))
		response, err := http.DefaultClient.Do(request(t, http.MethodPost, edge.url+unaryPath, validToken(t), nil))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			response.Body.Close()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("want an aborted connection, got %v", err)
		}
	}
}

func TestAStreamCutInsideAnEventGetsNoReconnectEvent(t *testing.T) {
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
