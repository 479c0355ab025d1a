package caddymodule

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// apiMetrics count the calls of apps, as metrics do what else there is to count. The label path comes from the configuration: a pattern of an allow-list, a user call, or other.
var apiMetrics = newAPICollectors()

type apiCollectors struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newAPICollectors() *apiCollectors {
	return &apiCollectors{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "api_calls_total",
			Help: "Calls of apps to WeChat by pattern of the path and result: ok, token_refused, broken_off, client_gone, or the code of the problem.",
		}, []string{"path", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "api_call_duration_seconds",
			Help:    "Duration of calls of apps to WeChat, to the end of the answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"path"}),
	}
}

// register makes the collectors visible in a configuration's registry.
func (c *apiCollectors) register(reg *prometheus.Registry) error {
	for _, col := range []prometheus.Collector{c.calls, c.duration} {
		if err := reg.Register(col); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// done counts one call.
func (c *apiCollectors) done(call *apiCall, d time.Duration) {
	c.calls.WithLabelValues(call.name, call.result).Inc()
	c.duration.WithLabelValues(call.name).Observe(d.Seconds())
}
