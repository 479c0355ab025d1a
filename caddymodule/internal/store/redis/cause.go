package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// trouble is a kind of failure and what an operator does about it.
type trouble struct{ kind, cure string }

func (t trouble) fields() []zap.Field {
	return []zap.Field{zap.String("cause", t.kind), zap.String("cure", t.cure)}
}

// answers are the kinds of failure that the engine names, by the code of its answer.
var answers = map[string]trouble{
	"NOAUTH":    {"password", "set password in store redis"},
	"WRONGPASS": {"password", "correct username and password in store redis, and reload"},
	"NOPERM": {
		"rights", "give the ACL user the commands and the keys under prefix that the guide lists",
	},
	"READONLY":    {"replica", "name the primary, or its sentinels, in address"},
	"OOM":         {"memory", "raise maxmemory of redis, or free memory there"},
	"MISCONF":     {"disk", "redis cannot write its data: look at its log and its disk"},
	"LOADING":     {"loading", "wait: redis reads its data"},
	"MASTERDOWN":  {"replica", "the primary of this replica is gone: wait for the failover"},
	"CLUSTERDOWN": {"cluster", "a part of the cluster is gone: look at CLUSTER INFO"},
	"NOREPLICAS":  {"replicas", "bring the replicas back, or lower min-replicas-to-write"},
	"DENIED":      {"protected mode", "set bind and a password in redis"},
}

// troubleOf returns the kind of a failure.
func troubleOf(err error) trouble {
	if said := saidBy(err); said != "" {
		code, _, _ := strings.Cut(said, " ")
		if t, ok := answers[code]; ok {
			return t
		}
		if strings.Contains(said, "AUTH") {
			return answers["WRONGPASS"]
		}
		return trouble{"answer", "the answer of redis is in the line"}
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return trouble{"DNS", "correct the host in address, or the resolver of this machine"}
	}
	if isTLS(err) {
		return trouble{"TLS", "compare tls in store redis with the server: port, ca, server_name"}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return trouble{"refused", "start redis, or correct address: no server listens there"}
	case errors.Is(err, syscall.ENOENT):
		return trouble{"no socket", "start redis, or correct the path of its unix socket"}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return trouble{"unreachable", "look at the network between this machine and redis"}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, errSlow), isTimeout(err):
		return trouble{"time-out", "look at redis and the network to it; perhaps it speaks no tls"}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return trouble{"connection closed", "look at the log of redis; perhaps it expects tls"}
	}
	return trouble{"other", "the error is in the line"}
}

// answered is an answer of the engine without the arguments that it repeats.
type answered string

func (a answered) Error() string { return string(a) }

// saidBy returns the answer of the engine in a failure; empty if there is none.
func saidBy(err error) string {
	if said, ok := errors.AsType[answered](err); ok {
		return said.Error()
	}
	if said, ok := errors.AsType[*rueidis.RedisError](err); ok {
		return said.Error()
	}
	return ""
}

func isTLS(err error) bool {
	_, header := errors.AsType[tls.RecordHeaderError](err)
	_, verify := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	return header || verify || alert || authority || strings.Contains(err.Error(), "tls: ")
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err)
	return ok && e.Timeout()
}

// failed is the last failure of a link.
type failed struct {
	err error
	at  time.Time
}

// Contact implements store.Contacted.
func (s *Store) Contact() store.Contact {
	l := s.link()
	c := store.Contact{LastSuccess: l.heard(), Up: l.health() == nil}
	if t := l.changedAt.Load(); t != nil {
		c.Since = *t
	}
	now := time.Now()
	c.ClockAhead = now.Round(0).Sub(s.Clock().At(now).Round(0))
	if f := l.lastFailed.Load(); f != nil {
		c.LastError, c.LastErrorAt = f.err, f.at
	}
	return c
}

// Clock implements store.Clocked.
func (s *Store) Clock() *store.Clock { return s.link().clock.Load() }

// clockOf reads the answer to TIME.
func clockOf(r rueidis.RedisResult, sent time.Time) *store.Clock {
	parts, err := r.AsIntSlice()
	if err != nil || len(parts) != 2 {
		return nil
	}
	now := time.Now()
	return &store.Clock{
		Server: time.Unix(parts[0], parts[1]*1000), Local: now.Add(-now.Sub(sent) / 2),
	}
}

// noteState notes when the engine began or ceased to take writes, and why it does not.
func (l *link) noteState(was, is error) {
	now := time.Now()
	if l.changedAt.Load() == nil || (was == nil) != (is == nil) {
		l.changedAt.Store(&now)
	}
	if is != nil {
		l.lastFailed.Store(&failed{is, now})
	}
}
