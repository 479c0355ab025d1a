// Package probe attacks a gate from outside, as a client would, and reports which
// of its promises held. It owns the attack table (docs/threats.md#identity and
// #paths, as far as an outsider sees them), the wires that send what no ordinary
// client would, and the observers of what the app behind the gate received.
//
// It must not know this project's own gate: it judges any gate by what reaches the
// app.
package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"sync/atomic"
)

// ErrBlind means that the probe can say nothing of the gate: it cannot reach it,
// or cannot see what the app receives.
var ErrBlind = errors.New("the probe cannot see through the gate")

func blind(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrBlind, fmt.Sprintf(format, args...))
}

// workers is how many requests are under way at a time.
const workers = 4

// probe is one run.
type probe struct {
	Config
	url      *url.URL
	wire     wire
	http2    *wire // nil: the gate does not speak HTTP/2 here
	observer observer
	run      string // begins every mark
	count    atomic.Int64
	stages   map[role]*stage
	shut     string // a path that asks for a credential, or empty
	own      bool   // the gate keeps Endpoints for itself
}

// Run probes a gate. Before the attacks, honest requests show that the probe sees
// what the app receives; after each kind of attack, that it still does. Where it
// does not, the error is ErrBlind and the report ends there. Any other error is one
// of the configuration.
func Run(ctx context.Context, c Config) (Report, error) {
	p := &probe{Config: c, stages: make(map[role]*stage)}
	if p.Echo != nil {
		defer p.Echo.Close()
	}
	if err := p.prepare(); err != nil {
		return Report{}, err
	}
	report := Report{URL: p.url.Redacted(), Seen: SeenInAnswer}
	if p.Echo != nil {
		e := newEcho(p.Echo, p.run)
		defer e.close()
		p.observer, report.Seen = e, SeenByEcho
	}
	if err := p.baseline(ctx); err != nil {
		return report, err
	}
	report.HTTP2 = p.http2 != nil
	report.Rows = append(report.Rows, p.honest()...)
	for _, k := range p.table() {
		rows := p.attempt(ctx, k)
		control := p.control(ctx)
		for i := range rows {
			if control != nil && rows[i].Result == Held {
				rows[i].Result, rows[i].Evidence = NotTried, stopped
			}
		}
		report.Rows = append(report.Rows, rows...)
		if control != nil {
			return report, cmp.Or(ctx.Err(), control)
		}
	}
	return report, nil
}

// stopped is the evidence of a row that proves nothing.
const stopped = "afterwards the gate did not let the honest request through either"

// attempt tries the attacks of one kind in all their roles.
func (p *probe) attempt(ctx context.Context, k kind) []Row {
	type job struct {
		attack *Attack
		as     role
		row    *Row
	}
	var jobs []job
	rows := make([]Row, 0, len(k.attacks)*len(everyone)) // no row may move
	for i := range k.attacks {
		a := &k.attacks[i]
		for _, as := range a.as {
			if as == strongest {
				if as = p.stage(strongest).as; as == public {
					as = guest
				}
			}
			rows = append(rows, Row{
				Threat: a.Threat, Attack: a.Name, As: string(as), Tries: k.tries, Judged: k.judged,
			})
			jobs = append(jobs, job{a, as, &rows[len(rows)-1]})
		}
	}
	queue := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for j := range queue {
				j.row.Result, j.row.Evidence = p.judge(ctx, j.attack, j.as)
			}
		})
	}
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	wg.Wait()
	return rows
}

// judge sends one attack in one role and judges its outcome.
func (p *probe) judge(ctx context.Context, a *Attack, as role) (Result, string) {
	if missing := p.missing(a, as); missing != "" {
		return NotTried, missing
	}
	t := p.send(ctx, a, p.stages[as])
	if t.answer.Err != nil && t.seen.asked != yes {
		return NotTried, t.answer.Err.Error()
	}
	result, evidence := a.judge(p, t)
	return result, p.presentable(evidence)
}

// missing tells why an attack cannot be tried, or nothing.
func (p *probe) missing(a *Attack, as role) string {
	_, seesAll := p.observer.(*echo)
	switch {
	case a.needs.has(needEcho) && !seesAll:
		return "needs --echo: an answer does not show trailers and raw lines"
	case as == user && p.stages[user] == nil:
		return "needs -H: the header of a logged-in user"
	case as == public && p.stages[public] == nil, a.needs.has(needPublic) && p.Public == "":
		return "needs --public: a prefix that asks for nothing"
	case a.needs.has(needShut) && p.shut == "":
		return "needs a path that asks for a login, and found none"
	case a.needs.has(needEndpoints) && !p.own:
		return "needs --endpoints: the gate does not answer itself under " + p.Endpoints
	case a.needs.has(needBearer) && p.token() == "":
		return "needs -H with the credential in a header that is not Cookie"
	case a.Over2 && p.http2 == nil:
		return "needs HTTP/2, which is not spoken here"
	}
	return ""
}
