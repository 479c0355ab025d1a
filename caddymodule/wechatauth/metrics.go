package wechatauth

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// Result is a decision as the metric names it.
type Result string

// The results. Those that refuse a token tell the operator what the client does not
// learn.
const (
	Public      Result = "public"
	Guest       Result = "guest"
	Accepted    Result = "accepted"
	Missing     Result = "missing"
	Malformed   Result = "malformed"
	Forged      Result = "forged"
	Unknown     Result = "unknown"
	Expired     Result = "expired"
	Revoked     Result = "revoked"
	OtherApp    Result = "app_not_allowed"
	Ambiguous   Result = "ambiguous_credentials"
	BadTrailer  Result = "bad_trailer"
	NotFound    Result = "not_found"
	Early       Result = "too_early"
	StoreDown   Result = "store_unavailable"
	BadIdentity Result = "broken_identity"
	NotPlatform Result = "not_the_platform"
	LocalDebug  Result = "local_debug"
	Preflight   Result = "preflight"
)

var results = []Result{
	Public, Guest, Accepted, Missing, Malformed, Forged, Unknown, Expired, Revoked, OtherApp,
	Ambiguous, BadTrailer, NotFound, Early, StoreDown, BadIdentity, NotPlatform, LocalDebug,
	Preflight,
}

// pushResult is what became of a push, as the metric names it.
type pushResult string

// The results of pushes. Those that refuse one tell the operator what the caller does
// not learn.
const (
	pushTaken     pushResult = "taken"
	pushRepeated  pushResult = "repeated"
	pushFailed    pushResult = "failed"
	pushMalformed pushResult = "malformed"
	pushForged    pushResult = "wrong_signature"
	pushUnopened  pushResult = "not_decrypted"
	pushForeign   pushResult = "other_receiver"
	pushLate      pushResult = "late"
)

// pushEvent is what a push tells, as the metric names it.
type pushEvent string

// The events of pushes.
const (
	eventNone      pushEvent = "none" // it was not read
	eventProof     pushEvent = "proof_of_url"
	eventCancelled pushEvent = "user_cancelled"
	eventRevoked   pushEvent = "user_revoked"
	eventModified  pushEvent = "user_modified"
	eventTicket    pushEvent = "ticket"
	eventMerchant  pushEvent = "authorisation" // of a third-party platform, or its end
	eventOther     pushEvent = "other"
)

func eventOf(m push.Message) pushEvent {
	switch m.Event {
	case push.UserCancelled:
		return eventCancelled
	case push.UserRevoked:
		return eventRevoked
	case push.UserModified:
		return eventModified
	}
	switch m.InfoType {
	case push.VerifyTicket:
		return eventTicket
	case push.Authorized, push.UpdateAuthorized, push.Unauthorized:
		return eventMerchant
	}
	return eventOther
}

// metrics are made once a process and registered with each configuration, whose
// registry is new, so that counts go on through a reload
// (docs/caddy.md#metrics). Labels come from closed sets.
var metrics = newCollectors()

type collectors struct {
	decisions      *prometheus.CounterVec
	decisionBy     map[Result]prometheus.Counter
	logins         *prometheus.CounterVec
	loginLimits    *prometheus.CounterVec
	loginDuration  prometheus.Histogram
	endpointCalls  *prometheus.CounterVec
	pushes         *prometheus.CounterVec
	droppedOptions prometheus.Counter
}

func newCollectors() *collectors {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: name, Help: help,
		}
	}
	c := &collectors{
		decisions: prometheus.NewCounterVec(
			opts("decisions_total", "Requests by what the gate decided."), []string{"result"}),
		logins: prometheus.NewCounterVec(opts("logins_total", "Calls of the login endpoint "+
			"by result: ok, replayed, client_gone, or the code of the problem."),
			[]string{"result"}),
		loginLimits: prometheus.NewCounterVec(opts("login_limits_total",
			"Logins that a limit of the gate refused: client, refused_codes, global, in_flight "+
				"or merchant."),
			[]string{"limit"}),
		loginDuration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "login_duration_seconds",
			Help:    "Duration of successful logins, WeChat and the store included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		endpointCalls: prometheus.NewCounterVec(opts("endpoint_calls_total",
			"Calls of the gate's endpoints but login, as far as no session or rule refused "+
				"them: ok, client_gone, or the code of the problem."),
			[]string{"endpoint", "result"}),
		pushes: prometheus.NewCounterVec(opts("pushes_total",
			"Calls of the endpoint push by event and result."), []string{"event", "result"}),
		droppedOptions: prometheus.NewCounter(opts("dropped_connection_options_total",
			"Connection options that would have removed headers on the way to the app.")),
		decisionBy: make(map[Result]prometheus.Counter),
	}
	for _, r := range results {
		c.decisionBy[r] = c.decisions.WithLabelValues(string(r))
	}
	return c
}

// register adds the collectors to a configuration's registry.
func (c *collectors) register(reg *prometheus.Registry) error {
	return wechatapp.RegisterMetrics(reg, c.decisions, c.logins, c.loginLimits,
		c.loginDuration, c.endpointCalls, c.pushes, c.droppedOptions)
}

// called counts a call of an endpoint. Its name comes from the table of endpoints.
func (c *collectors) called(endpoint, result string) {
	name := strings.TrimSuffix(endpoint, "/")
	if strings.HasPrefix(endpoint, componentPrefix) {
		name = "component" // whichever: AppIDs are no label
	}
	c.endpointCalls.WithLabelValues(name, result).Inc()
}

func (c *collectors) decided(r Result) { c.decisionBy[r].Inc() }

func (c *collectors) pushed(event pushEvent, result pushResult) {
	c.pushes.WithLabelValues(string(event), string(result)).Inc()
}
