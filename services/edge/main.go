// Command edge is the platform's API gateway: it authenticates callers, sets identity headers and proxies RPC calls
// and event streams to the apps through its Dapr sidecar.
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
	if os.Getenv("GOGC") == "" { // thousands of open streams make heap size matter more than GC time
		debug.SetGCPercent(50)
	}
	logs := &batchWriter{out: os.Stdout}
	err := run(ctx, os.Getenv, slog.New(slog.NewJSONHandler(logs, nil)))
	logs.Flush()
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
