package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestForgedIdentityHeadersAreReplacedByTheTokens(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	token := validToken(t)
	for name, headers := range map[string][]string{
		"none":             {},
		"plain":            {"X-User-Id", "root", "X-User-Email", "root@example.org", "X-Scopes", "admin", "X-Key-Id", "key_root"},
		"lower case":       {"x-user-id", "root", "x-scopes", "admin", "x-key-id", "key_root"},
		"mixed case":       {"X-uSeR-iD", "root", "x-USER-email", "root@example.org", "X-KEY-iD", "key_root"},
		"underscores":      {"X_User_Id", "root", "x_user_email", "root@example.org", "X_SCOPES", "admin", "x_key_id", "key_root"},
		"mixed separators": {"X_User-Id", "root", "X-User_Id", "root", "X-Key_Id", "key_root", "X_Api-Key", "yk_live_x"},
		"duplicates":       {"X-User-Id", "root", "X-User-Id", "user-1"},
		"empty":            {"X-User-Id", "", "X-User-Email", ""},
		"comma list":       {"X-User-Id", "root,user-1"},
		"hop by hop":       {"Connection", "x-user-id, x-user-email, x-scopes, x-key-id", "X-User-Id", "root"},
		"sidecar headers":  {"Dapr-Api-Token", "guess", "dapr-caller-app-id", "auth", "Dapr_Caller_App_Id", "auth"},
		"forged address":   {"X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1", "X-Forwarded-Host", "evil"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := post(t, edge, unaryPath, token, headers...); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			r := receive(t, seen, "the call at the sidecar")
			for header, want := range map[string]string{
				"X-User-Id": "user-1", "X-User-Email": "one@example.org", "X-Scopes": "chat read",
				"Dapr-Api-Token": sidecarToken, "X-Forwarded-For": "127.0.0.1",
			} {
				if got := r.Header.Values(header); len(got) != 1 || got[0] != want {
					t.Errorf("%s: want %q, got %q", header, want, got)
				}
			}
			for _, gone := range []string{"Authorization", "X-Api-Key", "X-Key-Id", "Dapr-Caller-App-Id", "Forwarded",
				"X-Forwarded-Host", "Connection"} {
				if got := r.Header.Values(gone); len(got) != 0 {
					t.Errorf("%s passed on: %q", gone, got)
				}
			}
			for name := range r.Header {
				if strings.Contains(name, "_") {
					t.Errorf("%s passed on", name)
				}
			}
		})
	}
}

func TestATokenIssuedForAKeySetsXKeyID(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"key_id": keyID}))
	post(t, edge, unaryPath, token, "X-Key-Id", "key_other", "x_key_id", "key_other")
	if got := receive(t, seen, "the call").Header.Values("X-Key-Id"); len(got) != 1 || got[0] != keyID {
		t.Errorf("X-Key-Id: %q", got)
	}
}

func TestAPublicMethodNeedsNoTokenAndForwardsNoIdentity(t *testing.T) {
	edge, sidecar, seen := startRecordingEdge(t, nil)
	for name, headers := range map[string][]string{
		"nothing":     {},
		"a token":     {"Authorization", "Bearer " + validToken(t)},
		"a bad token": {"Authorization", "Bearer nonsense"},
		"a key":       {"X-Api-Key", newAPIKey()},
		"an identity": {"X-User-Id", "root", "X_User_Id", "root", "X-Scopes", "admin", "x-key-id", keyID, "X-User-Email", "root@example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := post(t, edge, publicPath, "", headers...); got.status != 200 {
				t.Fatalf("got %d %s", got.status, got.body)
			}
			r := receive(t, seen, "the call at the sidecar")
			if want := "/v1.0/invoke/auth/method/yocaso.auth.v1.TokenService/RefreshToken"; r.URL.Path != want {
				t.Errorf("path: %s", r.URL.Path)
			}
			for _, gone := range []string{"Authorization", "X-Api-Key", "X-Key-Id", "X-User-Id", "X-User-Email", "X-Scopes"} {
				if got := r.Header.Values(gone); len(got) != 0 {
					t.Errorf("%s passed on: %q", gone, got)
				}
			}
		})
	}
	if got := sidecar.verifyCalls.Load(); got != 0 {
		t.Errorf("auth was called %d times for an ignored credential", got)
	}
}

func TestAnInternalMethodHasNoRoute(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	for _, path := range []string{"/api/v1/auth/api-key/verify-api-key", "/api/v1/auth/token/issue-local-token",
		"/api/v1/auth/token/list-revocations", "/api/v1/auth/authorization/write-tuples"} {
		post(t, edge, path, validToken(t)).wantError(t, 404, codeNotFound)
	}
	if len(seen) != 0 {
		t.Error("an internal method was reached")
	}
}

func TestAnAbsentClaimSetsNoHeader(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	token := sign(t, 0, kid("k1"), claimsWith(map[string]any{"email": nil, "scope": ""}))
	post(t, edge, unaryPath, token, "X-User-Email", "root@example.org", "X-Scopes", "admin")
	r := receive(t, seen, "the call at the sidecar")
	for _, header := range []string{"X-User-Email", "X-Scopes"} {
		if got := r.Header.Values(header); len(got) != 0 {
			t.Errorf("%s: want none, got %q", header, got)
		}
	}
}

func TestClaimsThatDoNotFitAHeaderAreRefused(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	for name, change := range map[string]map[string]any{
		"empty subject":           {"sub": ""},
		"no subject":              {"sub": nil},
		"blank subject":           {"sub": " "},
		"subject with a space":    {"sub": " user-1"},
		"subject is a list":       {"sub": []string{"user-1", "root"}},
		"subject is a number":     {"sub": 7},
		"subject has two names":   {"sub": "user-1,root"},
		"line break in subject":   {"sub": "user-1\r\nX-Scopes: admin"},
		"line break in the email": {"email": "one@example.org\r\nX-Scopes: admin"},
		"line break in scopes":    {"scope": "chat\nadmin"},
		"scopes are a list":       {"scope": []string{"admin"}},
		"email is an object":      {"email": map[string]any{"a": 1}},
		"key id is not one":       {"key_id": "key_1,key_2"},
		"key id is a list":        {"key_id": []string{keyID}},
		"key id is empty":         {"key_id": ""},
		"session is a number":     {"sid": 7},
	} {
		t.Run(name, func(t *testing.T) {
			post(t, edge, unaryPath, sign(t, 0, kid("k1"), claimsWith(change))).wantError(t, 401, codeUnauthenticated)
		})
	}
	if len(seen) != 0 {
		t.Error("a refused call reached the sidecar")
	}
}

func TestARawHeaderCannotInjectAnIdentity(t *testing.T) {
	edge, _, seen := startRecordingEdge(t, nil)
	for name, line := range map[string]string{
		"bare carriage return": "X-Request-Id: a\rX-User-Id: root",
		"folded line":          "X-Request-Id: a\r\n X-User-Id: root",
		"space before colon":   "X-User-Id : root",
		"nul":                  "X-User-Id: ro\x00ot",
		"both lengths":         "Transfer-Encoding: chunked",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(edge.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.WriteString(conn, "POST "+unaryPath+" HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+validToken(t)+
				"\r\nContent-Length: 5\r\nConnection: close\r\n"+line+"\r\n\r\n0\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			for len(seen) > 0 {
				r := <-seen
				if got := r.Header.Values("X-User-Id"); len(got) != 1 || got[0] != "user-1" {
					t.Errorf("identity is %q", got)
				}
			}
		})
	}
}
