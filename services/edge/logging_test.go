package main

import (
	"strings"
	"sync"
	"testing"
)

type countingWriter struct {
	mu     sync.Mutex
	writes int
	text   strings.Builder
}

func (c *countingWriter) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.text.Write(text)
}

func (c *countingWriter) state() (int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.text.String()
}

func TestLogLinesAreBatchedAndFlushed(t *testing.T) {
	out := &countingWriter{}
	lines := &batchWriter{out: out}
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		lines.Write([]byte(line))
	}
	eventually(t, "the lines", func() bool {
		_, text := out.state()
		return text == "one\ntwo\nthree\n"
	})
	if writes, _ := out.state(); writes != 1 {
		t.Errorf("%d writes", writes)
	}
	lines.Write([]byte("last\n"))
	lines.Flush()
	if _, text := out.state(); !strings.HasSuffix(text, "last\n") {
		t.Errorf("the last line is missing: %q", text)
	}
}

func TestAFullLogBufferIsFlushedAtOnce(t *testing.T) {
	out := &countingWriter{}
	lines := &batchWriter{out: out}
	lines.Write([]byte(strings.Repeat("x", logFlushBytes)))
	if writes, _ := out.state(); writes != 1 {
		t.Error("a full buffer was not flushed")
	}
}
