package wechatapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// metrics count the calls of apps, as metrics do what else there is to count.
// The label path comes from the configuration: a pattern of an allow-list, a
// user call, or other.
var metrics = newCollectors()

type collectors struct {
	calls    *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newCollectors() *collectors {
	return &collectors{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "api_calls_total",
			Help: "Calls of apps to WeChat by pattern of the path and result: ok, " +
				"token_refused, broken_off, client_gone, or the code of the problem.",
		}, []string{"path", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "api_call_duration_seconds",
			Help:    "Duration of calls of apps to WeChat, to the end of the answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"path"}),
	}
}

// register makes the collectors visible in a configuration's registry.
func (c *collectors) register(reg *prometheus.Registry) error {
	return wechatapp.RegisterMetrics(reg, c.calls, c.duration)
}

// done counts one call.
func (c *collectors) done(call *apiCall, d time.Duration) {
	c.calls.WithLabelValues(call.name, call.result).Inc()
	c.duration.WithLabelValues(call.name).Observe(d.Seconds())
}
