package wechatapp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zapcore"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/logformat"
)

// metrics are made once a process and registered with each configuration, whose
// registry is new, so that counts go on through a reload
// (docs/caddy.md#metrics). Labels come from closed sets.
var metrics = newCollectors()

type collectors struct {
	wechatCalls    *prometheus.CounterVec
	wechatDuration *prometheus.HistogramVec
	cacheHits      prometheus.Counter
	cacheMisses    prometheus.Counter
	foreignRecords prometheus.Counter
	damagedStores  prometheus.Counter
	commits        prometheus.Histogram
	storeCalls     *prometheus.HistogramVec
	pushDeliveries *prometheus.CounterVec
	logEvents      *prometheus.CounterVec
	loginsInFlight *level
	openStreams    *level
	endedStreams   prometheus.Counter
	storeUp        prometheus.GaugeFunc
	droppedLines   prometheus.CounterFunc
}

// level is a gauge with a readable value.
type level struct {
	atomic.Int64
	prometheus.GaugeFunc
}

func newLevel(opts prometheus.GaugeOpts) *level {
	l := new(level)
	l.GaugeFunc = prometheus.NewGaugeFunc(opts, func() float64 { return float64(l.Load()) })
	return l
}

func newCollectors() *collectors {
	opts := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: name, Help: help,
		}
	}
	return &collectors{
		wechatCalls: prometheus.NewCounterVec(
			opts("weixin_calls_total", "Calls of WeChat's API by name and class of outcome."),
			[]string{"call", "class"}),
		wechatDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "weixin_call_duration_seconds",
			Help:    "Duration of calls of WeChat's API, retry included.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"call"}),
		cacheHits: prometheus.NewCounter(
			opts("cache_hits_total", "Token checks that the cache answered.")),
		cacheMisses: prometheus.NewCounter(
			opts("cache_misses_total", "Token checks that asked the store.")),
		foreignRecords: prometheus.NewCounter(opts("foreign_records_total",
			"Records in the session store that no gate wrote: somebody else can write to it.")),
		damagedStores: prometheus.NewCounter(opts("damaged_stores_total",
			"Damaged or lost session stores, begun anew: all users had to log in again.")),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "store_commit_duration_seconds",
			Help:    "Duration of the bolt store's commits, failed ones too.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 10},
		}),
		storeCalls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "caddy", Subsystem: "wechat", Name: "store_call_duration_seconds",
			Help: "Duration of the store's look-ups and logins by result: ok, unavailable " +
				"or canceled.",
			Buckets: []float64{.00025, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 5, 10},
		}, []string{"call", "result"}),
		logEvents: prometheus.NewCounterVec(opts("log_events_total",
			"Warnings and errors that the gate has logged, by the event before its first "+
				"colon or semicolon; refusals of requests have metrics of their own."),
			[]string{"level", "event"}),
		pushDeliveries: prometheus.NewCounterVec(opts("push_deliveries_total",
			"Attempts to deliver a push or an event to the app: delivered or failed; "+
				"dropped after a day, an event after 7."),
			[]string{"result"}),
		loginsInFlight: newLevel(prometheus.GaugeOpts(
			opts("logins_in_flight", "Logins under way."))),
		openStreams: newLevel(prometheus.GaugeOpts(opts("streams",
			"Requests with a session that have gone on for a while, WebSockets among them."))),
		endedStreams: prometheus.NewCounter(opts("streams_ended_total",
			"WebSockets and other streams closed because their session ended.")),
		storeUp: prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("store_up",
			"1 while the session store takes logins of this gate, else 0.")), storeUp),
		droppedLines: prometheus.NewCounterFunc(opts("log_lines_dropped_total",
			"Log lines that standard error or output did not take in time."),
			func() float64 { return float64(logformat.Dropped()) }),
	}
}

// register adds the collectors to a configuration's registry.
func (c *collectors) register(reg *prometheus.Registry) error {
	return RegisterMetrics(reg, c.wechatCalls, c.wechatDuration, c.cacheHits, c.cacheMisses,
		c.foreignRecords, c.pushDeliveries,
		c.damagedStores,
		c.commits,
		c.storeCalls,
		c.logEvents,
		c.loginsInFlight,
		c.openStreams,
		c.endedStreams,
		weChatGauges{},
		c.storeUp,
		c.droppedLines,
		storeGauges{},
		componentGauges{},
	)
}

// storeUp asks the store of the running configuration at each scrape.
func storeUp() float64 {
	live := current()
	if live == nil {
		return 0
	}
	if _, err := live.Sessions.Ready(context.Background()); err != nil {
		return 0
	}
	return 1
}

