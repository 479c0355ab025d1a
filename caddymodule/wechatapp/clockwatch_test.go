package wechatapp

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// TestClockWatch_EachChange_IsToldOnce: a jump is one line, and so is a clock that was
// never set; what NTP does slowly is none.
func TestClockWatch_EachChange_IsToldOnce(t *testing.T) {
	const jumped = "clock of this machine jumped"
	const unset, set = "clock of this machine is not set", "clock of this machine is set"
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	boot := time.Unix(3, 0)
	type look struct {
		wall   time.Time
		passed time.Duration
	}
	for name, tt := range map[string]struct {
		looks []look
		want  []string
	}{
		"steady": {[]look{{begin, 0}, {begin.Add(time.Second), time.Second}}, nil},
		"slewed": {[]look{{begin, 0}, {begin.Add(2 * time.Second), time.Second}}, nil},
		"ahead and back": {[]look{
			{begin, 0},
			{begin.AddDate(10, 0, 0), time.Second},
			{begin.AddDate(10, 0, 0).Add(time.Second), time.Second},
			{begin.Add(3 * time.Second), time.Second},
		}, []string{jumped, jumped}},
		"booted without a clock": {[]look{
			{boot, 0}, {boot.Add(time.Second), time.Second}, {begin, time.Second},
		}, []string{unset, jumped, set}},
	} {
		t.Run(name, func(t *testing.T) {
			core, lines := observer.New(zap.InfoLevel)
			var w clockWatch
			for _, l := range tt.looks {
				w.tell(zap.New(core), l.wall, l.passed)
			}
			got := lines.All()
			if len(got) != len(tt.want) {
				t.Fatalf("%d lines, want %d: %v", len(got), len(tt.want), got)
			}
			for i, line := range got {
				if line.Message != tt.want[i] {
					t.Errorf("line %d: %q, want %q", i, line.Message, tt.want[i])
				}
			}
		})
	}
}

// TestWeChatClock_Differs_IsToldOnce: and once when it agrees again; a difference near the
// limit, which is known to about a second, makes no lines.
func TestWeChatClock_Differs_IsToldOnce(t *testing.T) {
	core, lines := observer.New(zap.InfoLevel)
	var w weChatClock
	for _, ahead := range []time.Duration{0, 4, 5, -6, -4, -6, 90, -3, -2, 0, 4} {
		w.tell(zap.New(core), weixin.Clock{Ahead: ahead * time.Second})
	}
	var got []string
	for _, line := range lines.All() {
		got = append(got, line.Message)
	}
	want := []string{
		"clock of this machine differs from WeChat's",
		"clock of this machine agrees with WeChat's again",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
