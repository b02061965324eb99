package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"
)

var errRotated = errors.New("the stream was open for as long as a sidecar may carry it")

// callingApp is the app-id of another Dapr app that calls through the edge's own sidecar, "" for every other client. It
// proves no identity: the credential does, as for any client.
func (e *edge) callingApp(r *http.Request) string {
	token := r.Header.Get("Dapr-Api-Token")
	if e.settings.AppToken == "" || subtle.ConstantTimeCompare([]byte(token), []byte(e.settings.AppToken)) != 1 {
		return ""
	}
	return r.Header.Get("Dapr-Caller-App-Id")
}

// rotateStream ends the stream of another Dapr app with the event `reconnect`, with jitter: daprd 1.18 closes the connection
// between the two sidecars three minutes after its last new call (dapr/dapr#10291). It returns the timer's stop function.
func (e *edge) rotateStream(cancel context.CancelCauseFunc) (stop func() bool) {
	limit := e.settings.SidecarStreamLimit
	return time.AfterFunc(limit-rand.N(limit/5+1), func() { cancel(errRotated) }).Stop
}
