package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

var (
	errDraining = errors.New("the edge is stopping")
	errRevoked  = errors.New("the credential was revoked")
	errExpired  = errors.New("the access token has expired")
)

// tokenLeeway is for how long a token is taken after its expiry, by clocks that may differ.
const tokenLeeway = 30 * time.Second

// reconnect asks a client to come back with Last-Event-ID, as the apps do.
const reconnect = "event: reconnect\ndata: {}\n\n"

// liveStreams are the streams that are open, each with whose it is.
type liveStreams struct {
	mu   sync.Mutex
	open map[*liveStream]struct{}
}

type liveStream struct {
	app string
	who caller
	end context.CancelCauseFunc
}

// opened is the context of a stream from an app. It ends when the edge stops and when the token that opened it expires,
// so that its client resumes by Last-Event-ID, elsewhere or with another token; and when the credential is revoked.
func (e *edge) opened(ctx context.Context, app string) context.Context {
	stream, end := context.WithCancelCause(ctx)
	call := callOf(ctx)
	call.stream = stream
	live := &liveStream{app, call.who, end}
	e.streams.add(live)
	release := context.AfterFunc(e.draining, func() { end(errDraining) })
	expires := func() bool { return true }
	if call.who.isToken {
		expires = time.AfterFunc(time.Until(call.who.ends.Add(tokenLeeway)), func() { end(errExpired) }).Stop
	}
	context.AfterFunc(stream, func() {
		release()
		expires()
		e.streams.remove(live)
	})
	return stream
}

// asksToReconnect says whether the client of a stream that was cut may go on by coming back: always, unless what it has
// shown counts no more.
func (c *call) asksToReconnect() bool {
	return c.stream != nil && !errors.Is(context.Cause(c.stream), errRevoked)
}

// keepConnected says something to every app that streams come from, again and again until ctx ends: between sidecars,
// daprd 1.18 closes a connection by which no new call has gone for three minutes, with all its streams (dapr/dapr#10291).
func (e *edge) keepConnected(ctx context.Context, client *http.Client) {
	ticks := time.NewTicker(e.settings.KeepConnected)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		for app := range e.streams.apps() {
			if err := e.greet(ctx, client, app); err != nil {
				e.log.Warn("an app with open streams cannot be reached", slog.String("app", app), slog.String("detail", err.Error()))
			}
		}
	}
}

func (e *edge) greet(ctx context.Context, client *http.Client, app string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.settings.SidecarURL+"/v1.0/invoke/"+app+"/method"+healthPath, nil)
	if err != nil {
		return err
	}
	if e.settings.SidecarToken != "" {
		request.Header.Set("dapr-api-token", e.settings.SidecarToken)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxErrorBytes))
	return err
}

func (l *liveStreams) add(stream *liveStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*liveStream]struct{}{}
	}
	l.open[stream] = struct{}{}
}

func (l *liveStreams) remove(stream *liveStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, stream)
}

// apps names the apps that streams come from.
func (l *liveStreams) apps() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := map[string]bool{}
	for stream := range l.open {
		found[stream.app] = true
	}
	return found
}

func (l *liveStreams) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open) > 0
}

// endRevoked ends what a list revokes. A stream that opens beside it is seen by the next list.
func (l *liveStreams) endRevoked(list *revoked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for stream := range l.open {
		if list.holds(stream.who) {
			stream.end(errRevoked)
		}
	}
}
