package span_test

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/wxgate/wxgate/caddymodule/internal/span"
)

// recorded returns a context with a span that records, and what ended below it.
func recorded(t *testing.T) (context.Context, func() []sdk.ReadOnlySpan) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	t.Cleanup(func() { provider.Shutdown(context.Background()) })
	ctx, parent := provider.Tracer("test").Start(t.Context(), "request")
	t.Cleanup(func() { parent.End() })
	return ctx, recorder.Ended
}

func TestCall_Recorded_IsAChild(t *testing.T) {
	ctx, ended := recorded(t)
	for _, failed := range []bool{false, true} {
		inner, call := span.Start(ctx, "wechat", "code2session")
		_, nested := span.Start(inner, "session store", "login")
		nested.End("ok", false)
		call.About("wechat.appid", "wx0123456789abcdef")
		call.End("unavailable", failed)
	}
	got := ended()
	if len(got) != 4 {
		t.Fatalf("%d spans", len(got))
	}
	for i, failed := range []bool{false, true} {
		nested, call := got[2*i], got[2*i+1]
		if call.Name() != "wechat code2session" || nested.Name() != "session store login" ||
			nested.Parent().SpanID() != call.SpanContext().SpanID() ||
			call.Parent().TraceID() != call.SpanContext().TraceID() {
			t.Errorf("%q under %q", nested.Name(), call.Name())
		}
		want := attribute.NewSet(attribute.String("peer.service", "wechat"),
			attribute.String("wechat.appid", "wx0123456789abcdef"),
			attribute.String("wxgate.result", "unavailable"))
		if set := attribute.NewSet(call.Attributes()...); !set.Equals(&want) {
			t.Errorf("attributes %v", call.Attributes())
		}
		if got := call.Status().Code == codes.Error; got != failed {
			t.Errorf("failed %v: status %v", failed, call.Status())
		}
	}
}

// TestUnder_OtherContext_CarriesTheSpanAlone: work that outlives a request ends with
// its own context.
func TestUnder_OtherContext_CarriesTheSpanAlone(t *testing.T) {
	ctx, ended := recorded(t)
	request, cancel := context.WithCancel(ctx)
	cancel()
	own := span.Under(t.Context(), request)
	if own.Err() != nil {
		t.Error("it ends with the request")
	}
	_, call := span.Start(own, "wechat", "stable_token")
	call.End("ok", false)
	if got := ended(); len(got) != 1 || !got[0].Parent().IsValid() {
		t.Errorf("spans %v", got)
	}
}

// TestP8_NoTracing_CostsNothing: without a span that records, nothing is made.
func TestP8_NoTracing_CostsNothing(t *testing.T) {
	ctx := t.Context()
	n := testing.AllocsPerRun(100, func() {
		under, call := span.Start(span.Under(ctx, ctx), "wechat", "code2session")
		call.About("server.address", "api.weixin.qq.com")
		call.End("ok", false)
		if under != ctx {
			t.Error("the context is another one")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
