package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/luraproject/lura/v2/core"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/transport/http/server"
)

// renderer is the output_encoding of every endpoint.
const renderer = "flush"

// Buffers of an answer that is read to its end at once, and of a stream: what it holds while it stands open is many
// times all else, and an event is small.
var (
	answerBuffers = sync.Pool{New: func() any { return newBuffer(32 << 10) }}
	streamBuffers = sync.Pool{New: func() any { return newBuffer(2 << 10) }}
)

func newBuffer(size int) *[]byte {
	buffer := make([]byte, size)
	return &buffer
}

// privateHeaders are of one connection, or of the machines behind the edge.
var privateHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Server": true, "Date": true, "Via": true,
	"X-Request-Id": true, "X-Content-Type-Options": true,
}

var privatePrefixes = []string{"Dapr-", "Access-Control-", "X-Krakend", "X-User-", "X-Key-Id", "X-Api-Key", "Grpc-"}

// flushRender passes status, headers and body on as they come; KrakenD's own no-op renderer never flushes.
// Only events are worth a packet each: the sidecar gives every answer in chunks, also a small one.
func flushRender(c *gin.Context, response *proxy.Response) {
	header := c.Writer.Header()
	header.Del(core.KrakendHeaderName)
	header.Del(server.CompleteResponseHeaderName)
	copyHeaders(header, response.Metadata.Headers)
	stream := strings.HasPrefix(header.Get("Content-Type"), "text/event-stream")
	if stream {
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no")
	}
	c.Writer.WriteHeader(response.Metadata.StatusCode)
	c.Writer.WriteHeaderNow()
	if stream {
		c.Writer.Flush()
	}
	call := callOf(c.Request.Context())
	cut, whole := relay(c.Writer, response.Io, stream)
	switch {
	case cut != nil && !stream:
		call.truncated = true
	case cut != nil && whole && call.asksToReconnect():
		io.WriteString(c.Writer, reconnect)
		c.Writer.Flush()
	}
}

func copyHeaders(to http.Header, from map[string][]string) {
	closing := connectionNames(from["Connection"])
	for name, values := range from {
		name = textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case privateHeaders[name] || closing[name] || hasPrivatePrefix(name):
		case name == "Ratelimit" || name == "Ratelimit-Policy": // the app's limits beside the edge's
			addToList(to, name, values...)
		default:
			to[name] = values
		}
	}
}

func connectionNames(values []string) map[string]bool {
	names := map[string]bool{}
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			names[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return names
}

func hasPrivatePrefix(name string) bool {
	for _, prefix := range privatePrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// relay copies until the end; `cut` tells that the client has not got all of it, and `whole` that what it has got ends
// with an event.
func relay(w gin.ResponseWriter, body io.Reader, flush bool) (cut error, whole bool) {
	if body == nil {
		return nil, true
	}
	whole = true
	control := http.NewResponseController(w)
	defer control.SetWriteDeadline(time.Time{})
	buffers := &answerBuffers
	if flush {
		buffers = &streamBuffers
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			control.SetWriteDeadline(time.Now().Add(clientStall))
			if _, failed := w.Write((*buffer)[:n]); failed != nil {
				return failed, false
			}
			if flush {
				w.Flush()
			}
			whole = bytes.HasSuffix((*buffer)[:n], []byte("\n\n"))
		}
		if errors.Is(err, io.EOF) {
			return nil, whole
		}
		if err != nil {
			return errors.Join(err, context.Canceled), whole
		}
	}
}
