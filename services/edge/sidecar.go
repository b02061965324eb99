package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/transport/http/client"
)

const maxErrorBytes = 64 << 10

// maxUnreadBytes bounds what the edge buffers of a stream whose client reads slowly; then back pressure reaches the app.
const maxUnreadBytes = 64 << 10

func invokeURL(sidecar, app, path string) string {
	return sidecar + "/v1.0/invoke/" + app + "/method" + path
}

func setSidecarToken(r *http.Request, token string) {
	if token != "" {
		r.Header.Set("dapr-api-token", token)
	}
}

// newSidecarClient passes redirects on as responses instead of following them.
func newSidecarClient(cfg config.ServiceConfig) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     newTransport(cfg),
	}
}

// newStreamClient multiplexes streams over HTTP/2: a connection each would cost two buffers, two goroutines and a file
// descriptor per stream, here and in the sidecar. Short calls use HTTP/1.1, which costs less CPU.
func newStreamClient(cfg config.ServiceConfig) *http.Client {
	transport := newTransport(cfg)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: maxUnreadBytes}
	streams := newSidecarClient(cfg)
	streams.Transport = transport
	return streams
}

func newTransport(cfg config.ServiceConfig) *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: cfg.DialerTimeout, KeepAlive: cfg.DialerKeepAlive}).DialContext,
		MaxIdleConns:        cfg.MaxIdleConns,
		MaxIdleConnsPerHost: cfg.MaxIdleConnsPerHost,
		IdleConnTimeout:     cfg.IdleConnTimeout,
		DisableCompression:  cfg.DisableCompression,
	}
}

// valueless is a context without values: net/http looks values up in a dial that may outlive its request, when gin has
// given the request's context to another one.
type valueless struct{ context.Context }

func (valueless) Value(any) any { return nil }

// AfterFunc lets derived contexts follow this one without a goroutine each.
func (v valueless) AfterFunc(f func()) func() bool { return context.AfterFunc(v.Context, f) }

// sidecarBackend sends Lura's requests to the sidecar. Lura adds X-Forwarded-Host, which no app may see.
func (e *edge) sidecarBackend(sidecar *http.Client) proxy.BackendFactory {
	return func(backend *config.Backend) proxy.Proxy {
		app := appOf(backend)
		execute := func(ctx context.Context, r *http.Request) (*http.Response, error) {
			r.Header.Del("X-Forwarded-Host")
			setSidecarToken(r, e.settings.SidecarToken)
			return e.tracing.do(ctx, sidecar, r, app, backend.URLPattern)
		}
		return proxy.NewHTTPProxyWithHTTPExecutor(backend, client.HTTPRequestExecutor(execute), backend.Decoder)
	}
}

// authEndpoint is where the edge itself calls app auth, each call in a client span.
type authEndpoint struct {
	client  *http.Client
	token   string
	tracing tracing
}

// fetchJSON decodes a 200 response of at most maxBytes into result. Any other status is an error.
func (a authEndpoint) fetchJSON(r *http.Request, maxBytes int64, result any) error {
	setSidecarToken(r, a.token)
	response, err := a.tracing.do(r.Context(), a.client, r, "auth", r.URL.Path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		io.Copy(io.Discard, io.LimitReader(response.Body, maxErrorBytes)) // so that the connection is reused
		return fmt.Errorf("unexpected status %d", response.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(response.Body, maxBytes)).Decode(result)
}
