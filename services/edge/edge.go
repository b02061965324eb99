package main

import (
	"context"
	_ "embed"
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

// drainLimit bounds a stop: what has not ended by then is cut.
const drainLimit = 8 * time.Second

// maxURIBytes bounds a path with its query; longer requests belong in a body.
const maxURIBytes = 32 << 10

//go:embed docs.html
var docsPage []byte

// edge is the assembled gateway.
type edge struct {
	settings  settings
	log       *slog.Logger
	catalogue catalogue
	keys      *keySet
	tokens    *verifiedTokens
	apiKeys   *apiKeys

	revocations *revocations
	streams     liveStreams
	loads       map[string]*overload

	addressCalls, publicCalls, userCalls, keyCalls *limiter

	sidecar *http.Client
	handler http.Handler
	server  *http.Server

	draining     context.Context
	drain        context.CancelFunc
	configFaults []error
}

var registerRenderer = sync.OnceFunc(func() { luragin.RegisterRender(renderer, flushRender) })

func newEdge(s settings, log *slog.Logger) (*edge, error) {
	registerRenderer()
	cfg, err := readConfig(s)
	if err != nil {
		return nil, err
	}
	e := &edge{settings: s, log: log, loads: map[string]*overload{}, addressCalls: newLimiter("address"), publicCalls: newLimiter("public"),
		userCalls: newLimiter("user"), keyCalls: newLimiter("key")}
	if e.catalogue, err = ownConfig[catalogue](cfg.ExtraConfig); err != nil {
		return nil, err
	}
	if err := e.catalogue.check(); err != nil {
		return nil, err
	}
	e.draining, e.drain = context.WithCancel(context.Background())
	e.keys = newKeySet(s, &http.Client{Timeout: 5 * time.Second})
	e.tokens = newVerifiedTokens(e.keys)
	e.sidecar = newSidecarClient(cfg)
	auth := newIssuer(s, e.sidecar)
	e.revocations = newRevocations(s, auth, log, e.streams.endRevoked)
	e.apiKeys = newAPIKeys(s, auth, e.revocations)
	engine := e.routes(cfg)
	if len(e.configFaults) > 0 {
		return nil, fmt.Errorf("EDGE_CONFIG: %w", errors.Join(e.configFaults...))
	}
	e.handler = crossOrigin(s.CORSOrigins, engine)
	e.server = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		IdleTimeout:       cfg.IdleTimeout,
		MaxHeaderBytes:    cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return e, nil
}

// routes lets Lura register the endpoints of the configuration; the few pages beside them are ours.
func (e *edge) routes(cfg config.ServiceConfig) *gin.Engine {
	logger := luraLog{Logger: logging.NoOp, log: e.log}
	engine := luragin.NewEngine(cfg, luragin.EngineOptions{Logger: logger})
	engine.Use(e.observed, e.recovered, e.perAddress, e.sized)
	engine.NoRoute(func(c *gin.Context) { e.abort(c, e.catalogue.fail(codeNotFound, "No such path.")) })
	engine.NoMethod(e.wrongMethod)
	engine.GET(healthPath, e.health)
	engine.GET("/openapi.json", page("application/json", e.settings.OpenAPI, ""))
	engine.GET("/docs", page("text/html; charset=utf-8", docsPage,
		"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"))
	calls := proxy.NewDefaultFactory(e.sidecarBackend(e.sidecar), logging.NoOp)
	streams := proxy.NewDefaultFactory(e.sidecarBackend(newStreamClient(cfg)), logging.NoOp)
	luragin.NewFactory(luragin.Config{
		Engine:         engine,
		ProxyFactory:   e.translated(calls, streams),
		HandlerFactory: e.authenticated(luragin.EndpointHandler),
		Logger:         logger,
		// Lura's own server stops without a limit and hides the connection's deadlines from the handlers.
		RunServer: func(context.Context, config.ServiceConfig, http.Handler) error { return nil },
	}).New().Run(cfg)
	return engine
}

// serve answers until ctx ends, then drains: health flips, streams end, calls under way finish.
func (e *edge) serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- e.server.Serve(listener) }()
	go e.revocations.follow(e.draining, e.streams.any)
	go e.keepConnected(e.draining, e.sidecar)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	e.drain()
	time.Sleep(e.settings.DrainDelay)
	bounded, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	if err := e.server.Shutdown(bounded); err != nil {
		e.log.Warn("calls were cut at the end of the drain", "app", "edge")
		return e.server.Close()
	}
	return nil
}

func (e *edge) observed(c *gin.Context) {
	c.Next()
	call := callOf(c.Request.Context())
	call.route, call.status = c.FullPath(), c.Writer.Status()
	if call.route == "" {
		call.route = "unmatched"
	}
}

// recovered turns a bug into INTERNAL; the text of a panic is for the log only.
func (e *edge) recovered(c *gin.Context) {
	defer func() {
		if found := recover(); found != nil {
			e.log.Error("panic", "app", "edge", "detail", fmt.Sprint(found), "stack", string(debug.Stack()))
			if c.Writer.Written() {
				callOf(c.Request.Context()).truncated = true
			} else {
				e.abort(c, e.catalogue.fail(codeInternal, "The server failed; the failure has been logged."))
			}
		}
	}()
	c.Next()
}

// sized refuses a body that says itself that it is too large, before anything of it is read, and a query that the
// apps' HTTP parser would not take.
func (e *edge) sized(c *gin.Context) {
	if len(c.Request.RequestURI) > maxURIBytes {
		e.abort(c, e.catalogue.fail(codePayloadTooLarge, "The query is larger than this server takes; use POST."))
	} else if c.Request.ContentLength > e.settings.MaxBodyBytes {
		answer := e.catalogue.fail(codePayloadTooLarge, "The body is larger than this server takes.")
		answer.header.Set("Connection", "close")
		e.abort(c, answer)
	}
}

// wrongMethod keeps HTTP's own status, which says more to clients and tools than 501.
func (e *edge) wrongMethod(c *gin.Context) {
	answer := e.catalogue.fail(codeUnimplemented, "The path does not take this method.")
	answer.status = http.StatusMethodNotAllowed
	e.abort(c, answer)
}

func (e *edge) abort(c *gin.Context, f failure) {
	f.write(c.Writer)
	c.Abort()
}

func (e *edge) health(c *gin.Context) {
	if e.draining.Err() != nil {
		e.abort(c, e.catalogue.fail(codeUnavailable, "The server is stopping."))
		return
	}
	c.JSON(http.StatusOK, gin.H{"status": "ok"})
}

func page(contentType string, content []byte, policy string) gin.HandlerFunc {
	return func(c *gin.Context) {
		if policy != "" {
			c.Header("Content-Security-Policy", policy)
		}
		c.Header("Cache-Control", "no-cache")
		c.Data(http.StatusOK, contentType, content)
	}
}

// crossOrigin answers browsers of the named origins; tokens travel in a header, so credentials are never allowed.
func crossOrigin(origins []string, next http.Handler) http.Handler {
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
