package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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

// call is the state of one request, shared by the handlers and the access log.
type call struct {
	startedAt     time.Time
	requestID     string
	traceID       string
	route         string
	principal     principal
	clientAddress string
	status        int
	truncated     bool            // part of the response was sent, the rest cannot be
	stream        context.Context // of an event stream, nil for other responses
	shedBy        *admission      // set when admission control refused the call
	bodyError     atomic.Pointer[error]
}

type callKey struct{}

func callFrom(ctx context.Context) *call {
	found, _ := ctx.Value(callKey{}).(*call)
	return found
}

// ServeHTTP sanitizes a request before routing and logs it afterwards.
func (e *edge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{startedAt: time.Now(), status: http.StatusNoContent, route: "preflight"}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	c.clientAddress = e.clientAddress(r)
	stripUntrustedHeaders(r.Header)
	c.requestID = ensureRequestID(r.Header)
	c.traceID = ensureTrace(r.Header)
	// Always the edge's own: apps deduplicate by it when a sidecar retries a call.
	r.Header.Set("X-Call-Id", randomHex(16))
	w.Header().Set("X-Request-Id", c.requestID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 {
		r.Body = e.limitBody(w, r, c)
	}
	e.handler.ServeHTTP(w, r)
	if c.shedBy != nil {
		c.shedBy.logShed(e.log, time.Since(processStart))
	} else if c.route != healthPath {
		e.logAccess(r, c)
	}
	if c.truncated {
		panic(http.ErrAbortHandler) // closes the connection, so that the client sees an incomplete body
	}
}

// stripUntrustedHeaders removes headers by which a client could forge an identity or address a sidecar. A name with an
// underscore goes too: a later hop could read it as the hyphenated one.
func stripUntrustedHeaders(header http.Header) {
	for name := range header {
		lower := strings.ToLower(name)
		switch {
		case lower == "x-user-id", lower == "x-user-email", lower == "x-scopes", lower == "x-key-id",
			lower == "forwarded", strings.Contains(lower, "_"),
			strings.HasPrefix(lower, "dapr-"), strings.HasPrefix(lower, "x-forwarded-"):
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

// ensureTrace keeps a valid W3C traceparent or starts a trace, and returns the trace id.
func ensureTrace(header http.Header) string {
	given := header.Values("Traceparent")
	if len(given) == 1 {
		parts := traceparentPattern.FindStringSubmatch(given[0])
		if parts != nil && strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != "" {
			return parts[1]
		}
	}
	traceID := randomHex(16)
	header.Set("Traceparent", "00-"+traceID+"-"+randomHex(8)+"-01")
	header.Del("Tracestate")
	return traceID
}

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}
