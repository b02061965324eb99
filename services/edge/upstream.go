package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/proxy"
)

const (
	serviceUnavailable = "The service is unavailable."
	serviceTimedOut    = "The service did not respond in time."
)

// proxyFactory builds proxies that never return an error: every failure becomes an RpcError response.
func (e *edge) proxyFactory(calls, streams proxy.Factory) proxy.Factory {
	return proxy.FactoryFunc(func(endpoint *config.EndpointConfig) (proxy.Proxy, error) {
		options, err := decodeExtra[endpointOptions](endpoint.ExtraConfig)
		if err != nil {
			return nil, err
		}
		factory, accept, contentType := calls, []string{"application/json"}, "application/json"
		if options.Stream {
			factory, contentType = streams, "text/event-stream"
			// With `text/event-stream` only, daprd 1.18 drops every response that is not 2xx.
			accept = []string{"text/event-stream, application/json"}
		}
		next, err := factory.New(endpoint)
		if err != nil {
			return nil, err
		}
		app := appOf(endpoint.Backend[0])
		appAdmission := e.admissionOf(app)
		return func(ctx context.Context, r *proxy.Request) (*proxy.Response, error) {
			callFrom(ctx).app = app
			release, admitted := e.admit(appAdmission, callFrom(ctx), options)
			if !admitted {
				return e.overloadFailure().response(), nil
			}
			r.Headers["Accept"] = accept
			if options.Stream {
				ctx = e.trackStream(ctx, app)
			}
			response, err := next(ctx, r)
			release(response)
			if err != nil || response == nil {
				return e.upstreamFailure(ctx, err).response(), nil
			}
			if response.Metadata.StatusCode >= 300 {
				e.ensureRPCError(response)
			} else if options.Stream && response.Metadata.StatusCode == http.StatusNoContent {
				return response, nil // the reader has already received the stream's last event
			} else if !strings.HasPrefix(http.Header(response.Metadata.Headers).Get("Content-Type"), contentType) {
				// When an app dies before it answers, daprd 1.18 returns an empty 200.
				return e.errors.failure(codeUnavailable, serviceUnavailable).response(), nil
			}
			return response, nil
		}, nil
	})
}

// upstreamFailure answers a call without a response. A body error comes first: it is the cause of the proxy's error.
func (e *edge) upstreamFailure(ctx context.Context, err error) failure {
	if c := callFrom(ctx); c != nil {
		if f, found := e.bodyFailure(c); found {
			return f
		}
	}
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		return e.errors.failure(codeUnavailable, "The server is shutting down; reconnect.")
	case errors.Is(context.Cause(ctx), errRevoked), errors.Is(context.Cause(ctx), errExpired):
		return e.errors.failure(codeUnauthenticated, invalidCredential)
	case errors.Is(context.Cause(ctx), errRotated):
		return e.errors.failure(codeUnavailable, serviceUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		return e.errors.failure(codeDeadlineExceeded, serviceTimedOut)
	case errors.Is(err, context.Canceled):
		return e.errors.failure(codeCancelled, "The client closed the request.")
	default:
		return e.errors.failure(codeUnavailable, serviceUnavailable)
	}
}

// ensureRPCError keeps an app's RpcError and replaces any other error body: those of the sidecar and of web frameworks
// would expose internal addresses.
func (e *edge) ensureRPCError(response *proxy.Response) {
	body, _ := io.ReadAll(io.LimitReader(response.Io, maxErrorBytes+1))
	if isRPCError(body) {
		response.Io = bytes.NewReader(body)
		return
	}
	replaced := e.sidecarFailure(response.Metadata.StatusCode, string(body)).response()
	response.Metadata, response.Io = replaced.Metadata, replaced.Io
}

// isRPCError reads maps: encoding/json would take the fields of a struct in any case.
func isRPCError(body []byte) bool {
	var found map[string]json.RawMessage
	var fields map[string]json.RawMessage
	var code string
	return utf8.Valid(body) && json.Unmarshal(body, &found) == nil && json.Unmarshal(found["error"], &fields) == nil &&
		json.Unmarshal(fields["code"], &code) == nil && code != ""
}

func (e *edge) sidecarFailure(status int, body string) failure {
	switch {
	case status == http.StatusGatewayTimeout, status == http.StatusRequestTimeout,
		strings.Contains(strings.ToLower(body), "deadline"):
		return e.errors.failure(codeDeadlineExceeded, serviceTimedOut)
	case status == http.StatusRequestEntityTooLarge, status == http.StatusRequestURITooLong,
		status == http.StatusRequestHeaderFieldsTooLarge:
		return e.errors.failure(codePayloadTooLarge, "The request exceeds the service's size limit.")
	case status == http.StatusTooManyRequests:
		return e.errors.failure(codeRateLimited, "Too many concurrent calls.")
	default:
		return e.errors.failure(codeUnavailable, serviceUnavailable)
	}
}
