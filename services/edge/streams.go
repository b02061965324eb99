package main

import (
	"context"
	"errors"
	"sync"
)

var (
	errDraining = errors.New("the edge is stopping")
	errRevoked  = errors.New("the credential was revoked")
)

// liveStreams are the streams that are open, each with whose it is.
type liveStreams struct {
	mu   sync.Mutex
	open map[*liveStream]struct{}
}

type liveStream struct {
	who caller
	end context.CancelCauseFunc
}

// opened is the context of a stream: it ends when the edge stops, so that its client resumes elsewhere by
// Last-Event-ID, and when the credential that opened it is revoked.
func (e *edge) opened(ctx context.Context) context.Context {
	stream, end := context.WithCancelCause(ctx)
	live := &liveStream{callOf(ctx).who, end}
	e.streams.add(live)
	release := context.AfterFunc(e.draining, func() { end(errDraining) })
	context.AfterFunc(stream, func() {
		release()
		e.streams.remove(live)
	})
	return stream
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
