package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	krakendjose "github.com/krakend/krakend-jose/v2"
	"github.com/luraproject/lura/v2/proxy"
)

// The corpora are in testdata/fuzz; `go test` runs them, `poe fuzz` looks for more.

var identityHeaders = []string{"x-user-id", "x-user-email", "x-scopes", "x-key-id"}

// FuzzUntrustedHeaders: no header of a client can be read as an identity, an address or a sidecar's, and others pass.
func FuzzUntrustedHeaders(f *testing.F) {
	f.Fuzz(func(t *testing.T, lines string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: edge\r\n" + lines + "\r\n\r\n")))
		if err != nil {
			return
		}
		sent := r.Header.Clone()
		stripUntrustedHeaders(r.Header)
		for name, values := range sent {
			read := strings.ToLower(strings.ReplaceAll(name, "_", "-")) // as CGI and WSGI read it
			forged := slices.Contains(identityHeaders, read) || read == "forwarded" ||
				strings.HasPrefix(read, "dapr-") || strings.HasPrefix(read, "x-forwarded-")
			got, kept := r.Header[name]
			if forged && kept {
				t.Errorf("%q was kept", name)
			}
			if !forged && !strings.Contains(name, "_") && !slices.Equal(got, values) {
				t.Errorf("%q was changed from %q to %q", name, values, got)
			}
		}
		if id := ensureRequestID(r.Header); !requestIDPattern.MatchString(id) || r.Header.Get("X-Request-Id") != id {
			t.Errorf("request id %q", id)
		}
		if trace := clientTrace(r.Header); trace == "" && (r.Header.Get("Traceparent") != "" || r.Header.Get("Tracestate") != "") {
			t.Errorf("an invalid trace was kept: %v", r.Header)
		}
	})
}

// FuzzIdentityHeaders: claims become headers that the next server reads as the same text, or the token is refused.
func FuzzIdentityHeaders(f *testing.F) {
	propagated := [][]string{{"sub", "x-user-id"}, {"email", "x-user-email"}, {"scope", "x-scopes"}, {"key_id", "x-key-id"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var claims map[string]any
		if json.Unmarshal(raw, &claims) != nil {
			return
		}
		header := http.Header{}
		if setIdentityHeaders(header, claims, propagated) != nil {
			return
		}
		var wire bytes.Buffer
		wire.WriteString("GET / HTTP/1.1\r\nHost: app\r\n")
		header.Write(&wire)
		wire.WriteString("\r\n")
		read, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil || len(read.Header) != len(header) {
			t.Fatalf("%v was sent as %v: %v", claims, header, err)
		}
		for _, pair := range propagated {
			claim, _ := claims[pair[0]].(string)
			if got := read.Header.Get(pair[1]); got != claim {
				t.Errorf("%s: the app reads %q, the claim is %q", pair[1], got, claim)
			}
		}
		if user := read.Header.Get("X-User-Id"); !subjectPattern.MatchString(user) {
			t.Errorf("user %q", user)
		}
	})
}

// FuzzCredential: at most one credential of the headers is taken, never one beside a second or in the query.
func FuzzCredential(f *testing.F) {
	inQuery := regexp.MustCompile(`(?i)(?:^|[&;])(?:(?:x[-_]?)?api[-_]?key|access[-_]?token|authorization)=|(?:^|[&;])[^=&;]*=\+*yk_(?:live|test)_[0-9a-z]{8}`)
	f.Fuzz(func(t *testing.T, authorization, key, query string) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.URL.RawQuery = query
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		if key != "" {
			r.Header.Set("X-Api-Key", key)
		}
		given, err := extractCredential(r)
		if err != nil {
			return
		}
		if authorization != "" && key != "" || inQuery.MatchString(query) {
			t.Errorf("accepted %q beside %q and ?%s", authorization, key, query)
		}
		if given.secret == "" || given.secret != key && !strings.HasSuffix(authorization, " "+given.secret) {
			t.Errorf("took %q from %q and %q", given.secret, authorization, key)
		}
		if isKey := keyPattern.MatchString(given.secret); given.isKey != isKey || (key != "") && !isKey {
			t.Errorf("%q is taken for a key: %v", given.secret, given.isKey)
		}
	})
}

