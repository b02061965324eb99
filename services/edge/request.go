package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

var (
	requestIDPattern   = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)
	traceparentPattern = regexp.MustCompile(`^[0-9a-e][0-9a-f]-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)
)

// call is what the edge learns of one request on its way; the access log is written from it.
type call struct {
	began     time.Time
	requestID string
	route     string
	who       caller
	address   string
	status    int
	truncated bool
	stream    context.Context // of the answer, where it is one
	shed      *overload       // of what app the load was too high for it
	bodyFault atomic.Pointer[error]
}

// healthPath is asked each second, so it is not logged.
const healthPath = "/healthz"

type callKey struct{}

func callOf(ctx context.Context) *call {
	found, _ := ctx.Value(callKey{}).(*call)
	return found
}

// ServeHTTP makes a request safe before any route sees it, and logs it after.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{began: time.Now(), status: http.StatusNoContent, route: "preflight"}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	c.address = e.addressOf(r)
	stripHeaders(r.Header)
	c.requestID = ensureRequestID(r.Header)
	traceID := ensureTrace(r.Header)
	// Never the client's: sidecars may deliver a call twice, and by this the apps know it again.
	r.Header.Set("X-Call-Id", randomHex(16))
	w.Header().Set("X-Request-Id", c.requestID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 {
		r.Body = e.boundBody(w, r, c)
	}
	e.handler.ServeHTTP(w, r)
	if c.shed != nil {
		c.shed.logShed(e.log, time.Since(processStart))
	} else if c.route != healthPath {
		e.log.LogAttrs(r.Context(), levelOf(c.status), "request", logFields(r.Method, c, traceID)...)
	}
	if c.truncated {
		panic(http.ErrAbortHandler) // the client must not take a cut body for a whole one
	}
}

// stripHeaders removes every header by which a client could pose as somebody else or speak to a sidecar,
// in each spelling that a later hop could fold into the real one.
func stripHeaders(header http.Header) {
	for name := range header {
		plain := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case plain == "x-user-id", plain == "x-user-email", plain == "x-scopes", plain == "x-key-id",
			plain == "forwarded", plain != strings.ToLower(name),
			strings.HasPrefix(plain, "dapr-"), strings.HasPrefix(plain, "x-forwarded-"):
			delete(header, name)
		}
	}
}

func ensureRequestID(header http.Header) string {
	given := header.Values("X-Request-Id")
	if len(given) == 1 && requestIDPattern.MatchString(given[0]) {
		return given[0]
	}
	id := randomHex(16)
	header.Set("X-Request-Id", id)
	return id
}

// ensureTrace keeps the client's W3C trace or begins one, and returns its id.
func ensureTrace(header http.Header) string {
	given := header.Values("Traceparent")
	if len(given) == 1 {
		parts := traceparentPattern.FindStringSubmatch(given[0])
		if parts != nil && strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != "" {
			return parts[1]
		}
	}
	trace := randomHex(16)
	header.Set("Traceparent", "00-"+trace+"-"+randomHex(8)+"-01")
	header.Del("Tracestate")
	return trace
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}

// boundBody limits a body in size, also a chunked one, and in time; once it has arrived, net/http lifts the
// deadline itself.
func (e *edge) boundBody(w http.ResponseWriter, r *http.Request, c *call) io.ReadCloser {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(e.settings.BodyTimeout))
	return &boundedBody{ReadCloser: http.MaxBytesReader(w, r.Body, e.settings.MaxBodyBytes), call: c}
}

type boundedBody struct {
	io.ReadCloser
	call *call
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.call.bodyFault.CompareAndSwap(nil, &err)
	}
	return n, err
}

// bodyFailure is the answer when the client's body was too large, too slow or broken.
func (e *edge) bodyFailure(c *call) (failure, bool) {
	fault := c.bodyFault.Load()
	if fault == nil {
		return failure{}, false
	}
	var answer failure
	if tooLarge := new(http.MaxBytesError); errors.As(*fault, &tooLarge) {
		answer = e.catalogue.fail(codePayloadTooLarge, "The body is larger than this server takes.")
	} else {
		answer = e.catalogue.fail(codeInvalidArgument, "The body did not arrive whole and in time.")
	}
	answer.header.Set("Connection", "close")
	return answer, true
}

// userHash lets a log reader follow one user without learning who it is.
func userHash(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:6])
}
