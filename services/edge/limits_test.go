package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestBodiesUpToTheLimitPassAndLargerOnesDoNot(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_MAX_BODY_BYTES": "70000"})
	token := goodToken(t)
	chunked := func(size int) io.Reader { return io.MultiReader(strings.NewReader(strings.Repeat("a", size))) }
	declared := func(size int) io.Reader { return strings.NewReader(strings.Repeat("a", size)) }
	for _, kind := range []struct {
		name string
		body func(int) io.Reader
	}{{"declared", declared}, {"chunked", chunked}} {
		name, body := kind.name, kind.body
		t.Run(name, func(t *testing.T) {
			if got := do(t, request(t, http.MethodPost, edge.url+unaryPath, token, body(70_000))); got.status != 200 {
				t.Errorf("at the limit: got %d %s", got.status, got.body)
			}
			arrived, _ := io.ReadAll(receive(t, seen, "the call at the sidecar").Body)
			if len(arrived) != 70_000 {
				t.Errorf("%d bytes arrived", len(arrived))
			}
			do(t, request(t, http.MethodPost, edge.url+unaryPath, token, body(70_001))).wants(t, 413, codePayloadTooLarge)
			do(t, request(t, http.MethodPost, edge.url+unaryPath, token, body(5_000_000))).wants(t, 413, codePayloadTooLarge)
			if name == "declared" && len(seen) != 0 {
				t.Error("a body that was declared too large was begun to be sent")
			}
		})
	}
}

func TestHeadersLargerThanTheLimitAreRefused(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	if got := post(t, edge, unaryPath, strings.Repeat("a", 100_000)); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", got.status)
	}
	long := sign(t, 0, kid("k1"), claimsWith(map[string]any{"padding": strings.Repeat("a", 20_000)}))
	if got := post(t, edge, unaryPath, long); got.status != 200 {
		t.Errorf("a token of 27 KB: got %d", got.status)
	}
	receive(t, seen, "the call with the long token")
}

func TestABodyThatDripsIsGivenUp(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_BODY_TIMEOUT_SECONDS": "0.2"})
	conn, err := net.Dial("tcp", strings.TrimPrefix(edge.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "POST "+unaryPath+" HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+goodToken(t)+
		"\r\nContent-Length: 100\r\n\r\n{")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	reply{response.StatusCode, response.Header, string(body)}.wants(t, 400, codeInvalidArgument)
}

func TestAConnectionServesMoreCallsThanItsFirstBodysTimeAllows(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, map[string]string{"EDGE_BODY_TIMEOUT_SECONDS": "0.1"})
	pause := time.NewTicker(150 * time.Millisecond)
	defer pause.Stop()
	for range 3 {
		if got := post(t, edge, unaryPath, goodToken(t)); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		<-pause.C
	}
}

func TestEveryCallHasARequestIDAndATrace(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	fresh := regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-01$`)
	for name, row := range map[string]struct {
		sent      []string
		id, trace string
		state     string
	}{
		"kept":       {[]string{"X-Request-Id", "abc-1", "Traceparent", trace, "Tracestate", "a=b"}, "abc-1", trace, "a=b"},
		"made":       {[]string{"Tracestate", "a=b"}, "", "", ""},
		"malformed":  {[]string{"X-Request-Id", "a b", "Traceparent", "00-xyz-1-01", "Tracestate", "a=b"}, "", "", ""},
		"too long":   {[]string{"X-Request-Id", strings.Repeat("a", 129)}, "", "", ""},
		"all zero":   {[]string{"Traceparent", "00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"}, "", "", ""},
		"duplicates": {[]string{"X-Request-Id", "a", "X-Request-Id", "b", "Traceparent", trace, "Traceparent", trace}, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := post(t, edge, unaryPath, goodToken(t), row.sent...)
			r := receive(t, seen, "the call at the sidecar")
			ids, traces := r.Header.Values("X-Request-Id"), r.Header.Values("Traceparent")
			if len(ids) != 1 || !requestIDPattern.MatchString(ids[0]) || got.header.Get("X-Request-Id") != ids[0] {
				t.Errorf("request ids: %q, answered %q", ids, got.header.Get("X-Request-Id"))
			}
			if row.id != "" && ids[0] != row.id {
				t.Errorf("request id: %q", ids)
			}
			if len(traces) != 1 || (row.trace != "" && traces[0] != row.trace) || !fresh.MatchString(traces[0]) {
				t.Errorf("traces: %q", traces)
			}
			if r.Header.Get("Tracestate") != row.state {
				t.Errorf("tracestate: %q", r.Header.Get("Tracestate"))
			}
		})
	}
}
