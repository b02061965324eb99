package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestTheVendoredReaderIsTheRecordedRelease(t *testing.T) {
	recorded, err := os.ReadFile("docs/scalar.json")
	if err != nil {
		t.Fatal(err)
	}
	var release struct{ Name, Version, License, Sha256 string }
	if err := json.Unmarshal(recorded, &release); err != nil {
		t.Fatal(err)
	}
	bundle := decompress(readDocs("scalar.js.gz"))
	sum := sha256.Sum256(bundle)
	if hex.EncodeToString(sum[:]) != release.Sha256 {
		t.Error("docs/scalar.js.gz is not the file that docs/scalar.json records: run docs/renew.sh")
	}
	if !strings.Contains(string(bundle), release.Version) || release.Name != "@scalar/api-reference" {
		t.Errorf("the bundle is not of %+v", release)
	}
	if licence, err := os.ReadFile("docs/LICENSE"); err != nil || !strings.HasPrefix(string(licence), release.License+" License") {
		t.Errorf("the licence is not %s: %v", release.License, err)
	}
}

// get does not decompress, unlike http.DefaultClient.
func get(t testing.TB, url string, headers ...string) reply {
	t.Helper()
	return do(t, request(t, http.MethodGet, url, "", nil, append([]string{"Accept-Encoding", "gzip, br"}, headers...)...))
}

func TestThePageLoadsOnlyFromThisOrigin(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, nil)
	page := get(t, edge.url+"/docs")
	html := string(decompress([]byte(page.body)))
	if strings.Contains(html, "://") {
		t.Errorf("the page names another origin: %s", html)
	}
	policy := map[string]string{}
	for directive := range strings.SplitSeq(page.header.Get("Content-Security-Policy"), "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		policy[name] = sources
	}
	for name, want := range map[string]string{"default-src": "'none'", "script-src": "'self'", "connect-src": "'self'",
		"img-src": "'self' data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"} {
		if policy[name] != want {
			t.Errorf("%s is %q", name, policy[name])
		}
	}
	scripts := regexp.MustCompile(`src="(/docs/[0-9a-f]{12}/[a-z]+\.js)"`).FindAllStringSubmatch(html, -1)
	if len(scripts) != 2 || strings.Count(html, "<script") != 2 {
		t.Fatalf("scripts: %v", scripts)
	}
	for _, script := range scripts {
		got := get(t, edge.url+script[1])
		if got.status != 200 || !strings.HasPrefix(got.header.Get("Content-Type"), "text/javascript") ||
			!strings.Contains(got.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", script[1], got.status, got.header)
		}
	}
}

func TestStaticPagesAreCompressedAndRevalidated(t *testing.T) {
	edge := startEdge(t, newFakeSidecar(t, nil).URL, nil)
	for _, path := range []string{"/docs", "/openapi.json"} {
		got := get(t, edge.url+path)
		if got.status != 200 || got.header.Get("Content-Encoding") != "gzip" || got.header.Get("Vary") != "Accept-Encoding" ||
			got.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
		tag := got.header.Get("ETag")
		if again := get(t, edge.url+path, "If-None-Match", tag); again.status != 304 || again.body != "" {
			t.Errorf("%s: %d", path, again.status)
		}
		for _, accepted := range []string{"", "identity", "br", "gzip;q=0", "gzip; q=0.0, br"} {
			r := request(t, http.MethodGet, edge.url+path, "", nil, "Accept-Encoding", accepted, "If-None-Match", tag)
			plain := do(t, r)
			if plain.status != 200 || plain.header.Get("Content-Encoding") != "" || plain.body != string(decompress([]byte(got.body))) {
				t.Errorf("%s for %q: %d %v", path, accepted, plain.status, plain.header)
			}
		}
	}
	if got := do(t, request(t, http.MethodGet, edge.url+"/docs/000000000000/scalar.js", "", nil)); got.status != 404 {
		t.Errorf("another release: %d", got.status)
	}
}
