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

var requestIDPattern = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,128}$`)

// call is the state of one request, shared by the handlers and the access log.
type call struct {
	startedAt     time.Time
	requestID     string
	traceID       string
	route         string
	principal     principal
	clientAddress string
	callingApp    string // of another Dapr app, "" for other clients
	status        int
	truncated     bool            // part of the response was sent, the rest cannot be
	stream        context.Context // of an event stream, nil for other responses
	app           string          // the app called, for the trace
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
	if c.callingApp = e.callingApp(r); c.callingApp != "" {
		c.clientAddress = "app " + c.callingApp // the peer is the edge's sidecar, whatever app calls
	}
	stripUntrustedHeaders(r.Header)
	c.requestID = ensureRequestID(r.Header)
	r, span := e.tracing.beginRequest(r, c)
	// Always the edge's own: apps deduplicate by it when a sidecar retries a call.
	r.Header.Set("X-Call-Id", randomHex(16))
	w.Header().Set("X-Request-Id", c.requestID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 {
		r.Body = e.limitBody(w, r, c)
	}
	e.handler.ServeHTTP(w, r)
	e.tracing.endRequest(span, r, c)
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

func randomHex(bytes int) string {
	raw := make([]byte, bytes)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}
