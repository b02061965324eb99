package main

import (
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/luraproject/lura/v2/core"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/transport/http/server"
)

// rendererName is the output_encoding in krakend.json.
const rendererName = "flush"

// writeTimeout closes the connection of a client that leaves a chunk unread for so long.
const writeTimeout = 30 * time.Second

// reconnectEvent asks the client to resume with Last-Event-ID; the apps send the same event.
const reconnectEvent = "event: reconnect\ndata: {}\n\n"

// A stream holds its buffer as long as it is open, so stream buffers are small: they dominate memory use.
var (
	responseBuffers = sync.Pool{New: func() any { return newBuffer(32 << 10) }}
	streamBuffers   = sync.Pool{New: func() any { return newBuffer(2 << 10) }}
)

func newBuffer(size int) *[]byte {
	buffer := make([]byte, size)
	return &buffer
}

// droppedHeaders are hop-by-hop, or are set by the edge itself.
var droppedHeaders = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Server": true, "Date": true, "Via": true,
	"X-Request-Id": true, "X-Content-Type-Options": true,
}

// droppedPrefixes belong to sidecars, identity headers and CORS, which the edge answers itself.
var droppedPrefixes = []string{"Dapr-", "Access-Control-", "X-Krakend", "X-User-", "X-Key-Id", "X-Api-Key", "Grpc-"}

// renderResponse copies a response to the client and flushes after each chunk of a stream; KrakenD's no-op renderer never
// flushes. Other responses are not flushed: the sidecar sends even small ones in chunks, and each would cost a packet.
func renderResponse(c *gin.Context, response *proxy.Response) {
	header := c.Writer.Header()
	header.Del(core.KrakendHeaderName)
	header.Del(server.CompleteResponseHeaderName)
	copyHeaders(header, response.Metadata.Headers)
	isStream := strings.HasPrefix(header.Get("Content-Type"), "text/event-stream")
	if isStream {
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no")
	}
	c.Writer.WriteHeader(response.Metadata.StatusCode)
	c.Writer.WriteHeaderNow()
	if isStream {
		c.Writer.Flush()
	}
	call := callFrom(c.Request.Context())
	complete, atEventEnd := copyBody(c.Writer, response.Io, isStream)
	switch {
	case !complete && !isStream:
		call.truncated = true
	case !complete && atEventEnd && call.mayReconnect():
		io.WriteString(c.Writer, reconnectEvent)
		c.Writer.Flush()
	}
}

func copyHeaders(to http.Header, from map[string][]string) {
	hopByHop := connectionOptions(from["Connection"])
	for name, values := range from {
		name = textproto.CanonicalMIMEHeaderKey(name)
		hasDroppedPrefix := slices.ContainsFunc(droppedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		switch {
		case droppedHeaders[name] || hopByHop[name] || hasDroppedPrefix:
		case name == "Ratelimit" || name == "Ratelimit-Policy": // an app's limits are listed beside the edge's
			appendListField(to, name, values...)
		default:
			to[name] = values
		}
	}
}

func connectionOptions(values []string) map[string]bool {
	names := map[string]bool{}
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			names[textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return names
}

// copyBody reports whether the client got the whole body, and whether what it got ends with a complete event.
func copyBody(w gin.ResponseWriter, body io.Reader, flush bool) (complete, atEventEnd bool) {
	if body == nil {
		return true, true
	}
	atEventEnd = true
	control := http.NewResponseController(w)
	defer control.SetWriteDeadline(time.Time{})
	buffers := &responseBuffers
	if flush {
		buffers = &streamBuffers
	}
	buffer := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	var last [2]byte // of the body so far
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			control.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, failed := w.Write((*buffer)[:n]); failed != nil {
				return false, false
			}
			if flush {
				w.Flush()
			}
			if last[0] = last[1]; n > 1 {
				last[0] = (*buffer)[n-2]
			}
			last[1] = (*buffer)[n-1]
			atEventEnd = last == [2]byte{'\n', '\n'}
		}
		if err != nil {
			return errors.Is(err, io.EOF), atEventEnd
		}
	}
}
