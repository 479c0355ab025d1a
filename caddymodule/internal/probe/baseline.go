package probe

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// honestRequest is what an ordinary client sends.
var honestRequest = attack{bytes: get()}

// baseline sends honest requests and learns what they become.
func (p *probe) baseline(ctx context.Context) error {
	plain := p.url.EscapedPath()
	asGuest := p.honestly(ctx, guest, p.url.RequestURI())
	if err := asGuest.answer.err; err != nil {
		return blind("%s at %s: %v", p.url.Redacted(), p.wire.addr, err)
	}
	p.stages[guest] = &stage{as: guest, target: p.url.RequestURI(), base: asGuest}
	if len(p.Credential) > 0 {
		asUser := p.honestly(ctx, user, p.url.RequestURI())
		if err := p.checkUser(asUser); err != nil {
			return err
		}
		p.stages[user] = &stage{as: user, target: p.url.RequestURI(), base: asUser}
	} else if asGuest.seen.asked != yes {
		if refusal(asGuest.answer.status) {
			return blind("%s is %v without a credential: give one with -H, or a URL that is open to everybody", plain, asGuest.answer)
		}
		return p.unseen("the request", asGuest)
	}
	if p.Public != "" {
		target := p.Public + "/wxprobe"
		inPublic := p.honestly(ctx, public, target)
		if inPublic.seen.asked != yes {
			return p.unseen("under --public, the request for "+target, inPublic)
		}
		p.stages[public] = &stage{as: public, target: target, base: inPublic}
	}
	if asGuest.seen.asked != yes {
		p.shut = plain
	} else if t := p.honestly(ctx, guest, "/wxprobe-shut"); t.seen.asked != yes && refusal(t.answer.status) {
		p.shut = "/wxprobe-shut"
	}
	p.own = p.ownsEndpoints(ctx)
	p.tryHTTP2(ctx)
	return ctx.Err()
}

// honestly sends an honest request that nothing is known of yet.
func (p *probe) honestly(ctx context.Context, as role, target string) *trial {
	return p.send(ctx, &honestRequest, &stage{as: as, target: target})
}

// unseen explains why nothing can be seen of a request that should have arrived.
func (p *probe) unseen(what string, t *trial) error {
	if p.Echo != nil {
		return blind("%s did not reach the echo app (%v): point the gate's upstream at %s", what, t.answer, p.Echo.Addr())
	}
	return blind("the answer to %s does not reflect its header X-Probe-Id (%v): give the URL of an endpoint that answers with the headers of the request, or use --echo", what, t.answer)
}

// checkUser demands that the credential makes a user.
func (p *probe) checkUser(t *trial) error {
	switch {
	case t.answer.err != nil:
		return blind("with the credential: %v", t.answer.err)
	case t.seen.asked != yes && refusal(t.answer.status):
		return blind("with the credential the request is %v: the credential is not good here", t.answer)
	case t.seen.asked != yes:
		return p.unseen("the request with the credential", t)
	}
	for _, l := range t.seen.told[0] {
		if strings.HasPrefix(l.key, strings.ToLower(p.Identity[0])+":") {
			return nil
		}
	}
	return blind("with the credential the app is told no %s: the URL is open without a look at credentials, the credential is not good, or the gate uses other names (--identity)", p.Identity[0])
}

// ownsEndpoints reports whether the gate answers itself under its prefix. Where it is not certain the answer is no.
func (p *probe) ownsEndpoints(ctx context.Context) bool {
	t := p.honestly(ctx, p.strongest().as, p.Endpoints+"/login")
	if p.Echo == nil {
		return t.answer.header.Get("X-Wxgate") == "1"
	}
	return t.seen.asked != yes && t.answer.err == nil && !refusal(t.answer.status) && t.answer.status < http.StatusInternalServerError
}

func (p *probe) tryHTTP2(ctx context.Context) {
	p.http2 = p.wire.overHTTP2()
	s := p.strongest()
	if t := p.send(ctx, &attack{frames: new(stream)}, &stage{as: s.as, target: s.target}); t.seen.asked != yes {
		p.http2 = nil
	}
}

// strongest returns the stage whose honest request gets furthest.
func (p *probe) strongest() *stage {
	for _, as := range everyone {
		if s := p.stages[as]; s != nil && s.base.seen.asked == yes {
			return s
		}
	}
	return p.stages[guest]
}

// control sends the honest request again: a gate that has stopped answering would seem to hold everything.
func (p *probe) control(ctx context.Context) error {
	t := p.send(ctx, &honestRequest, p.strongest())
	if t.seen.asked != yes {
		return blind("the gate no longer lets the honest request through (%v)", t.answer)
	}
	return nil
}

// honest judges the honest requests themselves.
func (p *probe) honest() (rows []Row) {
	for _, as := range everyone {
		row := Row{Threat: 1, Attack: "the honest request", As: string(as), Tries: triesForging, Judged: judgedForging, Result: Held}
		s := p.stages[as]
		if s == nil {
			row.Result, row.Evidence = NotTried, p.missing(&honestRequest, as)
			rows = append(rows, row)
			continue
		}
		row.Evidence = s.base.answer.String()
		seen := make(map[string]bool)
		for _, l := range slices.Concat(s.base.seen.told...) {
			name, _, _ := strings.Cut(l.text, ":")
			if as != user {
				row.Result, row.Evidence = Fell, "the app is told of a user where there is none: "+l.text
			} else if seen[fold(name)] {
				row.Result, row.Evidence = Fell, fmt.Sprintf("the app is told %s more than once", name)
			}
			seen[fold(name)] = true
		}
		row.Evidence = p.presentable(row.Evidence)
		rows = append(rows, row)
	}
	return rows
}
