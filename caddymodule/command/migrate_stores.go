package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

// migrateStores are the open stores of a migration.
type migrateStores struct {
	from  migrateSource
	to    migrateTarget
	since *bolt.Snapshot // nil: all is copied
	ring  *keyring.Ring  // of the configuration; nil when only files are involved

	platforms []string       // third-party platforms of the configuration
	done      []func() error // closes what is open
}

// dumpedStore is the part of a store that the source needs.
type dumpedStore interface {
	store.Dumper
	User(ctx context.Context, id store.UserID) (store.User, error)
	Lookup(ctx context.Context, d store.Digest) (store.Record, error)
	MasterKeys(ctx context.Context) (map[store.MasterKeyID]time.Time, error)
	store.FactReader
}

type migrateSource struct {
	name    string
	source  dumpedStore
	users   int64 // as far as known before they are read
	damaged int64
}

type migrateTarget struct {
	name  string
	store store.Store
}

func (s *migrateStores) close() error {
	var errs []error
	for _, f := range s.done {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// open opens the stores of the flags. After an error it leaves none open.
func (m *migration) open(ctx context.Context) (s *migrateStores, err error) {
	if m.from == m.to {
		return nil, fmt.Errorf("--from and --to are the same store: %s", m.from)
	}
	s = new(migrateStores)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := s.openFrom(ctx, m); err != nil {
		return s, err
	}
	if err := s.openSince(ctx, m); err != nil {
		return s, err
	}
	return s, s.openTo(ctx, m)
}

// boltFile returns the file of a side that names one.
func boltFile(side string) (path string, ok bool) {
	path, ok = strings.CutPrefix(side, "bolt:")
	return path, ok && path != ""
}

// snapshot opens a file. It waits, since a gate keeps its store open for some seconds
// after a reload with another one (wechatapp.Linger).
func (s *migrateStores) snapshot(
	ctx context.Context, m *migration, path string,
) (*bolt.Snapshot, error) {
	for began := time.Now(); ; {
		snap, err := bolt.OpenSnapshot(path, caddy.Log())
		if err == nil {
			s.done = append(s.done, snap.Close)
		}
		if !errors.Is(err, berrors.ErrTimeout) || time.Since(began) >= m.patience ||
			ctx.Err() != nil {
			return snap, err
		}
		fmt.Fprintf(m.progress, "waiting for the gate that has %s open\n", path)
	}
}

func (s *migrateStores) openFrom(ctx context.Context, m *migration) error {
	if path, ok := boltFile(m.from); ok {
		snap, err := s.snapshot(ctx, m, path)
		if err != nil {
			return err
		}
		r := snap.Report()
		s.from = migrateSource{name: m.from, source: snap, users: r.Stats.Users, damaged: r.Damaged}
		return nil
	}
	name, st, err := s.configured(ctx, m, m.from)
	if err != nil {
		return err
	}
	from, ok := st.(dumpedStore)
	if !ok {
		return fmt.Errorf("the store %s cannot be read out", m.from)
	}
	s.from = migrateSource{name: name, source: from}
	return nil
}

func (s *migrateStores) openSince(ctx context.Context, m *migration) (err error) {
	if m.since == "" {
		return nil
	}
	path, ok := boltFile(m.since)
	if _, file := s.from.source.(*bolt.Snapshot); !ok || !file {
		return errors.New("--since takes a backup, bolt:<file>, of the database that --from names")
	}
	s.since, err = s.snapshot(ctx, m, path)
	return err
}

func (s *migrateStores) openTo(ctx context.Context, m *migration) error {
	if path, ok := boltFile(m.to); ok {
		st, err := bolt.Open(bolt.Config{Path: path, Logger: caddy.Log()})
		if err != nil {
			return err
		}
		s.done = append(s.done, st.Close)
		s.to = migrateTarget{name: m.to, store: st}
		return nil
	}
	name, st, err := s.configured(ctx, m, m.to)
	if err != nil {
		return err
	}
	if _, ok := st.(store.Loader); !ok {
		return fmt.Errorf("the store %s cannot be added to", m.to)
	}
	s.to = migrateTarget{name: name, store: st}
	return nil
}

// configured opens the store of the configuration, which must be of the kind
// that the side names.
func (s *migrateStores) configured(
	ctx context.Context, m *migration, side string,
) (name string, st store.Store, err error) {
	if side == "bolt" || strings.Contains(side, ":") {
		// The error omits the text: a URL may hold a password.
		return "", nil, errors.New(
			"a store is bolt:<file>, or the name of the configuration's store, " +
				"such as redis, which holds the address",
		)
	}
	a, err := loadApp(ctx, m.config, m.adapter)
	if err != nil {
		return "", nil, err
	}
	if kind := a.Opener().(caddy.Module).CaddyModule().ID.Name(); kind != side {
		return "", nil, fmt.Errorf(
			"the store of the configuration is %s, not %s: "+
				"give the configuration that is to use it by --config",
			kind, side,
		)
	}
	if a.KeyRing() == nil {
		return "", nil, fmt.Errorf(
			"%s: without it the command cannot tell whether a gate would accept the sessions",
			keyless(a.SealKey),
		)
	}
	s.ring, s.platforms = a.KeyRing(), a.PlatformIDs()
	if st, err = a.Opener().Open(caddy.Log().Named("store")); err != nil {
		return "", nil, fmt.Errorf("opening session store: %w", err)
	}
	s.done = append(s.done, st.Close)
	if shared, ok := st.(store.Shared); ok {
		shared.Watch(func(store.Change) {}) // nothing is cached here
	}
	return a.Opener().Identity(), st, reach(ctx, st)
}

func keyless(placeholder string) string {
	if placeholder == "" {
		return "the configuration has no seal_key"
	}
	return fmt.Sprintf("seal_key %s is empty here", placeholder)
}

// reachTimeout bounds the wait for a store that opens before it reaches its server.
const reachTimeout = 5 * time.Second

// reach waits until the store can be written to.
func reach(ctx context.Context, st store.Store) error {
	for began := time.Now(); ; {
		err := st.Health(ctx)
		if err == nil {
			return nil
		}
		if time.Since(began) >= reachTimeout || ctx.Err() != nil {
			return fmt.Errorf("reaching session store: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// loadApp reads the global option out of a configuration. It starts nothing.
func loadApp(ctx context.Context, config, adapter string) (*wechatapp.App, error) {
	text, _, _, err := caddycmd.LoadConfig(config, adapter)
	if err != nil {
		return nil, err
	}
	var c struct {
		Apps struct {
			WeChat *wechatapp.App `json:"wechat"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	a := c.Apps.WeChat
	if a == nil {
		return nil, errors.New("the configuration holds no global option wechat")
	}
	provision, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	return a, a.Provision(provision)
}
