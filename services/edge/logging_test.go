package main

import (
	"strings"
	"sync"
	"testing"
)

type countedWrites struct {
	mu     sync.Mutex
	writes int
	text   strings.Builder
}

func (c *countedWrites) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.text.Write(text)
}

func (c *countedWrites) state() (int, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.text.String()
}

func TestLinesAreWrittenTogetherAndSoon(t *testing.T) {
	out := &countedWrites{}
	lines := &lineBuffer{out: out}
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

func TestManyLinesDoNotWait(t *testing.T) {
	out := &countedWrites{}
	lines := &lineBuffer{out: out}
	lines.Write([]byte(strings.Repeat("x", logPending)))
	if writes, _ := out.state(); writes != 1 {
		t.Error("a full buffer waits")
	}
}
