package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/luraproject/lura/v2/logging"
)

func levelOf(status int) slog.Level {
	if status >= 500 {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

// logFields never holds a header, a query or a body: a route's pattern says enough.
func logFields(method string, c *call, traceID string) []slog.Attr {
	fields := []slog.Attr{
		slog.String("app", "edge"),
		slog.String("method", method),
		slog.String("route", c.route),
		slog.Int("status", c.status),
		slog.Float64("durationMs", float64(time.Since(c.began).Microseconds())/1000),
		slog.String("requestId", c.requestID),
		slog.String("traceId", traceID),
	}
	if c.truncated {
		fields = append(fields, slog.Bool("cut", true))
	}
	if c.who.user != "" {
		fields = append(fields, slog.String("user", userHash(c.who.user)))
	}
	if c.who.keyID != "" {
		fields = append(fields, slog.String("keyId", c.who.keyID))
	}
	return fields
}

// luraLog passes on only what Lura finds wrong; its errors of single calls are in the access log already.
type luraLog struct {
	logging.Logger
	log *slog.Logger
}

func (l luraLog) Error(v ...any) { l.write(slog.LevelError, v) }

func (l luraLog) Critical(v ...any) { l.write(slog.LevelError, v) }

func (l luraLog) write(level slog.Level, v []any) {
	l.log.Log(context.Background(), level, "lura", "app", "edge", "detail", v)
}

const (
	logDelay   = 100 * time.Millisecond
	logPending = 32 << 10
)

// lineBuffer writes lines together: whoever reads them is woken ten times a second, not by every call.
type lineBuffer struct {
	out io.Writer

	mu      sync.Mutex
	pending []byte
	waiting bool
}

func (l *lineBuffer) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = append(l.pending, line...)
	if len(l.pending) >= logPending {
		return len(line), l.flush()
	}
	if !l.waiting {
		l.waiting = true
		time.AfterFunc(logDelay, l.Flush)
	}
	return len(line), nil
}

// Flush writes what waits.
func (l *lineBuffer) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = false
	l.flush()
}

func (l *lineBuffer) flush() error {
	_, err := l.out.Write(l.pending)
	l.pending = l.pending[:0]
	return err
}
