package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestABrowserOfANamedOriginMayCallAndNoOther(t *testing.T) {
	handle, _ := recorded()
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
			call := post(t, edge, unaryPath, goodToken(t), "Origin", row.origin)
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
	if got := get("/docs"); got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") ||
		strings.Contains(got.body, "https://") || got.header.Get("Content-Security-Policy") == "" {
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

func TestTheLogSaysWhatHappenedAndHoldsNoSecret(t *testing.T) {
	handle, _ := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	token := goodToken(t)
	post(t, edge, unaryPath, token, "X-Request-Id", "mine", "Idempotency-Key", "canary-key", "Cookie", "session=canary-cookie")
	do(t, request(t, http.MethodGet, edge.url+streamPath+"?conversationId=canary-query", token, nil))
	post(t, edge, "/nowhere/canary-path", token+"x")
	edge.stop()
	receive(t, edge.done, "the edge to stop")
	text := edge.log.String()
	for _, secret := range []string{"canary", token, strings.Split(token, ".")[2], "user-1", "one@example.org"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log shows %q", secret)
		}
	}
	var first struct {
		Msg, Method, Route, RequestID, TraceID, User string
		Status                                       int
		DurationMs                                   float64
	}
	if err := json.Unmarshal([]byte(strings.SplitN(text, "\n", 2)[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.Msg != "request" || first.Method != "POST" || first.Route != unaryPath || first.RequestID != "mine" ||
		first.Status != 200 || first.DurationMs <= 0 || len(first.TraceID) != 32 || first.User != userHash("user-1") {
		t.Errorf("got %+v", first)
	}
}

func TestAFaultAtStartNamesItsVariable(t *testing.T) {
	for name, value := range map[string]string{
		"APP_PORT": "eighty", "EDGE_PORT": "0", "DAPR_HTTP_PORT": "99999", "EDGE_SIDECAR_URL": "127.0.0.1:3501",
		"EDGE_JWKS_URL": "file:///keys", "EDGE_MAX_BODY_BYTES": "-1", "EDGE_BODY_TIMEOUT_SECONDS": "soon",
		"EDGE_JWKS_MIN_REFRESH_SECONDS": "-3", "EDGE_CORS_ORIGINS": "a.example", "EDGE_OPENAPI_FILE": "/nowhere.json",
		"EDGE_CONFIG": "/nowhere.json", "EDGE_RATE_ADDRESS": "many", "EDGE_RATE_USER": "-1", "EDGE_RATE_PUBLIC": "1.5",
		"EDGE_KEY_TTL_SECONDS": "3", "EDGE_REVOCATION_SECONDS": "0", "EDGE_TRUSTED_PROXIES": "10.0.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), func(asked string) string {
				if asked == name {
					return value
				}
				return ""
			}, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAPortInUseIsSaid(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(edge.url, "http://"), ":")
	err := run(t.Context(), func(name string) string { return map[string]string{"EDGE_PORT": port}[name] }, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "EDGE_PORT") || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v", err)
	}
}
