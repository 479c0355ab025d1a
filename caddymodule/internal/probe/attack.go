package probe

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// role is the part in which a request is sent.
type role string

const (
	user      role = "user"   // with the credential
	guest     role = "guest"  // without it
	public    role = "public" // without it, under the public prefix
	strongest role = ""       // user or guest, whichever gets further
)

var everyone = []role{user, guest, public}

// needs are the conditions without which an attack proves nothing.
type needs uint8

const (
	needEcho      needs = 1 << iota // every byte must be seen
	needPublic                      // a public prefix
	needShut                        // a path that asks for a login
	needEndpoints                   // endpoints of the gate's own
	needBearer                      // a credential that is a header of its own
)

func (n needs) has(other needs) bool { return n&other != 0 }

// Attack is one row of the table. Words in braces stand for what a run fills in:
// see words.
type Attack struct {
	Threat int // row of docs/threats.md
	Name   string
	Bytes  string // as they go over the wire of HTTP/1; empty: HTTP/1 cannot send it
	Over2  bool   // the probe sends it over HTTP/2

	fields [][2]string // without Bytes
	as     []role
	needs  needs
	judge  func(*probe, *trial) (Result, string)
}

// kind is a group of attacks with one aim and one judge.
type kind struct {
	Attack        // what its attacks have in common
	tries, judged string
	attacks       []Attack
}

// add appends an attack that is like the others of its kind.
func (k *kind) add(name, bytes string, more ...needs) {
	a := k.Attack
	a.Name, a.Bytes = name, bytes
	for _, n := range more {
		a.needs |= n
	}
	k.attacks = append(k.attacks, a)
}

// addOver2 adds an attack over HTTP/2.
func (k *kind) addOver2(name, bytes string, fields ...[2]string) {
	k.add("HTTP/2: "+name, bytes)
	a := &k.attacks[len(k.attacks)-1]
	a.Over2, a.fields = true, fields
}

// addBoth adds an attack over HTTP/1 and over HTTP/2.
func (k *kind) addBoth(name, bytes string) {
	k.add(name, bytes)
	k.addOver2(name, bytes)
}

// Table returns the attacks on a gate that keeps c.Endpoints for itself, opens
// c.Public and shuts the path given. Tests of a gate run it with the answer that
// each row must have.
func Table(c Config, shut string) (all []Attack) {
	p := &probe{Config: c, shut: shut}
	for _, k := range p.table() {
		all = append(all, k.attacks...)
	}
	return all
}

// mark names a request of the probe wherever it turns up. Its forms differ,
// since a gate may print the URL, but not the headers, in its own answers.
type mark string

func (m mark) id() string     { return string(m) }
func (m mark) header() string { return string(m) + "h" } // in a harmless header
func (m mark) query() string  { return string(m) + "q" }
func (m mark) forged() string { return "forged-" + string(m) + "f" }

// settings is the payload of HTTP2-Settings: an unknown setting with this value.
func (m mark) settings() string {
	return base64.RawURLEncoding.EncodeToString([]byte("\x0a\x0a" + string(m[:4])))
}

// stage is a path and a role, and the outcome of the honest request there.
type stage struct {
	as     role
	target string // path and query
	base   *trial
}

// trial is one request and its outcome.
type trial struct {
	stage  *stage
	mark   mark
	answer Answer
	seen   observation
}

// send sends an attack on a stage and looks at the outcome.
func (p *probe) send(ctx context.Context, a *Attack, s *stage) *trial {
	t := &trial{stage: s, mark: mark(fmt.Sprintf("%sx%04d", p.run, p.count.Add(1)))}
	words := p.words(t)
	if a.Over2 {
		t.answer = p.http2.sendStream(ctx, a.OverHTTP2(words, p.url.Scheme))
	} else {
		t.answer = p.wire.send(ctx, words.Replace(a.Bytes))
	}
	t.seen = p.observer.observe(p, t)
	return t
}

// words fills in the words of a template.
func (p *probe) words(t *trial) *strings.Replacer {
	separator := "?"
	if strings.Contains(t.stage.target, "?") {
		separator = "&"
	}
	auth, changedAuth := "", ""
	for _, line := range p.Credential {
		if t.stage.as == user {
			auth += line + "\r\n"
		}
		changedAuth += changed(line) + "\r\n"
	}
	open := p.Public
	if open == "" {
		open = "/public"
	}
	return strings.NewReplacer(
		"{target}", t.stage.target+separator+"probe="+t.mark.query(),
		"{query}", "probe="+t.mark.query(), "{host}", p.url.Host,
		"{id}", "X-Probe-Id: "+t.mark.header()+"\r\n", "{auth}", auth, "{changed}", changedAuth,
		"{forged}", t.mark.forged(), "{settings}", t.mark.settings(), "{open}", open,
		"{shut}", p.shut, "{own}", p.Endpoints,
	)
}

// OverHTTP2 returns the stream that an attack sends over HTTP/2. An attack that
// HTTP/1 cannot send replaces pseudo fields of an ordinary request, and has its
// other fields behind the credential.
func (a *Attack) OverHTTP2(words *strings.Replacer, scheme string) Stream {
	if a.Bytes != "" {
		return AsStream(words.Replace(a.Bytes), scheme)
	}
	s := AsStream(words.Replace(get()), scheme)
	for _, f := range a.fields {
		f[1] = words.Replace(f[1])
		i := slices.IndexFunc(s.Fields, func(g [2]string) bool { return f[0] == g[0] })
		switch {
		case strings.HasPrefix(f[0], ":") && i >= 0:
			s.Fields[i] = f
		case strings.HasPrefix(f[0], ":"):
			s.Fields = slices.Insert(s.Fields, 0, f)
		default:
			s.Fields = append(s.Fields, f)
		}
	}
	return s
}
