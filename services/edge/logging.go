package main

import (
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/luraproject/lura/v2/logging"
)

// luraLog forwards Lura's errors and drops its lower levels: the access log already has one entry per call.
type luraLog struct {
	logging.Logger
	log *slog.Logger
}

func (l luraLog) Error(v ...any) { l.log.Error("lura", "app", "edge", "detail", v) }

func (l luraLog) Critical(v ...any) { l.Error(v...) }

const (
	logFlushDelay = 100 * time.Millisecond
	logFlushBytes = 32 << 10
)

// batchWriter batches log lines: one write per call would cost a system call and wake the reader of stdout each time.
type batchWriter struct {
	out io.Writer

	mu        sync.Mutex
	buffer    []byte
	scheduled bool
}

func (b *batchWriter) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buffer = append(b.buffer, line...)
	if len(b.buffer) >= logFlushBytes {
		return len(line), b.flush()
	}
	if !b.scheduled {
		b.scheduled = true
		time.AfterFunc(logFlushDelay, b.Flush)
	}
	return len(line), nil
}

func (b *batchWriter) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.scheduled = false
	b.flush()
}

func (b *batchWriter) flush() error {
	_, err := b.out.Write(b.buffer)
	b.buffer = b.buffer[:0]
	return err
}
