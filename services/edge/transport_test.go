package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// readContext counts how often net/http looks for a trace in it, as it does in dials that outlive their request.
type readContext struct {
	context.Context
	reads *atomic.Int32
}

func (c readContext) Value(key any) any {
	if strings.Contains(fmt.Sprintf("%T", key), "httptrace") {
		c.reads.Add(1)
	}
	return c.Context.Value(key)
}

func TestADialReadsNothingOfTheRequestsContext(t *testing.T) {
	handle, _ := recordingHandler()
	sidecar := newFakeSidecar(t, handle)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var reads atomic.Int32
	request, err := http.NewRequest(http.MethodGet, sidecar.URL+healthPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := tracing{}.do(readContext{ctx, &reads}, &http.Client{Transport: &http.Transport{}}, request, "llm", healthPath)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if reads.Load() != 0 {
		t.Errorf("the context was read %d times", reads.Load())
	}
}

func TestACancelledContextStillEndsACall(t *testing.T) {
	begun := make(chan struct{})
	sidecar := newFakeSidecar(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequest(http.MethodPost, sidecar.URL+unaryPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	if _, err := (tracing{}).do(ctx, http.DefaultClient, request, "llm", unaryPath); ctx.Err() == nil || err == nil {
		t.Errorf("got %v", err)
	}
}
