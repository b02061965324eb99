package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/luraproject/lura/v2/config"
	"github.com/luraproject/lura/v2/logging"
	"github.com/luraproject/lura/v2/proxy"
	luragin "github.com/luraproject/lura/v2/router/gin"
	"github.com/rs/cors"
)

// drainTimeout bounds the shutdown: requests still in flight after it are cut.
const drainTimeout = 8 * time.Second

// healthPath is probed every second, so it is neither logged nor rate limited.
const healthPath = "/healthz"

// edge is the assembled gateway.
type edge struct {
	settings    settings
	log         *slog.Logger
	errors      errorCatalogue
	tokens      *tokenVerifier
	apiKeys     *apiKeyVerifier
	revocations *revocationList
	streams     openStreams
	tracing     tracing
	admissions  map[string]*admission // by app

	addressLimiter, publicLimiter, userLimiter, keyLimiter *rateLimiter

	sidecar *http.Client
	handler http.Handler
	server  *http.Server

	draining     context.Context
	drain        context.CancelFunc
	configErrors []error
}

var registerRenderer = sync.OnceFunc(func() { luragin.RegisterRender(rendererName, renderResponse) })

func newEdge(s settings, log *slog.Logger) (*edge, error) {
	registerRenderer()
	cfg, err := readConfig(s)
	if err != nil {
		return nil, err
	}
	e := &edge{settings: s, log: log, admissions: map[string]*admission{},
		addressLimiter: newRateLimiter("address"), publicLimiter: newRateLimiter("public"),
		userLimiter: newRateLimiter("user"), keyLimiter: newRateLimiter("key")}
	if e.errors, err = decodeExtra[errorCatalogue](cfg.ExtraConfig); err != nil {
		return nil, err
	}
	if err := e.errors.validate(); err != nil {
		return nil, err
	}
	if s.ExportSpans {
		if e.tracing, err = newTracing(log); err != nil {
			return nil, err
		}
	}
	e.draining, e.drain = context.WithCancel(context.Background())
	e.tokens = newTokenVerifier(newJWKSCache(s, &http.Client{Timeout: 5 * time.Second}, e.tracing))
	e.sidecar = newSidecarClient(cfg)
	auth := newAuthClient(s, e.sidecar, e.tracing)
	e.revocations = newRevocationList(s, auth, log, e.streams.closeRevoked)
	e.apiKeys = newAPIKeyVerifier(s, auth, e.revocations)
	var engine *gin.Engine
	if err := withoutPanic(func() error { engine = e.routes(cfg); return errors.Join(e.configErrors...) }); err != nil {
		return nil, fmt.Errorf("EDGE_CONFIG: %w", err)
	}
	e.handler = withCORS(s.CORSOrigins, engine)
	e.server = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return e, nil
}

// routes registers Lura's endpoints from the configuration, and the edge's own pages.
func (e *edge) routes(cfg config.ServiceConfig) *gin.Engine {
	logger := luraLog{Logger: logging.NoOp, log: e.log}
	engine := luragin.NewEngine(cfg, luragin.EngineOptions{Logger: logger})
	engine.Use(e.recordRoute, e.recoverPanic, e.limitAddress, e.limitSize)
	engine.NoRoute(func(c *gin.Context) { e.abort(c, e.errors.failure(codeNotFound, "No such path.")) })
	engine.NoMethod(e.methodNotAllowed)
	engine.GET(healthPath, e.health)
	e.serveDocs(engine)
	calls := proxy.NewDefaultFactory(e.sidecarBackend(e.sidecar), logging.NoOp)
	streams := proxy.NewDefaultFactory(e.sidecarBackend(newStreamClient(cfg)), logging.NoOp)
	luragin.NewFactory(luragin.Config{
		Engine:         engine,
		ProxyFactory:   e.proxyFactory(calls, streams),
		HandlerFactory: e.authenticate(luragin.EndpointHandler),
		Logger:         logger,
		// Lura's own server has no shutdown timeout and hides the connection's deadlines from handlers.
		RunServer: func(context.Context, config.ServiceConfig, http.Handler) error { return nil },
	}).New().Run(cfg)
	return engine
}

// serve runs until ctx ends, then drains: health fails, streams end, in-flight calls finish.
func (e *edge) serve(ctx context.Context, listener net.Listener) error {
	defer e.tracing.close(e.log)
	failed := make(chan error, 1)
	go func() { failed <- e.server.Serve(listener) }()
	go e.revocations.poll(e.draining, e.streams.any)
	go e.keepStreamsAlive(e.draining)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	e.drain()
	time.Sleep(e.settings.DrainDelay)
	bounded, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := e.server.Shutdown(bounded); err != nil {
		e.log.Warn("drain timed out, in-flight requests were cut", "app", "edge")
		return e.server.Close()
	}
	return nil
}

func (e *edge) recordRoute(c *gin.Context) {
	c.Next()
	call := callFrom(c.Request.Context())
	call.route, call.status = c.FullPath(), c.Writer.Status()
	if call.route == "" {
		call.route = "unmatched"
	}
}

// recoverPanic answers INTERNAL; the panic's text goes to the log only.
func (e *edge) recoverPanic(c *gin.Context) {
	defer func() {
		if cause := recover(); cause != nil {
			e.log.Error("panic", "app", "edge", "detail", fmt.Sprint(cause), "stack", string(debug.Stack()))
			if c.Writer.Written() {
				callFrom(c.Request.Context()).truncated = true
			} else {
				e.abort(c, e.errors.failure(codeInternal, "Internal error; it has been logged."))
			}
		}
	}()
	c.Next()
}

// methodNotAllowed overrides UNIMPLEMENTED's 501: HTTP clients and tools expect 405.
func (e *edge) methodNotAllowed(c *gin.Context) {
	f := e.errors.failure(codeUnimplemented, "The path does not support this method.")
	f.status = http.StatusMethodNotAllowed
	e.abort(c, f)
}

func (e *edge) abort(c *gin.Context, f failure) {
	f.write(c.Writer)
	c.Abort()
}

func (e *edge) health(c *gin.Context) {
	if e.draining.Err() != nil {
		e.abort(c, e.errors.failure(codeUnavailable, "The server is shutting down."))
		return
	}
	c.JSON(http.StatusOK, gin.H{"status": "ok"})
}

// withCORS never allows credentials: tokens are sent in a header, not in cookies.
func withCORS(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodPost},
		AllowedHeaders: []string{"Accept", "Authorization", "Baggage", "Content-Type", "Idempotency-Key",
			"Last-Event-ID", "Traceparent", "Tracestate", "X-Api-Key", "X-Request-Id"},
		ExposedHeaders: []string{"Idempotent-Replayed", "RateLimit", "RateLimit-Policy", "Retry-After", "Traceparent",
			"X-Request-Id"},
		MaxAge: 600,
	}).Handler(next)
}
