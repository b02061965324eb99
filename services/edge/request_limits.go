package main

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// maxURIBytes bounds the path with its query: the apps' HTTP parser rejects longer ones.
const maxURIBytes = 32 << 10

const bodyTooLarge = "The request body exceeds the size limit."

// limitSize refuses an oversized URI, and a body whose Content-Length is too large, before reading the body.
func (e *edge) limitSize(c *gin.Context) {
	if len(c.Request.RequestURI) > maxURIBytes {
		e.abort(c, e.errors.failure(codePayloadTooLarge, "The query exceeds the size limit; use POST."))
	} else if c.Request.ContentLength > e.settings.MaxBodyBytes {
		e.abort(c, e.errors.failure(codePayloadTooLarge, bodyTooLarge).closingConnection())
	}
}

// limitBody bounds a body in size (chunked ones too) and time; net/http resets the read deadline after the body.
func (e *edge) limitBody(w http.ResponseWriter, r *http.Request, c *call) io.ReadCloser {
	http.NewResponseController(w).SetReadDeadline(time.Now().Add(e.settings.BodyTimeout))
	return &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, e.settings.MaxBodyBytes), call: c}
}

// limitedBody records the first read error, which the proxy would report as an upstream failure.
type limitedBody struct {
	io.ReadCloser
	call *call
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !errors.Is(err, http.ErrBodyReadAfterClose) {
		b.call.bodyError.CompareAndSwap(nil, &err)
	}
	return n, err
}

// bodyFailure answers a body that was too large, too slow or incomplete.
func (e *edge) bodyFailure(c *call) (failure, bool) {
	err := c.bodyError.Load()
	if err == nil {
		return failure{}, false
	}
	f := e.errors.failure(codeInvalidArgument, "The request body was incomplete or took too long.")
	if tooLarge := new(http.MaxBytesError); errors.As(*err, &tooLarge) {
		f = e.errors.failure(codePayloadTooLarge, bodyTooLarge)
	}
	return f.closingConnection(), true
}
