package e2e_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traceSink is what collects traces: OTLP over HTTP.
type traceSink struct {
	url string

	mu    sync.Mutex
	raw   strings.Builder // all that it was sent
	spans []*trace.Span
}

func newTraceSink(tb testing.TB) *traceSink {
	s := new(traceSink)
	server := httptest.NewServer(s)
	tb.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// ServeHTTP takes one batch.
func (s *traceSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var batch collector.ExportTraceServiceRequest
	if err != nil || proto.Unmarshal(body, &batch) != nil {
		http.Error(w, "no traces", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(body)
	for _, resource := range batch.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.spans = append(s.spans, scope.GetSpans()...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// env makes a gate send its traces here, at once.
func (s *traceSink) env() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.url, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_BSP_SCHEDULE_DELAY=50", "OTEL_SERVICE_NAME=wxgate",
	}
}

// text returns all bytes that came.
func (s *traceSink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.raw.String()
}

// below returns the spans under one of a name, by name and result.
func (s *traceSink) below(name string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[string]string)
	for _, parent := range s.spans {
		if parent.GetName() != name {
			continue
		}
		for _, child := range s.spans {
			if string(child.GetParentSpanId()) != string(parent.GetSpanId()) {
				continue
			}
			for _, a := range child.GetAttributes() {
				if a.GetKey() == "wxgate.result" {
					found[child.GetName()] = a.GetValue().GetStringValue()
				}
			}
		}
	}
	return found
}
