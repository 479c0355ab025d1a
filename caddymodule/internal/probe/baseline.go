package probe

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// honestRequest is the request of an ordinary client.
var honestRequest = Attack{Bytes: get()}

// baseline sends honest requests and learns their outcome.
func (p *probe) baseline(ctx context.Context) error {
	asGuest := p.honestly(ctx, guest, p.url.RequestURI())
	if err := asGuest.answer.Err; err != nil {
		return blind("%s at %s: %v", p.url.Redacted(), p.wire.addr, err)
	}
	if len(p.Credential) > 0 {
		if err := p.checkUser(p.honestly(ctx, user, p.url.RequestURI())); err != nil {
			return err
		}
	} else if asGuest.seen.asked != yes {
		if refusal(asGuest.answer.Status) {
			return blind("%s is %v without a credential: give one with -H, "+
				"or a URL that is open to everybody", p.url.EscapedPath(), asGuest.answer)
		}
		return p.unseen("the request", asGuest)
	}
	if p.Public != "" {
		target := p.Public + "/wxprobe"
		if t := p.honestly(ctx, public, target); t.seen.asked != yes {
			return p.unseen("under --public, the request for "+target, t)
		}
	}
	if p.shut = p.url.EscapedPath(); asGuest.seen.asked == yes {
		p.shut = "/wxprobe-shut"
		t := p.explore(ctx, guest, p.shut)
		if t.seen.asked == yes || !refusal(t.answer.Status) {
			p.shut = ""
		}
	}
	p.own = p.ownsEndpoints(ctx)
	p.http2 = p.wire.overHTTP2()
	s := p.stage(strongest)
	a := Attack{Bytes: get(), Over2: true}
	if t := p.send(ctx, &a, &stage{as: s.as, target: s.target}); t.seen.asked != yes {
		p.http2 = nil
	}
	return ctx.Err()
}

// honestly makes a stage of an honest request.
func (p *probe) honestly(ctx context.Context, as role, target string) *trial {
	t := p.explore(ctx, as, target)
	p.stages[as] = &stage{as: as, target: target, base: t}
	return t
}

// explore sends an honest request that nothing is known of yet.
func (p *probe) explore(ctx context.Context, as role, target string) *trial {
	return p.send(ctx, &honestRequest, &stage{as: as, target: target})
}

// unseen explains why a request that should have arrived cannot be seen.
func (p *probe) unseen(what string, t *trial) error {
	if p.Echo != nil {
		return blind("%s did not reach the echo app (%v): point the gate's upstream at %s",
			what, t.answer, p.Echo.Addr())
	}
	return blind("the answer to %s does not reflect its header X-Probe-Id (%v): give the URL of "+
		"an endpoint that answers with the headers of the request, or use --echo", what, t.answer)
}

// checkUser demands that the credential makes a user.
func (p *probe) checkUser(t *trial) error {
	switch {
	case t.answer.Err != nil:
		return blind("with the credential: %v", t.answer.Err)
	case t.seen.asked != yes && refusal(t.answer.Status):
		return blind("with the credential the request is %v: the credential is not good here",
			t.answer)
	case t.seen.asked != yes:
		return p.unseen("the request with the credential", t)
	}
	for _, l := range t.seen.identity[0] {
		if strings.HasPrefix(l.key, strings.ToLower(p.Identity[0])+":") {
			return nil
		}
	}
	return blind("with the credential the app is told no %s: the URL is open without a look at "+
		"credentials, the credential is not good, or the gate uses other names (--identity)",
		p.Identity[0])
}

// ownsEndpoints reports whether the gate certainly answers itself under its
// prefix.
func (p *probe) ownsEndpoints(ctx context.Context) bool {
	t := p.explore(ctx, p.stage(strongest).as, p.Endpoints+"/login")
	if p.Echo == nil {
		return t.answer.Header.Get("X-Wxgate") == "1"
	}
	return t.seen.asked != yes && t.answer.Err == nil && !refusal(t.answer.Status) &&
		t.answer.Status < http.StatusInternalServerError
}

// stage returns where a role is played; the strongest is the one whose honest
// request gets furthest.
func (p *probe) stage(as role) *stage {
	if as != strongest {
		return p.stages[as]
	}
	for _, as := range everyone {
		if s := p.stages[as]; s != nil && s.base.seen.asked == yes {
			return s
		}
	}
	return p.stages[guest]
}

// control sends the honest request again: a gate that has stopped answering would
// seem to hold everything.
func (p *probe) control(ctx context.Context) error {
	t := p.send(ctx, &honestRequest, p.stage(strongest))
	if t.seen.asked != yes {
		return blind("the gate no longer lets the honest request through (%v)", t.answer)
	}
	return nil
}

// honest judges the honest requests themselves.
func (p *probe) honest() (rows []Row) {
	for _, as := range everyone {
		row := Row{
			Threat: 1, Attack: "the honest request", As: string(as),
			Tries: triesForging, Judged: judgedForging, Result: Held,
		}
		if s := p.stages[as]; s == nil {
			row.Result, row.Evidence = NotTried, p.missing(&honestRequest, as)
		} else {
			row.Evidence = s.base.answer.String()
			seen := make(map[string]bool)
			for _, l := range slices.Concat(s.base.seen.identity...) {
				name, _, _ := strings.Cut(l.text, ":")
				if as != user {
					row.Result = Fell
					row.Evidence = "the app is told of a user where there is none: " + l.text
				} else if seen[fold(name)] {
					row.Result = Fell
					row.Evidence = fmt.Sprintf("the app is told %s more than once", name)
				}
				seen[fold(name)] = true
			}
			row.Evidence = p.presentable(row.Evidence)
		}
		rows = append(rows, row)
	}
	return rows
}
