package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
	"github.com/luraproject/lura/v2/transport/http/client"
)

const maxErrorBytes = 64 << 10

// maxUnreadBytes is what of a stream waits in the edge for a slow client; then the app waits.
const maxUnreadBytes = 64 << 10

// newSidecarClient keeps connections to the sidecar open; a redirect is an answer like any other.
func newSidecarClient(cfg config.ServiceConfig) *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     newTransport(cfg),
	}
}

// newStreamClient carries many streams on a connection: one of its own would cost each of them two buffers, two
// goroutines and a descriptor, here and in the sidecar. Calls end soon, and HTTP/1.1 costs them less CPU.
func newStreamClient(cfg config.ServiceConfig) *http.Client {
	streams := newSidecarClient(cfg)
	transport := newTransport(cfg)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	transport.Protocols.SetUnencryptedHTTP2(true)
	transport.HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerStream: maxUnreadBytes}
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

// sidecarBackend calls the sidecar with its token and without what Lura adds about the client.
func (e *edge) sidecarBackend(sidecar *http.Client) proxy.BackendFactory {
	execute := func(ctx context.Context, r *http.Request) (*http.Response, error) {
		r.Header.Del("X-Forwarded-Host")
		if e.settings.SidecarToken != "" {
			r.Header.Set("dapr-api-token", e.settings.SidecarToken)
		}
		return sidecar.Do(r.WithContext(ctx))
	}
	return func(backend *config.Backend) proxy.Proxy {
		return proxy.NewHTTPProxyWithHTTPExecutor(backend, client.HTTPRequestExecutor(execute), backend.Decoder)
	}
}

// translated gives every endpoint a proxy that never fails: what goes wrong becomes an RpcError to render.
func (e *edge) translated(calls, streams proxy.Factory) proxy.Factory {
	return proxy.FactoryFunc(func(endpoint *config.EndpointConfig) (proxy.Proxy, error) {
		options, err := ownConfig[endpointOptions](endpoint.ExtraConfig)
		if err != nil {
			return nil, err
		}
		next, accept, wanted := calls, []string{"application/json"}, "application/json"
		if options.Stream {
			next = streams
			wanted = "text/event-stream"
			// Alone, `text/event-stream` makes daprd 1.18 swallow every reply that is not 2xx.
			accept = []string{"text/event-stream, application/json"}
		}
		inner, err := next.New(endpoint)
		if err != nil {
			return nil, err
		}
		app := appOf(endpoint)
		load := e.loadOf(app)
		return func(ctx context.Context, r *proxy.Request) (*proxy.Response, error) {
			leave, admitted := e.admit(load, callOf(ctx), options)
			if !admitted {
				return answer(e.overloaded()), nil
			}
			r.Headers["Accept"] = accept
			if options.Stream {
				ctx = e.opened(ctx, app)
			}
			response, err := inner(ctx, r)
			leave(response)
			if err != nil || response == nil {
				return answer(e.upstreamFailure(ctx, err)), nil
			}
			if response.Metadata.StatusCode >= 300 {
				e.ensureRpcError(response)
			} else if options.Stream && response.Metadata.StatusCode == http.StatusNoContent {
				// A stream that has nothing to say any more: the reader has seen its end.
				return response, nil
			} else if !strings.HasPrefix(http.Header(response.Metadata.Headers).Get("Content-Type"), wanted) {
				// The app went before it had answered: daprd 1.18 makes an empty 200 of that.
				return answer(e.catalogue.fail(codeUnavailable, "The service cannot be reached.")), nil
			}
			return response, nil
		}, nil
	})
}

func (e *edge) upstreamFailure(ctx context.Context, err error) failure {
	if c := callOf(ctx); c != nil {
		if found, broken := e.bodyFailure(c); broken {
			return found
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		return e.catalogue.fail(codeUnavailable, "The server is stopping; connect again.")
	case errors.Is(context.Cause(ctx), errRevoked), errors.Is(context.Cause(ctx), errExpired):
		return e.catalogue.fail(codeUnauthenticated, badCredential)
	case errors.Is(err, context.DeadlineExceeded):
		return e.catalogue.fail(codeDeadlineExceeded, "The service did not answer in time.")
	case errors.Is(err, context.Canceled):
		return e.catalogue.fail(codeCancelled, "The client left.")
	default:
		return e.catalogue.fail(codeUnavailable, "The service cannot be reached.")
	}
}

func answer(f failure) *proxy.Response {
	return &proxy.Response{
		IsComplete: true,
		Metadata:   proxy.Metadata{StatusCode: f.status, Headers: f.header},
		Io:         bytes.NewReader(f.body),
	}
}

// ensureRpcError leaves an app's RpcError alone and puts one of ours in the place of anything else: the sidecar's
// own errors, and what a framework answers where no app was reached.
func (e *edge) ensureRpcError(response *proxy.Response) {
	head, _ := io.ReadAll(io.LimitReader(response.Io, maxErrorBytes+1))
	var found struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(head, &found) == nil && found.Error.Code != "" {
		response.Io = bytes.NewReader(head)
		return
	}
	replaced := answer(e.sidecarFailure(response.Metadata.StatusCode, string(head)))
	response.Metadata, response.Io = replaced.Metadata, replaced.Io
}

func (e *edge) sidecarFailure(status int, body string) failure {
	switch {
	case status == http.StatusGatewayTimeout, status == http.StatusRequestTimeout,
		strings.Contains(strings.ToLower(body), "deadline"):
		return e.catalogue.fail(codeDeadlineExceeded, "The service did not answer in time.")
	case status == http.StatusRequestEntityTooLarge, status == http.StatusRequestURITooLong,
		status == http.StatusRequestHeaderFieldsTooLarge:
		return e.catalogue.fail(codePayloadTooLarge, "The body is larger than the service takes.")
	case status == http.StatusTooManyRequests:
		return e.catalogue.fail(codeRateLimited, "Too many calls at once.")
	default:
		return e.catalogue.fail(codeUnavailable, "The service cannot be reached.")
	}
}

// clientStall is how long a client may leave a chunk unread before its connection is given up.
const clientStall = 30 * time.Second
