package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBodiesOverTheLimitAreRefused(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, map[string]string{"EDGE_MAX_BODY_BYTES": "70000"})
	token := validToken(t)
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
			do(t, request(t, http.MethodPost, edge.url+unaryPath, token, body(70_001))).wantError(t, 413, codePayloadTooLarge)
			do(t, request(t, http.MethodPost, edge.url+unaryPath, token, body(5_000_000))).wantError(t, 413, codePayloadTooLarge)
			if name == "declared" && len(seen) != 0 {
				t.Error("an oversized body was forwarded in part")
			}
		})
	}
}

func TestHeadersOverTheLimitAreRefused(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	if got := post(t, edge, unaryPath, strings.Repeat("a", 100_000)); got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", got.status)
	}
	long := sign(t, 0, kid("k1"), claimsWith(map[string]any{"padding": strings.Repeat("a", 20_000)}))
	if got := post(t, edge, unaryPath, long); got.status != 200 {
		t.Errorf("a token of 27 KB: got %d", got.status)
	}
	receive(t, seen, "the call with the long token")
}

func TestASlowBodyTimesOut(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, map[string]string{"EDGE_BODY_TIMEOUT_SECONDS": "0.2"})
	conn, err := net.Dial("tcp", strings.TrimPrefix(edge.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(conn, "POST "+unaryPath+" HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+validToken(t)+
		"\r\nContent-Length: 100\r\n\r\n{")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	reply{response.StatusCode, response.Header, string(body)}.wantError(t, 400, codeInvalidArgument)
}

func TestTheBodyTimeoutIsPerRequestNotPerConnection(t *testing.T) {
	edge, _, _ := startRecordingEdge(t, map[string]string{"EDGE_BODY_TIMEOUT_SECONDS": "0.1"})
	pause := time.NewTicker(150 * time.Millisecond)
	defer pause.Stop()
	for range 3 {
		if got := post(t, edge, unaryPath, validToken(t)); got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		<-pause.C
	}
}
