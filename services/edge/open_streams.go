package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

var (
	errDraining = errors.New("the edge is draining")
	errExpired  = errors.New("the access token expired")
)

// tokenLeeway allows for clock skew: a stream outlives its token's expiry by this much. It equals the validator's leeway.
const tokenLeeway = 30 * time.Second

// openStreams is the registry of open event streams.
type openStreams struct {
	mu      sync.Mutex
	streams map[*openStream]struct{}
}

type openStream struct {
	app       string
	principal principal
	cancel    context.CancelCauseFunc
}

// trackStream returns a context that ends when the edge drains, when the access token expires, when the sidecar of another
// Dapr app has carried the stream long enough, or when the credential is revoked. Except in the last case the client can
// resume with Last-Event-ID.
func (e *edge) trackStream(ctx context.Context, app string) context.Context {
	streamCtx, cancel := context.WithCancelCause(ctx)
	call := callFrom(ctx)
	call.stream = streamCtx
	stream := &openStream{app, call.principal, cancel}
	e.streams.add(stream)
	stopDrain := context.AfterFunc(e.draining, func() { cancel(errDraining) })
	stopExpiry, stopRotation := func() bool { return true }, func() bool { return true }
	if call.callingApp != "" {
		stopRotation = e.rotateStream(cancel)
	}
	if call.principal.isToken {
		lifetime := time.Until(call.principal.expiresAt.Add(tokenLeeway))
		stopExpiry = time.AfterFunc(lifetime, func() { cancel(errExpired) }).Stop
	}
	context.AfterFunc(streamCtx, func() {
		stopDrain()
		stopExpiry()
		stopRotation()
		e.streams.remove(stream)
	})
	return streamCtx
}

// mayReconnect reports whether the client of an interrupted stream can resume it: not with a revoked credential.
func (c *call) mayReconnect() bool {
	return c.stream != nil && !errors.Is(context.Cause(c.stream), errRevoked)
}

// keepStreamsAlive probes the health of each app with open streams until ctx ends: daprd 1.18 closes a connection between
// sidecars, with all its streams, after three minutes without a new call on it (dapr/dapr#10291).
func (e *edge) keepStreamsAlive(ctx context.Context) {
	ticks := time.NewTicker(e.settings.KeepAliveInterval)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		for app := range e.streams.apps() {
			if err := e.probeHealth(ctx, app); err != nil {
				e.log.Warn("health probe of an app with open streams failed", "app", app, "detail", err.Error())
			}
		}
	}
}

func (e *edge) probeHealth(ctx context.Context, app string) error {
	ctx, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, invokeURL(e.settings.SidecarURL, app, healthPath), nil)
	if err != nil {
		return err
	}
	setSidecarToken(request, e.settings.SidecarToken)
	response, err := e.sidecar.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxErrorBytes))
	return err
}

func (s *openStreams) add(stream *openStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		s.streams = map[*openStream]struct{}{}
	}
	s.streams[stream] = struct{}{}
}

func (s *openStreams) remove(stream *openStream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, stream)
}

func (s *openStreams) apps() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	apps := map[string]bool{}
	for stream := range s.streams {
		apps[stream.app] = true
	}
	return apps
}

func (s *openStreams) any() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams) > 0
}

// closeRevoked cancels the streams of revoked credentials. One that opens concurrently is closed at the next poll.
func (s *openStreams) closeRevoked(revoked revocationSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for stream := range s.streams {
		if revoked.revokes(stream.principal) {
			stream.cancel(errRevoked)
		}
	}
}
