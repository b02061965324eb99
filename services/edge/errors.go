package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Codes of the platform's errors that the edge itself gives.
const (
	codeInvalidArgument  = "INVALID_ARGUMENT"
	codeUnauthenticated  = "UNAUTHENTICATED"
	codeNotFound         = "NOT_FOUND"
	codePayloadTooLarge  = "PAYLOAD_TOO_LARGE"
	codeRateLimited      = "RATE_LIMITED"
	codeBudgetExceeded   = "BUDGET_EXCEEDED"
	codeCancelled        = "CANCELLED"
	codeDeadlineExceeded = "DEADLINE_EXCEEDED"
	codeUnavailable      = "UNAVAILABLE"
	codeUnimplemented    = "UNIMPLEMENTED"
	codeInternal         = "INTERNAL"
)

// catalogue is the platform's list of errors, rendered into the configuration from services/kit/errors.py.
type catalogue struct {
	HelpURL string `json:"help_url"`
	Errors  map[string]struct {
		Status    int  `json:"status"`
		Retryable bool `json:"retryable"`
	} `json:"errors"`
}

// failure is an error of the edge itself, ready to be written.
type failure struct {
	code   string
	status int
	header http.Header
	body   []byte
}

// fail makes the RpcError of a code; what a client may simply try again says when.
func (c catalogue) fail(code, message string) failure { return c.failAfter(code, message, 1) }

func (c catalogue) failAfter(code, message string, seconds int64) failure {
	row := c.Errors[code]
	details := map[string]any{
		"helpLink": map[string]string{"url": c.HelpURL + "/" + strings.ReplaceAll(strings.ToLower(code), "_", "-")},
	}
	header := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}}
	if code == codeUnavailable || code == codeRateLimited {
		details["retryInfo"] = map[string]string{"retryAfter": fmt.Sprintf("%ds", seconds)}
		header.Set("Retry-After", fmt.Sprint(seconds))
	}
	if code == codeUnauthenticated {
		header.Set("WWW-Authenticate", "Bearer")
	}
	body, _ := json.Marshal(map[string]any{"error": map[string]any{
		"code": code, "message": message, "isTerminal": !row.Retryable, "details": details,
	}})
	header.Set("Content-Length", fmt.Sprint(len(body)))
	return failure{code: code, status: row.Status, header: header, body: body}
}

func (f failure) write(w http.ResponseWriter) {
	for name, values := range f.header {
		w.Header()[name] = values
	}
	w.WriteHeader(f.status)
	w.Write(f.body)
}

// check refuses a configuration in which a code of ours has no row.
func (c catalogue) check() error {
	for _, code := range []string{codeInvalidArgument, codeUnauthenticated, codeNotFound, codePayloadTooLarge,
		codeRateLimited, codeBudgetExceeded, codeCancelled, codeDeadlineExceeded, codeUnavailable, codeUnimplemented, codeInternal} {
		if c.Errors[code].Status == 0 {
			return fmt.Errorf("EDGE_CONFIG: %s.errors has no row for %s", namespace, code)
		}
	}
	return nil
}
