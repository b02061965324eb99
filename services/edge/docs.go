package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

//go:embed docs/index.html docs/page.js docs/scalar.js.gz
var docsFiles embed.FS

const (
	revalidated = "no-cache"
	// immutable is for an asset whose URL contains its hash.
	immutable = "public, max-age=31536000, immutable"

	// docsPolicy lets the page load and call nothing but this origin. Scalar sets style attributes, for which there is
	// no nonce; without foreign images, fonts and connections an injected style can send nothing anywhere.
	docsPolicy = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

// serveDocs registers the OpenAPI document and its reader; services/edge/docs holds the reader.
func (e *edge) serveDocs(engine *gin.Engine) {
	page, script := readDocs("index.html"), readDocs("page.js")
	for name, asset := range map[string]*asset{
		"scalar.js": newAsset("text/javascript; charset=utf-8", immutable, readDocs("scalar.js.gz")),
		"page.js":   newAsset("text/javascript; charset=utf-8", immutable, compress(script)),
	} {
		path := "/docs/" + asset.hash[:12] + "/" + name
		page = bytes.ReplaceAll(page, []byte("/docs/"+name), []byte(path))
		engine.GET(path, asset.serve)
	}
	index := newAsset("text/html; charset=utf-8", revalidated, compress(page))
	engine.GET("/docs", func(c *gin.Context) {
		c.Header("Content-Security-Policy", docsPolicy)
		c.Header("Cross-Origin-Opener-Policy", "same-origin")
		c.Header("Referrer-Policy", "no-referrer")
		index.serve(c)
	})
	engine.GET("/openapi.json", newAsset("application/json", revalidated, compress(e.settings.OpenAPI)).serve)
}

func readDocs(name string) []byte {
	content, err := docsFiles.ReadFile("docs/" + name)
	if err != nil {
		panic(err) // go:embed above names the file
	}
	return content
}

// asset is a static response, kept compressed.
type asset struct {
	contentType, cacheControl, hash string
	compressed                      []byte
	plain                           func() []byte // decompressed for the first client that does not accept gzip
}

func newAsset(contentType, cacheControl string, compressed []byte) *asset {
	sum := sha256.Sum256(compressed)
	return &asset{contentType, cacheControl, hex.EncodeToString(sum[:]), compressed,
		sync.OnceValue(func() []byte { return decompress(compressed) })}
}

func (a *asset) serve(c *gin.Context) {
	body, tag := a.compressed, a.hash+"-gzip"
	c.Header("Content-Type", a.contentType)
	c.Header("Cache-Control", a.cacheControl)
	c.Header("Vary", "Accept-Encoding")
	if acceptsGzip(c.Request.Header) {
		c.Header("Content-Encoding", "gzip")
	} else {
		body, tag = a.plain(), a.hash
	}
	c.Header("ETag", `"`+tag+`"`)
	http.ServeContent(c.Writer, c.Request, "", time.Time{}, bytes.NewReader(body))
}

func acceptsGzip(header http.Header) bool {
	for coding := range strings.SplitSeq(strings.Join(header.Values("Accept-Encoding"), ","), ",") {
		name, quality, _ := strings.Cut(strings.ToLower(strings.ReplaceAll(coding, " ", "")), ";q=")
		if name == "gzip" {
			return strings.Trim(quality, "0.") != "" || quality == ""
		}
	}
	return false
}

func compress(content []byte) []byte {
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	writer.Write(content)
	writer.Close()
	return out.Bytes()
}

func decompress(content []byte) []byte {
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		panic(err) // our own, checked by a test
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		panic(err)
	}
	return plain
}
