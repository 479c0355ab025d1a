package redis

import (
	"context"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

var _ store.Identified = (*Store)(nil)

// Identity implements store.Identified. It writes one where there is none yet.
func (s *Store) Identity(ctx context.Context) (store.Identity, error) {
	return result(ctx, s.write, func(ctx context.Context, db db) (store.Identity, error) {
		texts, err := db.get(ctx, db.keys.identity(0), db.keys.all())
		if err != nil {
			return store.Identity{}, err
		}
		if texts[0] == "" {
			texts[0], err = writeIdentity(ctx, db.c, db.keys, "", texts[1] != "", 1)
		}
		if err != nil {
			return store.Identity{}, err
		}
		return store.ParseIdentity(texts[0])
	})
}

// identityCopies is the number of copies that a cluster keeps of the identity, under
// hash tags that most likely reach each primary: one may come back empty alone.
const identityCopies = 16

func (p layout) identity(i int) string { return string(p) + "id:{" + strconv.Itoa(i) + "}" }

// knownRecords is what a gate knows of the records that it serves. It outlives a
// contact and a link.
type knownRecords struct {
	id   string // identity at rest; empty before the first check
	used bool   // there has been a login
}

// noteUsed notes that there has been a login.
func (l *link) noteUsed() {
	if k := l.records.Load(); !k.used && k.id != "" {
		l.records.CompareAndSwap(k, &knownRecords{id: k.id, used: true})
	}
}

// identityEvery is the number of heartbeats between two checks of the identity,
// beside those at a new contact and after a push that the server was emptied.
const identityEvery = 20

// checkIdentity compares the identity of the records with the one that this gate has
// seen, and writes one where there is none. A server that was emptied, or another
// one in its place, logs all users out: the log says so, and the watcher hears of it.
// It reports whether it could look.
func (l *link) checkIdentity(c *contact) bool {
	ctx, cancel := context.WithTimeout(l.ctx, l.cfg.pace.overdue)
	defer cancel()
	l.wg.Go(func() { // the library would try again until the end of ctx
		select {
		case <-c.gone:
			cancel()
		case <-ctx.Done():
		}
	})
	keys := layout(l.cfg.Prefix)
	n := 1
	if l.cfg.Cluster {
		n = identityCopies
	}
	cmds := rueidis.Commands{c.data.B().Get().Key(keys.all()).Build()}
	for i := range n {
		cmds = append(cmds, c.data.B().Get().Key(keys.identity(i)).Build())
	}
	texts, err := textsOf(c.data.DoMulti(ctx, cmds...))
	if err != nil {
		return false
	}
	used, found := texts[0] != "", texts[1:]
	known, same, missing := *l.records.Load(), false, false
	id := ""
	for _, text := range found {
		same = same || text != "" && text == known.id
		missing = missing || text == ""
		if id == "" {
			id = text
		}
	}
	if same {
		id = known.id
	}
	if missing {
		if id, err = writeIdentity(ctx, c.data, keys, id, used, n); err != nil {
			return false
		}
	}
	l.records.Store(&knownRecords{id: id, used: used || known.used && same})
	switch {
	case known.id == "" && !used && missing:
		l.cfg.Logger.Info("session store is new and holds no session",
			zap.Strings("addresses", l.cfg.Addresses), zap.Int("db", l.cfg.DB))
	case known.id != "" && known.used && (!same || missing):
		l.tellReplaced(known.id, id, same)
	}
	return true
}

// writeIdentity writes the identity id, or a new one where that is empty, to all
// places that have none. It returns the one that is there then.
func writeIdentity(
	ctx context.Context, c rueidis.Client, keys layout, id string, used bool, n int,
) (string, error) {
	if id == "" {
		created := time.Now()
		if used {
			created = time.Time{} // the records are older
		}
		id = store.NewIdentity(created).String()
	}
	for i := range n {
		key := keys.identity(i)
		set := c.B().Set().Key(key).Value(id).Nx().Build().ToRetryable()
		answers := c.DoMulti(ctx, set, c.B().Get().Key(key).Build())
		if err := ignoreNil(answers[0].Error()); err != nil {
			return "", err
		}
		if i == 0 {
			now, err := text(answers[1])
			if err != nil {
				return "", err
			}
			id = now // another gate may have been first
		}
	}
	return id, nil
}

// tellReplaced logs that the records are gone, or part of them.
func (l *link) tellReplaced(was, is string, part bool) {
	text := "session store was emptied or replaced: all users are logged out"
	if part {
		text = "part of the session store was emptied: users are logged out"
	}
	l.cfg.Logger.Error(
		text, zap.Strings("addresses", l.cfg.Addresses), zap.Int("db", l.cfg.DB),
		zap.String("prefix", l.cfg.Prefix), zap.String("was", was), zap.String("is", is),
		zap.String("cure", "look for FLUSHALL, a restart without appendonly, a moved primary or "+
			"a wrong address; bring the data back, or let the users log in again"),
	)
	l.report(store.Change{What: store.RecordsReplaced})
}