// RegisterMetrics adds collectors to a configuration's registry. Several handlers of one
// configuration may add the same ones.
func RegisterMetrics(reg *prometheus.Registry, collectors ...prometheus.Collector) error {
	for _, c := range collectors {
		err := reg.Register(c)
		if err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

func (c *collectors) observeCommit(d time.Duration) { c.commits.Observe(d.Seconds()) }

func (c *collectors) observeStore(call session.StoreCall) {
	c.storeCalls.WithLabelValues(call.Name, call.Result).Observe(call.Took.Seconds())
}

// countEvent counts a log line. Its message is a constant of the code, and what follows
// a colon or a semicolon is advice.
func (c *collectors) countEvent(e zapcore.Entry) {
	if e.Level < zapcore.WarnLevel {
		return
	}
	event := e.Message
	if i := strings.IndexAny(event, ":;"); i >= 0 {
		event = event[:i]
	}
	c.logEvents.WithLabelValues(e.Level.String(), event).Inc()
}

// classBreakerOpen labels the calls that the open circuit breaker refused.
const classBreakerOpen = "breaker_open"

func (c *collectors) observeWeChat(call weixin.Call) {
	if call.Refused {
		c.wechatCalls.WithLabelValues(call.Name, classBreakerOpen).Inc()
		return // it took no time, which would hide the time that calls take
	}
	c.wechatCalls.WithLabelValues(call.Name, call.Class.String()).Inc()
	c.wechatDuration.WithLabelValues(call.Name).Observe(call.Duration.Seconds())
}

// weChatGauges collects how the WeChat client of the current configuration fares.
type weChatGauges struct{}

var (
	breakerOpenDesc = describe("weixin_breaker_open",
		"1 while the circuit breaker refuses calls of WeChat's API.", "calls")
	weChatDownDesc = describe("weixin_down",
		"How WeChat's API fares: 0 well, 0.5 partly unavailable, 1 unavailable.", "calls")
	lastSuccessDesc = describe("weixin_last_success_timestamp_seconds",
		"Unix time of the last successful call of WeChat's API; absent before the first.", "calls")
	clockAheadDesc = describe("weixin_clock_ahead_seconds",
		"How far WeChat's clock is ahead of this machine's; absent before the first answer.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_wechat_"+name, help, labels, nil)
}

// gaugesTo returns how a Collect sends the value of a gauge.
func gaugesTo(ch chan<- prometheus.Metric) func(*prometheus.Desc, float64, ...string) {
	return func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (weChatGauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- breakerOpenDesc
	ch <- weChatDownDesc
	ch <- lastSuccessDesc
	ch <- clockAheadDesc
}

// Collect implements prometheus.Collector.
func (weChatGauges) Collect(ch chan<- prometheus.Metric) {
	live := current()
	if live == nil {
		return
	}
	gauge := gaugesTo(ch)
	calls := func(label string, h weixin.Health, open bool) {
		gauge(breakerOpenDesc, oneIf(open), label)
		down := map[weixin.State]float64{weixin.Partly: .5, weixin.Down: 1}[h.State]
		gauge(weChatDownDesc, down, label)
		if !h.LastSuccess.IsZero() {
			gauge(lastSuccessDesc, float64(h.LastSuccess.Unix()), label)
		}
	}
	calls("logins", live.WeChat.Logins(), live.WeChat.BreakerOpen())
	calls("others", live.WeChat.OtherCalls(), live.WeChat.OtherBreakerOpen())
	if c := live.WeChat.Clock(); !c.At.IsZero() {
		gauge(clockAheadDesc, c.Ahead.Seconds())
	}
}

// storeGauges collects the state of sessions and store when the metrics are asked for.
// A store that does not keep count has no sizes, since counting would read all of it.
type storeGauges struct{}

var (
	cacheEntries = describe("cache_entries", "Sessions in the cache.")
	cacheMax     = describe("cache_max_entries", "Sessions that the cache may hold.")
	pendingDesc  = describe("revocations_pending",
		"Revocations that this gate holds and the store has not taken yet.")
	heardDesc = describe("store_last_heard_timestamp_seconds",
		"Time of the last sign of life of a store that gates share.")
	storeAheadDesc = describe("store_clock_ahead_seconds", "How far this machine's clock is "+
		"ahead of that of a store that gates share; 0 up to a second.")
	keyMissingDesc = describe("master_key_missing",
		"1 while sessions of other gates need a master key that this gate lacks, else 0.")
	assertionDesc = describe("assertion_key_known",
		"1 while there is a key to sign assertions with, else 0; absent when no site signs.")
	storeSessions = describe("store_sessions", "Sessions in the store, with ended ones.")
	storeUsers    = describe("store_users", "Users in the store.")
	storeBytes    = describe("store_bytes", "Size of the store's file.")
	storeFree     = describe("store_free_bytes", "Free part of the store's file.")
	storeBackup   = describe("store_last_backup_timestamp_seconds",
		"Time of the last backup through the gate.")
)

// Describe implements prometheus.Collector.
func (storeGauges) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		cacheEntries, cacheMax, pendingDesc, heardDesc, storeAheadDesc, keyMissingDesc,
		assertionDesc,
		storeSessions, storeUsers, storeBytes, storeFree, storeBackup,
	} {
		out <- d
	}
}

// storeGaugeTimeout bounds what a scrape waits for the store.
const storeGaugeTimeout = time.Second

// Collect implements prometheus.Collector.
func (storeGauges) Collect(out chan<- prometheus.Metric) {
	live := current()
	if live == nil {
		return
	}
	gauge := gaugesTo(out)
	local := live.Sessions.Local()
	gauge(cacheEntries, float64(local.CacheEntries))
	gauge(cacheMax, float64(local.CacheMax))
	gauge(pendingDesc, float64(local.Pending))
	gauge(keyMissingDesc, oneIf(live.App.keyMissing.Load()))
	if live.Assertions != nil {
		gauge(assertionDesc, oneIf(live.Assertions.Known()))
	}
	if !local.Heard.IsZero() {
		gauge(heardDesc, float64(local.Heard.UnixMilli())/1000)
		gauge(storeAheadDesc, local.Contact.ClockAhead.Seconds())
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeGaugeTimeout)
	defer cancel()
	st, ok := live.Sessions.Counts(ctx)
	if !ok {
		return
	}
	gauge(storeSessions, float64(st.Sessions))
	gauge(storeUsers, float64(st.Users))
	gauge(storeBytes, float64(st.Bytes))
	gauge(storeFree, float64(st.FreeBytes))
	if !st.LastBackup.IsZero() {
		gauge(storeBackup, float64(st.LastBackup.UnixMilli())/1000)
	}
}
