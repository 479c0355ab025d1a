package caddymodule

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// metrics are made once a process and registered again with each configuration, whose registry is new: counts go on through a reload (CADDY.md 1.8). Labels come from closed sets.
var metrics = newCollectors()

type collectors struct {
	decisions      *prometheus.CounterVec
	decisionBy     map[result]prometheus.Counter
	logins         *prometheus.CounterVec
	endpointCalls  *prometheus.CounterVec
	wechatCalls    *prometheus.CounterVec
	wechatDuration *prometheus.HistogramVec
	cacheHits      prometheus.Counter
	cacheMisses    prometheus.Counter
	droppedOptions prometheus.Counter
	damagedStores  prometheus.Counter
	loginsInFlight *level
}

// level is a gauge whose value can be read.
type level struct {
	atomic.Int64
	prometheus.GaugeFunc
}

func newLevel(opts prometheus.GaugeOpts) *level {
	l := new(level)
	l.GaugeFunc = prometheus.NewGaugeFunc(opts, func() float64 { return float64(l.Load()) })
	return l
}

// result is how the gate decided about a request to the app.
type result string

// The results. Those that refuse a token tell the operator what the client is not told.
const (
	resultPublic     result = "public"
	resultGuest      result = "guest"
	resultAccepted   result = "accepted"
	resultMissing    result = "missing"
	resultMalformed  result = "malformed"
	resultForged     result = "forged"
	resultUnknown    result = "unknown"
	resultExpired    result = "expired"
	resultRevoked    result = "revoked"
	resultOtherApp   result = "app_not_allowed"
	resultAmbiguous  result = "ambiguous_credentials"
	resultBadTrailer result = "bad_trailer"
	resultNotFound   result = "not_found"
	resultStoreDown  result = "store_unavailable"
	resultBroken     result = "broken_identity"
	resultNotCloud   result = "not_the_platform"
	resultLocalDebug result = "local_debug"
)

func newCollectors() *collectors {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "caddy", Subsystem: "wechat", Name: name, Help: help}
	}
	c := &collectors{
		decisions:     prometheus.NewCounterVec(opts("decisions_total", "Requests by what the gate decided."), []string{"result"}),
		logins:        prometheus.NewCounterVec(opts("logins_total", "Calls of the login endpoint by result: ok, replayed, client_gone, or the code of the problem."), []string{"result"}),
		endpointCalls: prometheus.NewCounterVec(opts("endpoint_calls_total", "Calls of the endpoints decrypt and phone with a good session, by result: ok, client_gone, or the code of the problem."), []string{"endpoint", "result"}),
		wechatCalls:   prometheus.NewCounterVec(opts("weixin_calls_total", "Calls of WeChat's API by name and class of outcome."), []string{"call", "class"}),
		wechatDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "weixin_call_duration_seconds",
			Help:    "Duration of calls of WeChat's API, retry included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"call"}),
		cacheHits:      prometheus.NewCounter(opts("cache_hits_total", "Token checks answered by the cache.")),
		cacheMisses:    prometheus.NewCounter(opts("cache_misses_total", "Token checks that had to ask the store.")),
		droppedOptions: prometheus.NewCounter(opts("dropped_connection_options_total", "Connection options that would have removed headers on the way to the app.")),
		damagedStores:  prometheus.NewCounter(opts("damaged_stores_total", "Session stores that were found damaged and set aside, or gone, and begun anew: everybody had to log in again.")),
		loginsInFlight: newLevel(prometheus.GaugeOpts(opts("logins_in_flight", "Logins under way."))),
		decisionBy:     make(map[result]prometheus.Counter),
	}
	for _, r := range []result{
		resultPublic, resultGuest, resultAccepted, resultMissing, resultMalformed, resultForged, resultUnknown, resultExpired, resultRevoked,
		resultOtherApp, resultAmbiguous, resultBadTrailer, resultNotFound, resultStoreDown, resultBroken, resultNotCloud, resultLocalDebug,
	} {
		c.decisionBy[r] = c.decisions.WithLabelValues(string(r))
	}
	return c
}

// register makes the collectors visible in a configuration's registry.
func (c *collectors) register(reg *prometheus.Registry) error {
	for _, col := range []prometheus.Collector{c.decisions, c.logins, c.endpointCalls, c.wechatCalls, c.wechatDuration, c.cacheHits, c.cacheMisses, c.droppedOptions, c.damagedStores, c.loginsInFlight} {
		if err := reg.Register(col); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

func (c *collectors) decided(r result) { c.decisionBy[r].Inc() }

func (c *collectors) observeWeChat(call weixin.Call) {
	c.wechatCalls.WithLabelValues(call.Name, call.Class.String()).Inc()
	c.wechatDuration.WithLabelValues(call.Name).Observe(call.Duration.Seconds())
}
