package main

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

const (
	clientTraceID, clientSpanID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	unaryMethod                 = "yocaso.llm.v1.ConversationService/SendMessage"
	streamMethod                = "yocaso.llm.v1.ConversationService/StreamEvents"
)

// spanReceiver is an OTLP receiver over HTTP.
type spanReceiver struct {
	*httptest.Server
	mu       sync.Mutex
	raw      []byte
	services []string
	spans    []*otlp.Span
}

func newSpanReceiver(t testing.TB) *spanReceiver {
	t.Helper()
	s := &spanReceiver{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *spanReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	raw, _ := io.ReadAll(body)
	var export collector.ExportTraceServiceRequest
	if r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(raw, &export) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = append(s.raw, raw...)
	for _, group := range export.ResourceSpans {
		s.services = append(s.services, valueOf(group.Resource.Attributes, "service.name").GetStringValue())
		for _, scope := range group.ScopeSpans {
			s.spans = append(s.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func valueOf(attributes []*common.KeyValue, key string) *common.AnyValue {
	for _, each := range attributes {
		if each.Key == key {
			return each.Value
		}
	}
	return nil
}

// find waits for a span of a kind whose name ends with a path.
func (s *spanReceiver) find(t testing.TB, kind otlp.Span_SpanKind, path string) *otlp.Span {
	t.Helper()
	var found *otlp.Span
	eventually(t, kind.String()+" "+path, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, span := range s.spans {
			if span.Kind == kind && strings.HasSuffix(span.Name, path) {
				found = span
			}
		}
		return found != nil
	})
	return found
}

// findBoth waits for the server span of a path, and the client span of its call of app llm.
func (s *spanReceiver) findBoth(t testing.TB, path, method string) (server, client *otlp.Span) {
	t.Helper()
	return s.find(t, otlp.Span_SPAN_KIND_SERVER, path), s.find(t, otlp.Span_SPAN_KIND_CLIENT, "/v1.0/invoke/llm/method/"+method)
}

// exportTo sets the environment of an edge that exports at once to a receiver.
func exportTo(t testing.TB, receiver string) map[string]string {
	t.Setenv(endpointVariable, receiver)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	return map[string]string{endpointVariable: receiver}
}

func TestACallHasAServerAndAClientSpanInTheClientsTrace(t *testing.T) {
	receiver := newSpanReceiver(t)
	edge, _, seen := startRecordingEdge(t, exportTo(t, receiver.URL))
	post(t, edge, unaryPath, validToken(t), "Traceparent", "00-"+clientTraceID+"-"+clientSpanID+"-01", "Tracestate", "a=b")
	sent := receive(t, seen, "the call at the sidecar").Header
	server, client := receiver.findBoth(t, unaryPath, unaryMethod)
	if hexOf(server.TraceId) != clientTraceID || hexOf(server.ParentSpanId) != clientSpanID {
		t.Errorf("server span: %v", server)
	}
	if hexOf(client.TraceId) != clientTraceID || hexOf(client.ParentSpanId) != hexOf(server.SpanId) {
		t.Errorf("client span: %v", client)
	}
	if want := "00-" + clientTraceID + "-" + hexOf(client.SpanId) + "-01"; sent.Get("Traceparent") != want || sent.Get("Tracestate") != "a=b" {
		t.Errorf("the sidecar got %q %q, want %q", sent.Get("Traceparent"), sent.Get("Tracestate"), want)
	}
	if server.Name != "POST "+unaryPath || valueOf(server.Attributes, "http.route").GetStringValue() != unaryPath ||
		valueOf(server.Attributes, "http.response.status_code").GetIntValue() != 200 ||
		valueOf(server.Attributes, "yocaso.app").GetStringValue() != "llm" {
		t.Errorf("server span: %v", server)
	}
	if client.Name != "POST /v1.0/invoke/llm/method/"+unaryMethod {
		t.Errorf("client span: %v", client)
	}
	if !strings.Contains(edge.log.String(), `"traceId":"`+clientTraceID+`"`) || receiver.services[0] != "edge" {
		t.Errorf("log: %s, services: %v", edge.log.String(), receiver.services)
	}
}

func TestAClientDecidesNeitherItsSpansNorTheirRecording(t *testing.T) {
	for name, row := range map[string]struct{ sampler, sent, flags string }{
		"not sampled by the client": {"", "00-" + clientTraceID + "-" + clientSpanID + "-00", "01"},
		"malformed":                 {"", "00-" + clientTraceID + "-0000000000000000-01", "01"},
		"none":                      {"", "", "01"},
		"off, sampled by client":    {"always_off", "00-" + clientTraceID + "-" + clientSpanID + "-01", "00"},
	} {
		t.Run(name, func(t *testing.T) {
			receiver := newSpanReceiver(t)
			t.Setenv(samplerVariable, row.sampler)
			edge, _, seen := startRecordingEdge(t, exportTo(t, receiver.URL))
			var headers []string
			if row.sent != "" {
				headers = []string{"Traceparent", row.sent}
			}
			post(t, edge, unaryPath, validToken(t), headers...)
			sent := receive(t, seen, "the call at the sidecar").Header.Get("Traceparent")
			if !traceparentPattern.MatchString(sent) || !strings.HasSuffix(sent, "-"+row.flags) {
				t.Errorf("the sidecar got %q", sent)
			}
			if row.flags == "01" {
				server := receiver.find(t, otlp.Span_SPAN_KIND_SERVER, unaryPath)
				if !strings.Contains(sent, hexOf(server.TraceId)) || (name != "not sampled by the client" && len(server.ParentSpanId) != 0) {
					t.Errorf("%v, the sidecar got %q", server, sent)
				}
				return
			}
			stopped(t, edge)
			if len(receiver.spans) != 0 {
				t.Errorf("exported: %v", receiver.spans)
			}
		})
	}
}

func TestSpansHoldNothingThatTheCallerSent(t *testing.T) {
	receiver := newSpanReceiver(t)
	edge, _, _ := startRecordingEdge(t, exportTo(t, receiver.URL))
	const secret = "canary-text"
	for _, r := range []*http.Request{
		request(t, http.MethodGet, edge.url+streamPath+"?conversationId="+secret, validToken(t), nil, "X-Request-Id", secret),
		request(t, http.MethodPost, edge.url+unaryPath, secret, strings.NewReader(secret), "User-Agent", secret),
		request(t, http.MethodPost, edge.url+"/"+secret, "", nil),
		request(t, secret, edge.url+unaryPath, "", nil),
	} {
		do(t, r)
	}
	stopped(t, edge)
	names := map[string]bool{}
	for _, span := range receiver.spans {
		names[span.Name] = true
	}
	for _, want := range []string{"GET " + streamPath, "POST " + unaryPath, "POST unmatched", "_OTHER unmatched"} {
		if !names[want] {
			t.Errorf("no span %q among %v", want, names)
		}
	}
	for _, text := range []string{secret, validToken(t)[:20], sidecarToken} {
		if strings.Contains(string(receiver.raw), text) {
			t.Errorf("%q was exported", text)
		}
	}
}

func TestAStreamsSpansEndWithTheStream(t *testing.T) {
	receiver := newSpanReceiver(t)
	next := make(chan string)
	handle, _ := eventStream(next)
	edge := startEdge(t, newFakeSidecar(t, handle).URL, exportTo(t, receiver.URL))
	ctx, leave := context.WithCancel(t.Context())
	open(t, ctx, edge, http.MethodPost)
	begun := time.Now()
	next <- "id: 1\n\n"
	post(t, edge, publicPath, "") // a later span is exported while the stream is open
	receiver.find(t, otlp.Span_SPAN_KIND_SERVER, publicPath)
	receiver.mu.Lock()
	for _, span := range receiver.spans {
		if span.Name == "POST "+streamPath {
			t.Error("the span ended before the stream")
		}
	}
	receiver.spans = nil
	receiver.mu.Unlock()
	leave()
	server, client := receiver.findBoth(t, streamPath, streamMethod)
	for _, span := range []*otlp.Span{server, client} {
		if span.EndTimeUnixNano < uint64(begun.UnixNano()) || hexOf(span.TraceId) != hexOf(server.TraceId) {
			t.Errorf("span: %v", span)
		}
	}
	if server.Name != "POST "+streamPath {
		t.Errorf("span: %v", server)
	}
}

func TestAFailedCallIsAnErrorInItsSpans(t *testing.T) {
	receiver := newSpanReceiver(t)
	sidecar := newFakeSidecar(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	edge := startEdge(t, sidecar.URL, exportTo(t, receiver.URL))
	post(t, edge, unaryPath, validToken(t)).wantError(t, 503, codeUnavailable)
	server, client := receiver.findBoth(t, unaryPath, unaryMethod)
	if server.Status.Code != otlp.Status_STATUS_CODE_ERROR || valueOf(server.Attributes, "error.type").GetStringValue() != "503" {
		t.Errorf("server span: %v", server)
	}
	if client.Status.Code != otlp.Status_STATUS_CODE_ERROR || valueOf(client.Attributes, "error.type").GetStringValue() != "connection" {
		t.Errorf("client span: %v", client)
	}
}

func TestHealthProbesHaveNoSpan(t *testing.T) {
	receiver := newSpanReceiver(t)
	edge, _, _ := startRecordingEdge(t, exportTo(t, receiver.URL))
	do(t, request(t, http.MethodGet, edge.url+healthPath, "", nil))
	do(t, request(t, http.MethodGet, edge.url+"/docs", "", nil))
	stopped(t, edge)
	if len(receiver.spans) != 1 || receiver.spans[0].Name != "GET /docs" {
		t.Errorf("spans: %v", receiver.spans)
	}
}

func TestACollectorThatIsDownDelaysNoCallAndNoShutdown(t *testing.T) {
	receiver := newSpanReceiver(t)
	receiver.Close()
	edge, _, _ := startRecordingEdge(t, exportTo(t, receiver.URL))
	if got := post(t, edge, unaryPath, validToken(t)); got.status != 200 {
		t.Errorf("got %d", got.status)
	}
	began := time.Now()
	stopped(t, edge)
	if took := time.Since(began); took > traceFlushTimeout+5*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
}

func TestWithoutAnEndpointNothingIsRecorded(t *testing.T) {
	handle, _ := recordingHandler()
	settings, err := readSettings(func(name string) string {
		return map[string]string{"EDGE_SIDECAR_URL": newFakeSidecar(t, handle).URL}[name]
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEdge(settings, slog.New(slog.DiscardHandler))
	if err != nil || e.tracing.provider != nil || e.tracing.tracer != nil {
		t.Errorf("%v %v", e.tracing, err)
	}
	r := request(t, http.MethodPost, "http://edge"+unaryPath, "", nil, "Traceparent", "00-"+clientTraceID+"-"+clientSpanID+"-00")
	c := &call{}
	if same, span := e.tracing.beginRequest(r, c); same != r || span != nil || c.traceID != clientTraceID {
		t.Errorf("%v %v", span, c.traceID)
	}
}

func TestTheEdgesOwnCallsOfAuthHaveClientSpans(t *testing.T) {
	receiver := newSpanReceiver(t)
	edge, sidecar, _ := startRecordingEdge(t, exportTo(t, receiver.URL))
	key := newAPIKey()
	sidecar.setVerification(key, validVerification())
	parent := []string{"Traceparent", "00-" + clientTraceID + "-" + clientSpanID + "-01"}
	post(t, edge, unaryPath, key, parent...)
	server := receiver.find(t, otlp.Span_SPAN_KIND_SERVER, unaryPath)
	for _, path := range []string{invokeVerify, invokeList} {
		client := receiver.find(t, otlp.Span_SPAN_KIND_CLIENT, path)
		if client.Name != "POST "+path || hexOf(client.TraceId) != clientTraceID || hexOf(client.ParentSpanId) != hexOf(server.SpanId) ||
			valueOf(client.Attributes, "yocaso.app").GetStringValue() != "auth" ||
			valueOf(client.Attributes, "http.response.status_code").GetIntValue() != 200 {
			t.Errorf("span: %v", client)
		}
	}
	post(t, edge, unaryPath, validToken(t), parent...)
	if client := receiver.find(t, otlp.Span_SPAN_KIND_CLIENT, invokeJWKS); client.Name != "GET "+invokeJWKS {
		t.Errorf("span: %v", client)
	}
	sidecar.authDown.Store(true)
	post(t, edge, unaryPath, newAPIKey()).wantError(t, 503, codeUnavailable)
	eventually(t, "a failed span", func() bool {
		client := receiver.find(t, otlp.Span_SPAN_KIND_CLIENT, invokeVerify)
		return valueOf(client.Attributes, "error.type").GetStringValue() == "500"
	})
	stopped(t, edge)
	if strings.Contains(string(receiver.raw), key) {
		t.Error("a key was exported")
	}
}

// stopped stops an edge, which exports the spans that are left.
func stopped(t testing.TB, edge *runningEdge) {
	t.Helper()
	http.DefaultClient.CloseIdleConnections()
	edge.stop()
	receive(t, edge.done, "the edge to stop")
}

func hexOf(id []byte) string { return hex.EncodeToString(id) }
