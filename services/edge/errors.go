package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/luraproject/lura/v2/proxy"
)

// Error codes that the edge itself returns.
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

// errorCatalogue is the platform's error table, rendered into krakend.json from the Python catalogue.
type errorCatalogue struct {
	HelpURL string `json:"help_url"`
	Errors  map[string]struct {
		Status    int  `json:"status"`
		Retryable bool `json:"retryable"`
	} `json:"errors"`
}

// failure is an RpcError response.
type failure struct {
	status int
	header http.Header
	body   []byte
}

func (c errorCatalogue) failure(code, message string) failure {
	return c.failureWithRetry(code, message, 1)
}

// failureWithRetry sets Retry-After where the code allows a plain retry.
func (c errorCatalogue) failureWithRetry(code, message string, seconds int64) failure {
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
	return failure{status: row.Status, header: header, body: body}
}

// closingConnection is for a request whose body is left unread.
func (f failure) closingConnection() failure {
	f.header.Set("Connection", "close")
	return f
}

func (f failure) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), f.header)
	w.WriteHeader(f.status)
	w.Write(f.body)
}

func (f failure) response() *proxy.Response {
	return &proxy.Response{
		IsComplete: true,
		Metadata:   proxy.Metadata{StatusCode: f.status, Headers: f.header},
		Io:         bytes.NewReader(f.body),
	}
}

// validate rejects a configuration that lacks one of the edge's own codes: its status would be 0.
func (c errorCatalogue) validate() error {
	for _, code := range []string{codeInvalidArgument, codeUnauthenticated, codeNotFound, codePayloadTooLarge,
		codeRateLimited, codeBudgetExceeded, codeCancelled, codeDeadlineExceeded, codeUnavailable, codeUnimplemented, codeInternal} {
		if c.Errors[code].Status == 0 {
			return fmt.Errorf("EDGE_CONFIG: %s.errors has no row for %s", namespace, code)
		}
	}
	return nil
}
