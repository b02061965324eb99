package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestCORSAllowsOnlyConfiguredOrigins(t *testing.T) {
	handle, _ := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	for name, row := range map[string]struct {
		environment map[string]string
		origin      string
		want        string
	}{
		"named":               {map[string]string{"EDGE_CORS_ORIGINS": "https://a.example, https://b.example/"}, "https://b.example", "https://b.example"},
		"not named":           {map[string]string{"EDGE_CORS_ORIGINS": "https://a.example"}, "https://evil.example", ""},
		"prefix of a name":    {map[string]string{"EDGE_CORS_ORIGINS": "https://a.example"}, "https://a.example.evil", ""},
		"any":                 {map[string]string{"EDGE_CORS_ORIGINS": "*"}, "https://c.example", "*"},
		"local by default":    {nil, "http://localhost:5173", "http://localhost:5173"},
		"loopback by default": {nil, "http://127.0.0.1:3000", "http://127.0.0.1:3000"},
		"foreign by default":  {nil, "https://evil.example", ""},
		"none in production":  {map[string]string{"YOCASO_ENV": "production"}, "http://localhost:5173", ""},
	} {
		t.Run(name, func(t *testing.T) {
			edge := startEdge(t, sidecar.URL, row.environment)
			preflight := do(t, request(t, http.MethodOptions, edge.url+unaryPath, "", nil, "Origin", row.origin,
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,idempotency-key,x-api-key"))
			call := post(t, edge, unaryPath, validToken(t), "Origin", row.origin)
			refused := post(t, edge, unaryPath, "", "Origin", row.origin)
			for what, got := range map[string]reply{"preflight": preflight, "call": call, "error": refused} {
				if origin := got.header.Get("Access-Control-Allow-Origin"); origin != row.want {
					t.Errorf("%s: allowed origin %q", what, origin)
				}
				if got.header.Get("Access-Control-Allow-Credentials") != "" {
					t.Errorf("%s allows credentials", what)
				}
			}
			if row.want != "" && (preflight.status != 204 || preflight.header.Get("Access-Control-Allow-Headers") == "") {
				t.Errorf("preflight: %d %v", preflight.status, preflight.header)
			}
			if row.want != "" && !strings.Contains(call.header.Get("Access-Control-Expose-Headers"), "Retry-After") {
				t.Errorf("exposed: %q", call.header.Get("Access-Control-Expose-Headers"))
			}
		})
	}
}

func TestPublicPagesNeedNoToken(t *testing.T) {
	sidecar := newFakeSidecar(t, nil)
	keys := sidecar.keys.Load()
	edge := startEdge(t, sidecar.URL, nil)
	get := func(path string) reply { return do(t, request(t, http.MethodGet, edge.url+path, "", nil)) }
	document, err := os.ReadFile("../contracts/openapi/yocaso.json")
	if err != nil {
		t.Fatal(err)
	}
	if got := get("/openapi.json"); got.status != 200 || got.body != string(document) || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("openapi: %d %v", got.status, got.header)
	}
	if got := get("/docs"); got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
		t.Errorf("docs: %d %v", got.status, got.header)
	}
	wanted, _ := json.Marshal(keys)
	if got := get("/.well-known/jwks.json"); got.status != 200 || strings.TrimSpace(got.body) != string(wanted) {
		t.Errorf("keys: %d %s", got.status, got.body)
	}
	if got := get("/healthz"); got.status != 200 {
		t.Errorf("health: %d", got.status)
	}
}

func TestHealthFailsBeforeTheListenerCloses(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, map[string]string{"EDGE_DRAIN_SECONDS": "1"})
	health := func() reply { return do(t, request(t, http.MethodGet, edge.url+"/healthz", "", nil)) }
	if got := health(); got.status != 200 {
		t.Fatalf("got %d", got.status)
	}
	edge.stop()
	for deadline := time.Now().Add(900 * time.Millisecond); ; {
		if got := health(); got.status == 503 {
			got.wantError(t, 503, codeUnavailable)
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("health did not fail")
		}
	}
}
