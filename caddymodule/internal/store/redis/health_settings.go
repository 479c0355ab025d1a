package redis

import (
	"context"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

// checkSettings warns, once each, of what makes a server lose sessions. One that does not tell its settings is left in peace.
func (l *link) checkSettings(ctx context.Context, t *tracker) {
	if !atLeast(t.version, 6, 2) {
		l.warn(t, "version", "this server is older than any that wxgate is tested with", zap.String("version", t.version), zap.String("cure", "use Redis 6.2 or later, or Valkey"))
	}
	if policy, ok := t.setting(ctx, "maxmemory-policy"); ok && policy != "noeviction" {
		l.warn(
			t, "maxmemory-policy", "this server throws away sessions when its memory is full",
			zap.String("maxmemory-policy", policy), zap.String("cure", "set maxmemory-policy noeviction"),
		)
	}
	if aof, ok := t.setting(ctx, "appendonly"); ok && aof != "yes" {
		l.warn(t, "appendonly", "this server loses sessions and revocations when it restarts", zap.String("cure", "set appendonly yes"))
	}
}

// warn logs a finding about a server unless it has been logged before: a server that comes and goes is warned of once.
func (l *link) warn(t *tracker, what, text string, fields ...zap.Field) {
	if key := t.at.addr + " " + what; !l.warned[key] {
		l.warned[key] = true
		l.cfg.Logger.Warn(text, append(fields, zap.String("address", t.at.addr))...)
	}
}

// setting asks for one setting. ACLs and hosted servers often forbid that.
func (t *tracker) setting(ctx context.Context, name string) (string, bool) {
	m, err := t.c.Do(ctx, t.c.B().ConfigGet().Parameter(name).Build()).AsStrMap()
	value, ok := m[name]
	return value, ok && err == nil
}

// atLeast compares a version such as 7.0.15; one that cannot be read is taken for a new one.
func atLeast(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return true
	}
	x, err1 := strconv.Atoi(parts[0])
	y, err2 := strconv.Atoi(parts[1])
	if err1 != nil || err2 != nil {
		return true
	}
	return x > major || x == major && y >= minor
}
