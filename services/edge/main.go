// Command edge is the only door to the platform: it verifies tokens, sets the caller's identity and passes
// calls and streams on to the apps through its sidecar.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" { // streams that stand open are memory; collecting sooner costs little
		debug.SetGCPercent(50)
	}
	lines := &lineBuffer{out: os.Stdout}
	err := run(ctx, os.Getenv, slog.New(slog.NewJSONHandler(lines, nil)))
	lines.Flush()
	if err != nil {
		fmt.Fprintln(os.Stderr, "edge:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string, log *slog.Logger) error {
	settings, err := readSettings(getenv)
	if err != nil {
		return err
	}
	edge, err := newEdge(settings, log)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", settings.Listen)
	if err != nil {
		return fmt.Errorf("EDGE_PORT or APP_PORT: %w", err)
	}
	log.Info("listening", "address", listener.Addr().String())
	return edge.serve(ctx, listener)
}
