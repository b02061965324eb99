package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnAppsResponseIsForwardedUnchanged(t *testing.T) {
	for name, want := range map[string]struct {
		status int
		body   string
	}{
		"success":    {200, `{"conversationId":"c"}`},
		"no content": {204, ""},
		"RpcError":   {409, `{"error":{"code":"TURN_IN_PROGRESS","message":"m","isTerminal":false,"details":{}}}`},
		"bug":        {500, `{"error":{"code":"INTERNAL","message":"m","isTerminal":false,"details":{}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, _ *http.Request) {
				for header, value := range map[string]string{
					"Content-Type": "application/json", "Retry-After": "3", "Idempotent-Replayed": "true",
					"Traceparent": "00-1", "Cache-Control": "no-store",
					"Server": "uvicorn", "Dapr-Secret": "x", "Dapr-Status": "y", "X-Request-Id": "another",
					"Connection": "X-Hop", "X-Hop": "1", "Access-Control-Allow-Origin": "*", "X-User-Id": "u",
				} {
					w.Header().Set(header, value)
				}
				w.WriteHeader(want.status)
				io.WriteString(w, want.body)
			}).URL, nil)
			got := post(t, edge, unaryPath, validToken(t), "X-Request-Id", "mine")
			if got.status != want.status || got.body != want.body {
				t.Errorf("got %d %q", got.status, got.body)
			}
			for header, value := range map[string]string{"Retry-After": "3", "Idempotent-Replayed": "true",
				"Traceparent": "00-1", "Cache-Control": "no-store", "Content-Type": "application/json",
				"X-Request-Id": "mine", "X-Content-Type-Options": "nosniff"} {
				if got := got.header.Values(header); len(got) != 1 || got[0] != value {
					t.Errorf("%s: want %q, got %q", header, value, got)
				}
			}
			for _, header := range []string{"Server", "Dapr-Secret", "Dapr-Status", "X-Hop", "Access-Control-Allow-Origin",
				"X-User-Id", "X-Krakend", "X-Krakend-Completed"} {
				if got.header.Get(header) != "" {
					t.Errorf("%s was forwarded", header)
				}
			}
		})
	}
}

func TestSidecarErrorsBecomeRPCErrors(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		body   string
		want   int
		code   string
	}{
		"no such app":   {500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"failed to invoke, id: llm, err: couldn't find service: canary"}`, 503, codeUnavailable},
		"app refused":   {500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"dial tcp 127.0.0.1:7102: canary"}`, 503, codeUnavailable},
		"denied":        {403, `{"errorCode":"ERR_DIRECT_INVOKE","message":"access control policy canary"}`, 503, codeUnavailable},
		"bad api token": {401, `invalid api token canary`, 503, codeUnavailable},
		"deadline":      {500, `{"errorCode":"ERR_DIRECT_INVOKE","message":"rpc error: code = DeadlineExceeded canary"}`, 504, codeDeadlineExceeded},
		"too large":     {413, `canary`, 413, codePayloadTooLarge},
		"too long":      {431, `canary`, 413, codePayloadTooLarge},
		"too many":      {429, `canary`, 429, codeRateLimited},
		"not found":     {404, `{"detail":"canary"}`, 503, codeUnavailable},
		"HTML":          {502, `<html>canary</html>`, 503, codeUnavailable},
		"no body":       {500, ``, 503, codeUnavailable},
		"a redirect":    {302, `canary`, 503, codeUnavailable},
		"a huge error":  {500, strings.Repeat("canary", 50_000), 503, codeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					return // a followed redirect would succeed
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(row.status)
				io.WriteString(w, row.body)
			}).URL, nil)
			for _, path := range []string{unaryPath, streamPath} {
				got := post(t, edge, path, validToken(t))
				got.wantError(t, row.want, row.code)
				if strings.Contains(got.body, "canary") || got.header.Get("Location") != "" {
					t.Errorf("leaked to the client: %s", got.body)
				}
				if got.header.Get("Content-Type") != "application/json" || got.header.Get("X-Request-Id") == "" {
					t.Errorf("headers: %v", got.header)
				}
			}
		})
	}
}

func TestAnUnreachableSidecarIsUnavailable(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + listener.Addr().String()
	listener.Close()
	edge := startEdge(t, gone, map[string]string{"EDGE_JWKS_URL": jwksServer(t, sidecar)})
	got := post(t, edge, unaryPath, validToken(t))
	got.wantError(t, 503, codeUnavailable)
	if got.header.Get("Retry-After") != "1" || strings.Contains(got.body, "127.0.0.1") {
		t.Errorf("%v %s", got.header, got.body)
	}
}

func TestAnAbortedUpstreamConnectionIsUnavailable(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }).URL, nil)
	post(t, edge, unaryPath, validToken(t)).wantError(t, 503, codeUnavailable)
}

func TestA204OfAStreamIsForwarded(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}).URL, nil)
	response, err := http.DefaultClient.Do(request(t, http.MethodPost, edge.url+streamPath, validToken(t), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != 204 || len(body) != 0 {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
}

// daprd 1.18 sends an empty 200 when an app dies before it answers.
func TestAResponseWithoutTheExpectedContentTypeIsUnavailable(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
	}).URL, nil)
	post(t, edge, unaryPath, validToken(t)).wantError(t, 503, codeUnavailable)
	response, err := http.DefaultClient.Do(request(t, http.MethodPost, edge.url+streamPath, validToken(t), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 503 || response.Header.Get("Retry-After") != "1" {
		t.Errorf("the stream: %d %v", response.StatusCode, response.Header)
	}
}

func TestAServiceThatDoesNotRespondExceedsTheDeadline(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}).URL, map[string]string{"EDGE_CONFIG": configWith(t, `"timeout": "30s"`, `"timeout": "100ms"`)})
	post(t, edge, quickPath, validToken(t)).wantError(t, 504, codeDeadlineExceeded)
}

// jwksServer serves the fake sidecar's JWKS without its token.
func jwksServer(t testing.TB, sidecar *fakeSidecar) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("dapr-api-token", sidecarToken)
		r.URL.Path = invokeJWKS
		sidecar.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestUnknownPathsAndWrongMethodsAreRPCErrors(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	token := validToken(t)
	for _, path := range []string{"/", "/api/v1/llm/conversation/nothing", unaryPath + "/", "/API/v1/llm/conversation/send-message",
		"//api/v1/llm/conversation/send-message", "/api/v1/llm/../llm/conversation/send-message", "/api/v1/auth/token/issue-local-token",
		"/v1.0/invoke/llm/method/x", "/__health", "/__debug/x", "/%2e%2e/v1.0/metadata"} {
		post(t, edge, path, token).wantError(t, 404, codeNotFound)
	}
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions} {
		got := do(t, request(t, method, edge.url+unaryPath, token, nil))
		got.wantError(t, 405, codeUnimplemented)
		if got.header.Get("Allow") != "POST" {
			t.Errorf("%s: Allow is %q", method, got.header.Get("Allow"))
		}
	}
	if len(seen) != 0 {
		t.Error("a call reached the sidecar")
	}
}
