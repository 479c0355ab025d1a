package component

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// settling is how long an event outweighs a list that says otherwise: WeChat may have
// made the list before.
const settling = 10 * time.Second

// ReadList reads WeChat's list of merchants and makes the state agree with it: refresh
// tokens that are lost or void come back, merchants of whose coming or going no push told
// are noticed. The error is WeChat's or the store's.
func (p *Platform) ReadList(ctx context.Context) error {
	_, err := p.share(ctx, "listing authorised mini programs", "list",
		func(ctx context.Context) (string, error) { return "", p.readList(ctx) })
	return err
}

func (p *Platform) readList(ctx context.Context) error {
	began := p.now()
	listed, complete, err := p.fetchList(ctx)
	if err != nil {
		p.failed("list", err)
		return err
	}
	if err := p.apply(ctx, listed, complete, began); err != nil {
		p.failed("list", err)
		return err
	}
	p.unpause("list")
	m := p.cfg.Memory
	m.mu.Lock()
	m.listed, m.doubts = true, time.Time{}
	m.mu.Unlock()
	_, err = p.editHub(ctx, func(h *hub) bool {
		h.Listed = began.Unix()
		return true
	})
	return err
}

// fetchList returns the refresh tokens of all merchants by appid. complete is false when
// merchants came or went meanwhile, so that one may be missing.
func (p *Platform) fetchList(
	ctx context.Context,
) (all map[string]string, complete bool, err error) {
	all = make(map[string]string)
	for offset := 0; ; {
		var page []weixin.Authorizer
		var total int
		err := p.withToken(ctx, func(token string) (err error) {
			page, total, err = p.cfg.Calls.Authorizers(ctx, p.cfg.Credentials, token, offset)
			return err
		})
		if err != nil {
			return nil, false, err
		}
		for _, m := range page {
			all[m.AppID] = m.Refresh
		}
		if offset += len(page); len(page) == 0 || offset >= total {
			return all, len(all) == total, nil
		}
	}
}

// apply makes the state agree with a list that was asked for at began.
func (p *Platform) apply(
	ctx context.Context, listed map[string]string, complete bool, began time.Time,
) error {
	var by [shards]map[string]string
	for appID, refresh := range listed {
		i := shardOf(appID)
		if by[i] == nil {
			by[i] = make(map[string]string)
		}
		by[i][appID] = refresh
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range by {
		group.Go(func() error {
			gone, err := p.applyShard(ctx, i, by[i], complete, began)
			for _, appID := range gone {
				if err == nil {
					err = p.withdrawn(ctx, appID, began)
				}
			}
			return err
		})
	}
	return group.Wait()
}

// applyShard takes what a list says of the merchants of one shard, and returns those that
// the list lacks.
func (p *Platform) applyShard(
	ctx context.Context, i int, listed map[string]string, complete bool, began time.Time,
) (gone []string, err error) {
	var fresh []string
	_, err = p.editShard(ctx, i, func(s merchants) (changed bool) {
		fresh, gone = nil, nil
		for appID, refresh := range listed {
			m, known := s[appID]
			older := m.Changed <= began.UnixMilli()
			if !m.Authorized && (!known || began.Sub(time.UnixMilli(m.Changed)) >= settling) {
				m.AppID = appID
				m.authorize(true, p.now())
				fresh = append(fresh, appID)
			}
			if m.Authorized && refresh != "" && refresh != m.Refresh &&
				(older || m.Refresh == "") {
				m.grant(refresh, p.now())
			}
			if m != s[appID] {
				s[appID], changed = m, true
			}
		}
		for appID, m := range s {
			if _, there := listed[appID]; complete && !there && p.isGone(m, began) {
				gone = append(gone, appID)
			}
		}
		return changed
	})
	if err == nil && len(fresh) > 0 {
		p.log().Info("mini programs found in WeChat's list", zap.Strings("appids", fresh))
	}
	return gone, err
}

func (p *Platform) isGone(m merchant, began time.Time) bool {
	return m.Authorized && began.Sub(time.UnixMilli(m.Changed)) >= settling
}

// withdrawn ends the authorisation of a merchant that a list lacks.
func (p *Platform) withdrawn(ctx context.Context, appID string, began time.Time) error {
	p.log().Warn("mini program is no longer in WeChat's list", zap.String("appid", appID))
	return p.close(ctx, appID, func(m *merchant) bool { return p.isGone(*m, began) })
}

// Reseal seals all state under the first master key. With reset it begins state anew that
// no master key opens: WeChat pushes another ticket and lists the merchants.
func (p *Platform) Reseal(ctx context.Context, reset bool) error {
	_, err := p.editHub(ctx, func(*hub) bool { return false })
	if err = p.reset(ctx, p.hubFact(), reset, err); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range shards {
		group.Go(func() error {
			_, err := p.editShard(ctx, i, func(merchants) bool { return false })
			return p.reset(ctx, p.shardFact(i), reset, err)
		})
	}
	return group.Wait()
}

// reset replaces a fact that does not open by an empty state, if it may.
func (p *Platform) reset(ctx context.Context, name string, may bool, err error) error {
	if !may || !errors.Is(err, ErrSealed) {
		return err
	}
	was, err := p.cfg.Facts.Fact(ctx, name)
	if err == nil {
		_, err = p.cfg.Facts.SetFact(ctx, name, was, p.cfg.Ring.SealShared(name, "{}"))
	}
	return err
}
