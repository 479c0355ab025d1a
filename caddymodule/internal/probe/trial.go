package probe

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// role is in which a request is sent.
type role string

const (
	user   role = "user"   // with the credential
	guest  role = "guest"  // without
	public role = "public" // without, under the public prefix
)

var everyone = []role{user, guest, public}

// stage is a path and a role, and what became of the honest request there.
type stage struct {
	as     role
	target string // path and query
	base   *trial
}

// mark makes a request of the probe known wherever it turns up.
type mark string

func (m mark) id() string     { return string(m) }
func (m mark) header() string { return string(m) + "h" } // in a harmless header
func (m mark) query() string  { return string(m) + "q" } // in the query: apart, since a gate may print the URL in its own answers
func (m mark) forged() string { return "forged-" + string(m) + "f" }

// settings is the payload of HTTP2-Settings: a setting that nobody knows, with a value that nobody else sends.
func (m mark) settings() string {
	return base64.RawURLEncoding.EncodeToString([]byte("\x0a\x0a" + string(m[:4])))
}

// trial is one request and what came of it.
type trial struct {
	stage  *stage
	mark   mark
	answer answer
	seen   sight
}

// needs is what an attack cannot do without.
type needs uint8

const (
	needEcho      needs = 1 << iota // every byte must be seen
	needPublic                      // a public prefix
	needShut                        // a path that asks for a login
	needEndpoints                   // endpoints of the gate's own
	needBearer                      // a credential that is a header of its own
)

func (n needs) has(other needs) bool { return n&other != 0 }

// attack is one row of the table. Words in braces are filled in, see words.
type attack struct {
	name   string
	as     []role
	bytes  string  // as they go over the wire, for HTTP/1
	frames *stream // or for HTTP/2
	needs  needs
	judge  func(*probe, *trial) (Result, string)
}

// group is one kind of attack, a row of THREATS.md.
type group struct {
	threat        int
	tries, judged string
	attacks       []attack
}

// send sends an attack on a stage and looks at what became of it.
func (p *probe) send(ctx context.Context, a *attack, s *stage) *trial {
	t := &trial{stage: s, mark: mark(fmt.Sprintf("%sx%04d", p.run, p.count.Add(1)))}
	words := p.words(t)
	if a.frames != nil {
		t.answer = p.http2.sendStream(ctx, p.fillStream(a.frames, words))
	} else {
		t.answer = p.wire.send(ctx, words.Replace(a.bytes))
	}
	t.seen = p.eye.look(p, t)
	return t
}

// words fills the words of a template in.
func (p *probe) words(t *trial) *strings.Replacer {
	separator := "?"
	if strings.Contains(t.stage.target, "?") {
		separator = "&"
	}
	auth, changedAuth := "", ""
	for _, line := range p.Credential {
		auth += line + "\r\n"
		changedAuth += changed(line) + "\r\n"
	}
	if t.stage.as != user {
		auth = ""
	}
	open := p.Public
	if open == "" {
		open = "/public"
	}
	return strings.NewReplacer(
		"{target}", t.stage.target+separator+"probe="+t.mark.query(),
		"{query}", "probe="+t.mark.query(),
		"{host}", p.url.Host,
		"{id}", "X-Probe-Id: "+t.mark.header()+"\r\n",
		"{auth}", auth,
		"{changed}", changedAuth,
		"{forged}", t.mark.forged(),
		"{settings}", t.mark.settings(),
		"{open}", open,
		"{shut}", p.shut,
		"{own}", p.Endpoints,
	)
}

// fillStream completes a stream with the fields that every request has.
func (p *probe) fillStream(s *stream, words *strings.Replacer) stream {
	filled := stream{body: s.body}
	fields := [][2]string{{":method", "GET"}, {":scheme", p.url.Scheme}, {":authority", "{host}"}, {":path", "{target}"}}
	for _, f := range s.fields {
		if i := slices.IndexFunc(fields, func(g [2]string) bool { return f[0] == g[0] }); i >= 0 {
			fields[i] = f
		} else if strings.HasPrefix(f[0], ":") {
			fields = append(fields, f)
		}
	}
	for line := range strings.Lines(words.Replace("{id}{auth}")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields = append(fields, [2]string{strings.ToLower(name), strings.TrimSpace(value)})
	}
	fields = append(fields, slices.DeleteFunc(slices.Clone(s.fields), func(f [2]string) bool { return strings.HasPrefix(f[0], ":") })...)
	for _, f := range fields {
		filled.fields = append(filled.fields, [2]string{f[0], words.Replace(f[1])})
	}
	for _, f := range s.trailers {
		filled.trailers = append(filled.trailers, [2]string{f[0], words.Replace(f[1])})
	}
	return filled
}
