package main

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/http"
	"time"
)

// logAccess writes the access log entry of a request. It holds no header, query or body: they may carry secrets.
func (e *edge) logAccess(r *http.Request, c *call) {
	level := slog.LevelInfo
	if c.status >= 500 {
		level = slog.LevelWarn
	}
	fields := []slog.Attr{
		slog.String("app", "edge"),
		slog.String("method", r.Method),
		slog.String("route", c.route),
		slog.Int("status", c.status),
		slog.Float64("durationMs", float64(time.Since(c.startedAt).Microseconds())/1000),
		slog.String("requestId", c.requestID),
		slog.String("traceId", c.traceID),
	}
	if c.truncated {
		fields = append(fields, slog.Bool("cut", true))
	}
	if c.principal.user != "" {
		fields = append(fields, slog.String("user", hashUser(c.principal.user)))
	}
	if c.principal.keyID != "" {
		fields = append(fields, slog.String("keyId", c.principal.keyID))
	}
	e.log.LogAttrs(r.Context(), level, "request", fields...)
}

// hashUser pseudonymizes a user id: log entries of one user can be correlated without identifying the user.
func hashUser(user string) string {
	sum := sha256.Sum256([]byte(user))
	return hex.EncodeToString(sum[:6])
}