// FuzzToken: a token without a signature of the issuer is refused, and a changed token only says what was signed.
func FuzzToken(f *testing.F) {
	cache := &jwksCache{minRefresh: time.Hour, maxAge: time.Hour, lastAttempt: time.Now()}
	keys, _ := usableKeys(*newFakeSidecar(f, nil).keys.Load())
	cache.keys.Store(&keySet{byID: keys, fetchedAt: time.Now()})
	signature := &krakendjose.SignatureConfig{Alg: "RS256", Issuer: "yocaso", Audience: []string{"yocaso"}, Leeway: "30s"}
	validator, err := newTokenVerifier(cache).validator(signature, nil)
	if err != nil {
		f.Fatal(err)
	}
	valid := validToken(f)
	signed, err := verifyToken(valid, validator)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, given string, at uint16, replacement byte) {
		if p, err := verifyToken(given, validator); err == nil {
			t.Errorf("accepted %q as %v", given, p)
		}
		changed := []byte(valid)
		changed[int(at)%len(changed)] = replacement
		if p, err := verifyToken(string(changed), validator); err == nil && !reflect.DeepEqual(p, signed) {
			t.Errorf("accepted %q as %v", changed, p)
		}
	})
}

// pieces returns a body in pieces, and then an end or a failure.
type pieces struct {
	body  []byte
	sizes []byte
	end   error
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.body) == 0 {
		return 0, p.end
	}
	size := len(p.body)
	if len(p.sizes) > 0 {
		size, p.sizes = min(size, int(p.sizes[0])%7+1), p.sizes[1:]
	}
	n := copy(to, p.body[:size])
	p.body = p.body[n:]
	return n, nil
}

// FuzzRenderedBody: a client gets the bytes of an app in order, and `reconnect` only after a whole event of a cut stream.
func FuzzRenderedBody(f *testing.F) {
	gin.SetMode(gin.TestMode)
	f.Fuzz(func(t *testing.T, body, sizes []byte, isCut, isStream bool) {
		recorder := httptest.NewRecorder()
		c, _ := gin.CreateTestContext(recorder)
		state := &call{stream: t.Context()}
		c.Request = httptest.NewRequest(http.MethodGet, "/", nil).WithContext(context.WithValue(t.Context(), callKey{}, state))
		content, end := "application/json", io.EOF
		if isStream {
			content = "text/event-stream"
		}
		if isCut {
			end = io.ErrUnexpectedEOF
		}
		renderResponse(c, &proxy.Response{Io: &pieces{body, sizes, end},
			Metadata: proxy.Metadata{StatusCode: 200, Headers: map[string][]string{"Content-Type": {content}}}})
		want := string(body)
		if isCut && isStream && (want == "" || strings.HasSuffix(want, "\n\n")) {
			want += reconnectEvent
		}
		if got := recorder.Body.String(); got != want || state.truncated != (isCut && !isStream) {
			t.Errorf("got %q, truncated %v, want %q", got, state.truncated, want)
		}
	})
}

// FuzzErrorBody: whatever an app or a sidecar answers, the client gets an RpcError that it can parse.
func FuzzErrorBody(f *testing.F) {
	e := &edge{errors: catalogueOf(f)}
	f.Fuzz(func(t *testing.T, status uint16, body []byte) {
		response := &proxy.Response{Io: bytes.NewReader(body), Metadata: proxy.Metadata{StatusCode: 300 + int(status)%300}}
		e.ensureRPCError(response)
		got, _ := io.ReadAll(response.Io)
		var outer, inner map[string]any
		code := ""
		if json.Unmarshal(got, &outer) == nil {
			inner, _ = outer["error"].(map[string]any)
			code, _ = inner["code"].(string)
		}
		if code == "" || !utf8.Valid(got) {
			t.Fatalf("not an RpcError: %q", got)
		}
		if !bytes.Equal(got, body) && e.errors.Errors[code].Status != response.Metadata.StatusCode {
			t.Errorf("%q has the status %d", got, response.Metadata.StatusCode)
		}
	})
}

