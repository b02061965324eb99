package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

var errAuthUnavailable = errors.New("app auth is unavailable")

// authTimeout bounds a call to auth. With the TTL of a cached key or list (2 s) a revocation takes effect within 5 s.
const authTimeout = 2500 * time.Millisecond

const maxAuthResponseBytes = 16 << 20

// authClient calls the RPC methods of app auth that only the edge may call.
type authClient struct {
	url      string
	endpoint authEndpoint
}

func newAuthClient(s settings, client *http.Client, tracing tracing) *authClient {
	return &authClient{invokeURL(s.SidecarURL, "auth", "/yocaso.auth.v1."), authEndpoint{client, s.SidecarToken, tracing}}
}

// call invokes a method such as TokenService/ListRevocations, in the trace of ctx. Others may wait for the same response,
// so the end of ctx does not end the call. Its errors never contain the body, which may hold a key.
func (a *authClient) call(ctx context.Context, method string, body, result any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), authTimeout)
	defer cancel()
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+method, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if err := a.endpoint.fetchJSON(request, maxAuthResponseBytes, result); err != nil {
		return fmt.Errorf("%w: %w", errAuthUnavailable, err)
	}
	return nil
}
