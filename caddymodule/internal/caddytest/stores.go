package caddytest

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

func init() {
	caddy.RegisterModule(new(SwitchStore))
	caddy.RegisterModule(new(FleetStore))
}

// SwitchStore is a bolt store with switches, as the module wechat.stores.switch.
type SwitchStore struct {
	Path   string `json:"path,omitempty"`
	Refuse bool   `json:"refuse,omitempty"` // Open fails
}

// The state that all SwitchStores share. A test that sets Down sets it back.
var (
	Down   atomic.Bool
	Opened atomic.Int32
	Closed atomic.Int32
)

// CaddyModule returns the Caddy module information.
func (SwitchStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "wechat.stores.switch", New: func() caddy.Module { return new(SwitchStore) },
	}
}

// Identity returns the path.
func (s *SwitchStore) Identity() string { return "switch:" + filepath.Clean(s.Path) }

// MasterKey returns SealKey.
func (s *SwitchStore) MasterKey() (string, error) { return SealKey, nil }

// Open opens the store and counts it.
func (s *SwitchStore) Open(log *zap.Logger) (store.Store, error) {
	if s.Refuse {
		return nil, errors.New("refused by the test")
	}
	st, err := bolt.Open(bolt.Config{Path: s.Path, Logger: log})
	if err != nil {
		return nil, err
	}
	Opened.Add(1)
	last = st
	return switched{st}, nil
}

// last is the store that was opened last.
var last store.Store

// Break closes the SwitchStore that was opened last under its users: each call fails
// with store.ErrUnavailable.
func Break(t testing.TB) {
	t.Helper()
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
}

// switched is a store that can be unreachable.
type switched struct{ store.Store }

func (s switched) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	if Down.Load() {
		return store.Record{}, store.ErrUnavailable
	}
	return s.Store.Lookup(ctx, d)
}

// Fact implements store.Store.
func (s switched) Fact(ctx context.Context, name string) ([]byte, error) {
	if Down.Load() {
		return nil, store.ErrUnavailable
	}
	return s.Store.Fact(ctx, name)
}

// Dump implements store.Dumper.
func (s switched) Dump(ctx context.Context, f func(store.Item) error) error {
	if Down.Load() {
		return store.ErrUnavailable
	}
	return s.Store.(store.Dumper).Dump(ctx, f)
}

func (s switched) User(ctx context.Context, id store.UserID) (store.User, error) {
	if Down.Load() {
		return store.User{}, store.ErrUnavailable
	}
	return s.Store.User(ctx, id)
}

func (s switched) Health(ctx context.Context) error {
	if Down.Load() {
		return store.ErrUnavailable
	}
	return s.Store.Health(ctx)
}

func (s switched) Close() error {
	Closed.Add(1)
	return s.Store.Close()
}

// FleetStore is a bolt store in the role of a store that gates share, as the module
// wechat.stores.fleet.
type FleetStore struct {
	Path string `json:"path,omitempty"`
}

// Fleet is the state that all FleetStores share. A test that sets Down or Age sets
// it back.
var Fleet struct {
	Down    atomic.Bool
	Age     atomic.Int64 // nanoseconds since the store was heard
	Lookups atomic.Int32
	Spent   Spending
}

// Spending records what was taken from shared buckets.
type Spending struct {
	sync.Mutex
	Keys []string
	Rate store.Rate
	Wait time.Duration // the answer to each call
}

// CaddyModule returns the Caddy module information.
func (FleetStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID: "wechat.stores.fleet", New: func() caddy.Module { return new(FleetStore) },
	}
}

// Identity returns the path.
func (s *FleetStore) Identity() string { return "fleet:" + filepath.Clean(s.Path) }

// MasterKey returns SealKey.
func (s *FleetStore) MasterKey() (string, error) { return SealKey, nil }

// Open opens the store.
func (s *FleetStore) Open(log *zap.Logger) (store.Store, error) {
	st, err := bolt.Open(bolt.Config{Path: s.Path, Logger: log})
	if err != nil {
		return nil, err
	}
	return fleetLink{st}, nil
}

// fleetLink is a store.Shared that no other gate shares.
type fleetLink struct{ store.Store }

var _ store.Shared = fleetLink{}

func (fleetLink) up() error {
	if Fleet.Down.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (fleetLink) Watch(func(store.Change)) {}

func (fleetLink) Heard() time.Time { return time.Now().Add(-time.Duration(Fleet.Age.Load())) }

func (f fleetLink) Lookup(ctx context.Context, d store.Digest) (store.Record, error) {
	Fleet.Lookups.Add(1)
	if err := f.up(); err != nil {
		return store.Record{}, err
	}
	return f.Store.Lookup(ctx, d)
}

func (f fleetLink) MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error) {
	if err := f.up(); err != nil {
		return nil, err
	}
	return f.Store.MasterKeys(ctx)
}

func (f fleetLink) Spend(_ context.Context, key string, r store.Rate) (time.Duration, error) {
	Fleet.Spent.Lock()
	defer Fleet.Spent.Unlock()
	Fleet.Spent.Keys, Fleet.Spent.Rate = append(Fleet.Spent.Keys, key), r
	return Fleet.Spent.Wait, f.up()
}

// Spend makes each shared bucket of the FleetStores empty for a time. It returns a
// function that tells what was asked of them since.
func Spend(empty time.Duration) (spent func() (keys string, at store.Rate)) {
	s := &Fleet.Spent
	s.Lock()
	defer s.Unlock()
	s.Keys, s.Rate, s.Wait = nil, store.Rate{}, empty
	return func() (string, store.Rate) {
		s.Lock()
		defer s.Unlock()
		return strings.Join(s.Keys, " "), s.Rate
	}
}