func catalogueOf(t testing.TB) errorCatalogue {
	t.Helper()
	s, err := readSettings(func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := readConfig(s)
	if err != nil {
		t.Fatal(err)
	}
	catalogue, err := decodeExtra[errorCatalogue](cfg.ExtraConfig)
	if err != nil {
		t.Fatal(err)
	}
	return catalogue
}

// FuzzConfig: an edge starts with a configuration, or names EDGE_CONFIG.
func FuzzConfig(f *testing.F) {
	file := filepath.Join(f.TempDir(), "krakend.json")
	s, err := readSettings(func(string) string { return "" })
	if err != nil {
		f.Fatal(err)
	}
	s.ConfigFile = file
	f.Fuzz(func(t *testing.T, source []byte) {
		if err := os.WriteFile(file, source, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newEdge(s, slog.New(slog.DiscardHandler)); err != nil && !strings.Contains(err.Error(), "EDGE_CONFIG") {
			t.Errorf("the error does not name the setting: %v", err)
		}
	})
}

// FuzzSettings: a variable has a valid value, or the error names it.
func FuzzSettings(f *testing.F) {
	names := []string{"EDGE_PORT", "DAPR_HTTP_PORT", "EDGE_SIDECAR_URL", "EDGE_JWKS_URL", "EDGE_CORS_ORIGINS", "EDGE_MAX_BODY_BYTES",
		"EDGE_BODY_TIMEOUT_SECONDS", "EDGE_JWKS_MAX_AGE_SECONDS", "EDGE_KEY_TTL_SECONDS", "EDGE_REVOCATION_SECONDS",
		"EDGE_RATE_USER", "EDGE_TRUSTED_PROXIES", "EDGE_DRAIN_SECONDS", "YOCASO_BIND", endpointVariable}
	f.Fuzz(func(t *testing.T, at uint8, value string) {
		name := names[int(at)%len(names)]
		s, err := readSettings(func(variable string) string {
			if variable == name {
				return value
			}
			return ""
		})
		if err != nil {
			if !strings.Contains(err.Error(), name+": ") {
				t.Errorf("the error does not name %s: %v", name, err)
			}
			return
		}
		if s.MaxBodyBytes < 1 || s.KeyTTL < 0 || s.KeyTTL > 2*time.Second || s.RevocationInterval <= 0 || s.BodyTimeout < 0 ||
			s.RateUser < 0 || s.DrainDelay < 0 || s.JWKSMaxAge < 0 {
			t.Errorf("%s=%q was accepted: %+v", name, value, s)
		}
		for _, origin := range s.CORSOrigins {
			if origin != "*" && !strings.Contains(origin, "://") {
				t.Errorf("origin %q", origin)
			}
		}
	})
}

// FuzzClientAddress: only trusted proxies can name another address, and what is counted is an address.
func FuzzClientAddress(f *testing.F) {
	e := &edge{settings: settings{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}}
	f.Fuzz(func(t *testing.T, peer, forwarded string) {
		remote, err := netip.ParseAddrPort(peer)
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = peer
		direct := e.clientAddress(r)
		r.Header.Set("X-Forwarded-For", forwarded)
		got := e.clientAddress(r)
		if !e.isTrustedProxy(remote.Addr().Unmap().WithZone("")) && got != direct {
			t.Errorf("%s counts as %s", peer, got)
		}
		_, isAddress := netip.ParseAddr(got)
		_, isNetwork := netip.ParsePrefix(got)
		if err := errors.Join(isAddress, isNetwork); isAddress != nil && isNetwork != nil {
			t.Errorf("%s counts as %q: %v", peer, got, err)
		}
	})
}
