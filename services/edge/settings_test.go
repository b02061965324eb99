package main

import (
	"log/slog"
	"strings"
	"testing"
)

func TestAnInvalidVariableIsNamedAtStart(t *testing.T) {
	for name, value := range map[string]string{
		"APP_PORT": "eighty", "EDGE_PORT": "0", "DAPR_HTTP_PORT": "99999", "EDGE_SIDECAR_URL": "127.0.0.1:3501",
		"EDGE_JWKS_URL": "file:///keys", "EDGE_MAX_BODY_BYTES": "-1", "EDGE_BODY_TIMEOUT_SECONDS": "soon",
		"EDGE_JWKS_MIN_REFRESH_SECONDS": "-3", "EDGE_CORS_ORIGINS": "a.example", "EDGE_OPENAPI_FILE": "/nowhere.json",
		"EDGE_CONFIG": "/nowhere.json", "EDGE_RATE_ADDRESS": "many", "EDGE_RATE_USER": "-1", "EDGE_RATE_PUBLIC": "1.5",
		"EDGE_KEY_TTL_SECONDS": "3", "EDGE_REVOCATION_SECONDS": "0", "EDGE_TRUSTED_PROXIES": "10.0.0.1",
	} {
		t.Run(name, func(t *testing.T) {
			err := run(t.Context(), func(variable string) string {
				if variable == name {
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

func TestAPortInUseIsReported(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, nil)
	_, port, _ := strings.Cut(strings.TrimPrefix(edge.url, "http://"), ":")
	err := run(t.Context(), func(name string) string { return map[string]string{"EDGE_PORT": port}[name] }, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "EDGE_PORT") || !strings.Contains(err.Error(), port) {
		t.Errorf("got %v", err)
	}
}

func TestRateLimitsAreOffInALocalEnvironment(t *testing.T) {
	for environment, want := range map[string][3]int{"": {0, 0, 0}, "local": {0, 0, 0}, "production": {600, 1200, 60}} {
		s, err := readSettings(func(name string) string { return map[string]string{"YOCASO_ENV": environment}[name] })
		if err != nil || [3]int{s.RateAddress, s.RateUser, s.RatePublic} != want {
			t.Errorf("%q: %v %v", environment, s, err)
		}
	}
}
