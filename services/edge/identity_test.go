package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func TestIdentityIsTheTokensWhateverTheClientSends(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
	token := goodToken(t)
	for name, headers := range map[string][]string{
		"none":              {},
		"plain":             {"X-User-Id", "root", "X-User-Email", "root@example.org", "X-Scopes", "admin"},
		"lower case":        {"x-user-id", "root", "x-scopes", "admin"},
		"mixed case":        {"X-uSeR-iD", "root", "x-USER-email", "root@example.org"},
		"underscores":       {"X_User_Id", "root", "x_user_email", "root@example.org", "X_SCOPES", "admin"},
		"mixed separators":  {"X_User-Id", "root", "X-User_Id", "root"},
		"duplicates":        {"X-User-Id", "root", "X-User-Id", "user-1"},
		"empty":             {"X-User-Id", "", "X-User-Email", ""},
		"comma list":        {"X-User-Id", "root,user-1"},
		"hop by hop":        {"Connection", "x-user-id, x-user-email, x-scopes", "X-User-Id", "root"},
		"sidecar's own":     {"Dapr-Api-Token", "guess", "dapr-caller-app-id", "auth", "Dapr_Caller_App_Id", "auth"},
		"another's address": {"X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1", "X-Forwarded-Host", "evil"},
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
			for _, gone := range []string{"Authorization", "Dapr-Caller-App-Id", "Forwarded", "X-Forwarded-Host", "Connection"} {
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

func TestAnAbsentClaimSetsNoHeader(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
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
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
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
	} {
		t.Run(name, func(t *testing.T) {
			post(t, edge, unaryPath, sign(t, 0, kid("k1"), claimsWith(change))).wants(t, 401, codeUnauthenticated)
		})
	}
	if len(seen) != 0 {
		t.Error("a refused call reached the sidecar")
	}
}

func TestLineBreaksInARawHeaderReachNobody(t *testing.T) {
	handle, seen := recorded()
	edge := startEdge(t, newFakeSidecar(t, handle).URL, nil)
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
			io.WriteString(conn, "POST "+unaryPath+" HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer "+goodToken(t)+
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
