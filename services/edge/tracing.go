package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// endpointVariable starts the export, as in the apps. The SDK reads the other OTEL_ variables itself.
	endpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT"
	samplerVariable  = "OTEL_TRACES_SAMPLER"
	// traceFlushTimeout bounds the last export: a collector that is down must not delay the shutdown.
	traceFlushTimeout = 2 * time.Second
)

var (
	traceparentPattern = regexp.MustCompile(`^[0-9a-e][0-9a-f]-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)
	propagator         = propagation.TraceContext{}
)

// tracing records the spans of requests. Its zero value records none and only keeps or starts the traceparent.
type tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
}

// newTracing starts the OTLP export over HTTP.
func newTracing(log *slog.Logger) (tracing, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Warn("spans cannot be exported", "app", "edge", "detail", err.Error())
	}))
	exporter, err := otlptracehttp.New(context.Background())
	if err != nil {
		return tracing{}, fmt.Errorf("%s: %w", endpointVariable, err)
	}
	described, err := resource.New(context.Background(), resource.WithFromEnv(), resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "edge"), attribute.String("service.namespace", "yocaso")))
	if err != nil {
		return tracing{}, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(described)}
	if os.Getenv(samplerVariable) == "" {
		// The SDK's default follows the caller's sampled flag, and a caller here is any client.
		options = append(options, sdktrace.WithSampler(sdktrace.AlwaysSample()))
	}
	provider := sdktrace.NewTracerProvider(options...)
	return tracing{provider, provider.Tracer("yocaso")}, nil
}

// close exports what is left.
func (t tracing) close(log *slog.Logger) {
	if t.provider == nil {
		return
	}
	bounded, cancel := context.WithTimeout(context.Background(), traceFlushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(bounded); err != nil {
		log.Warn("the last spans were not exported", "app", "edge", "detail", err.Error())
	}
}

// beginRequest keeps the trace of a valid traceparent or starts one, and begins the server span, nil without export.
func (t tracing) beginRequest(r *http.Request, c *call) (*http.Request, trace.Span) {
	c.traceID = clientTrace(r.Header)
	if t.tracer == nil || r.URL.Path == healthPath {
		if c.traceID == "" {
			c.traceID = randomHex(16)
			r.Header.Set("Traceparent", "00-"+c.traceID+"-"+randomHex(8)+"-01")
		}
		return r, nil
	}
	ctx := propagator.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := t.tracer.Start(ctx, methodOf(r), trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(c.startedAt))
	propagator.Inject(ctx, propagation.HeaderCarrier(r.Header))
	c.traceID = span.SpanContext().TraceID().String()
	return r.WithContext(ctx), span
}

// endRequest ends the server span; a stream's with the stream. Its name and attributes hold nothing that the caller
// sent: paths contain ids, queries and headers contain text and secrets.
func (t tracing) endRequest(span trace.Span, r *http.Request, c *call) {
	if span == nil {
		return
	}
	method := methodOf(r)
	span.SetName(method + " " + c.route)
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", c.route),
		attribute.Int("http.response.status_code", c.status))
	if c.app != "" {
		span.SetAttributes(attribute.String("yocaso.app", c.app))
	}
	if c.truncated {
		failSpan(span, "truncated")
	} else if c.status >= http.StatusInternalServerError {
		failSpan(span, strconv.Itoa(c.status))
	}
	span.End()
}

// do sends a request to the sidecar in a client span, which ends with the response's body.
func (t tracing) do(ctx context.Context, client *http.Client, r *http.Request, app, pattern string) (*http.Response, error) {
	if t.tracer == nil {
		return client.Do(r.WithContext(valueless{ctx}))
	}
	ctx, span := t.tracer.Start(ctx, r.Method+" "+pattern, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", r.Method), attribute.String("url.template", pattern),
			attribute.String("yocaso.app", app)))
	propagator.Inject(ctx, propagation.HeaderCarrier(r.Header))
	response, err := client.Do(r.WithContext(valueless{ctx}))
	if err != nil {
		endFailed(span, err)
		return nil, err
	}
	if err := ctx.Err(); err != nil { // Lura then drops the response without closing it
		response.Body.Close()
		endFailed(span, err)
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", response.StatusCode))
	if response.StatusCode >= http.StatusBadRequest {
		failSpan(span, strconv.Itoa(response.StatusCode))
	}
	response.Body = &tracedBody{response.Body, span}
	return response, nil
}

// tracedBody ends a client span when the body has been read or is closed.
type tracedBody struct {
	io.ReadCloser
	span trace.Span
}

func (b *tracedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.span.End()
	} else if err != nil {
		endFailed(b.span, err)
	}
	return n, err
}

func (b *tracedBody) Close() error {
	b.span.End()
	return b.ReadCloser.Close()
}

// endFailed records the kind of an error, not its text: that contains the URL with its query.
func endFailed(span trace.Span, err error) {
	kind := "connection"
	switch {
	case errors.Is(err, context.Canceled):
		kind = "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		kind = "timeout"
	}
	failSpan(span, kind)
	span.End()
}

func failSpan(span trace.Span, kind string) {
	span.SetAttributes(attribute.String("error.type", kind))
	span.SetStatus(codes.Error, kind)
}

// clientTrace returns the trace id of a valid W3C traceparent, and removes an invalid one.
func clientTrace(header http.Header) string {
	given := header.Values("Traceparent")
	if len(given) == 1 {
		parts := traceparentPattern.FindStringSubmatch(given[0])
		if parts != nil && strings.Trim(parts[1], "0") != "" && strings.Trim(parts[2], "0") != "" {
			return parts[1]
		}
	}
	header.Del("Traceparent")
	header.Del("Tracestate")
	return ""
}

// methodOf bounds the values: HTTP lets a client invent methods.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return r.Method
	}
	return "_OTHER"
}
