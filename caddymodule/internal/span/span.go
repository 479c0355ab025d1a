// Package span owns the child spans of a request that Caddy's directive `tracing`
// follows: one for each call that a request waits for. It records names that the code
// chooses, and nothing that a client, WeChat or a store says.
//
// It must not know what is called. Where no span records, it does nothing.
package span

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer names the code that makes the spans.
const tracer = "github.com/wxgate/wxgate"

// Call is a call that another program answers. The zero Call is no span.
type Call struct{ span trace.Span }

// Start begins a span under that of ctx: "<peer> <name>". The peer is that of the
// attribute peer.service.
func Start(ctx context.Context, peer, name string) (context.Context, Call) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Call{}
	}
	ctx, s := parent.TracerProvider().Tracer(tracer).Start(ctx, peer+" "+name,
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("peer.service", peer)))
	return ctx, Call{s}
}

// About adds an attribute. Its value must be no secret and name no user.
func (c Call) About(name, value string) {
	if c.span != nil {
		c.span.SetAttributes(attribute.String(name, value))
	}
}

// End ends the span with a result, which is a constant of the code.
func (c Call) End(result string, failed bool) {
	if c.span == nil {
		return
	}
	c.span.SetAttributes(attribute.String("wxgate.result", result))
	if failed {
		c.span.SetStatus(codes.Error, result)
	}
	c.span.End()
}

// Under returns ctx with the span of another context, for work that outlives the call
// which begins it.
func Under(ctx, of context.Context) context.Context {
	parent := trace.SpanFromContext(of)
	if !parent.IsRecording() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, parent)
}
