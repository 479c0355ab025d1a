package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var (
	errClosed = errors.New("the store is closed")
	errSlow   = errors.New("the engine took too long")
)

// unavailable wraps err in store.ErrUnavailable.
func unavailable(doing string, err error) error {
	if errors.Is(err, store.ErrUnavailable) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w: %w", doing, store.ErrUnavailable, err)
}

// cause returns why a call failed, in words that may be logged: an engine that does not know a command repeats its arguments, which are what is stored.
func cause(ctx context.Context, err error) error {
	if said, ok := rueidis.IsRedisErr(err); ok {
		text, _, _ := strings.Cut(said.Error(), ", with args")
		return errors.New(text)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded):
		return errSlow // the connection's clock was ahead of the context's
	}
	return err
}

// hint adds to why no contact could be made what is not said otherwise: a server that asks for a certificate in vain may end the connection without a word.
func (l *link) hint(err error) error {
	tc := l.cfg.TLS
	if tc == nil || len(tc.Certificates) > 0 || tc.GetClientCertificate != nil || !l.heard().IsZero() {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("%w (perhaps the server asks for a certificate of the gate, and none is configured: tls cert and key)", err)
	}
	return err
}

// damaged notes a record that cannot be read. Only the start of its name is logged: enough to find it, too little to use.
func (s *Store) damaged(kind string, name []byte) {
	n := s.damagedN.Add(1)
	s.damagedLog.Do(func() {
		s.log.Error("damaged record in session store; treated as absent", zap.String("kind", kind), zap.String("key", fmt.Sprintf("%x", name[:min(4, len(name))])), zap.Int64("seen", n))
	})
}
