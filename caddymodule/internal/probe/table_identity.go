package probe

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	triesForging  = "Sends identity headers of its own"
	judgedForging = "the app is told anything but what the gate knows"
)

// table returns every kind of attack, in the order of docs/threats.md.
func (p *probe) table() []kind {
	return []kind{
		p.forging(), p.respelling(), p.removing(), p.trailing(), p.upgrading(), p.forwarding(),
		p.doubling(), p.misusing(), p.climbing(), p.retargeting(), p.shadowing(),
		p.impersonating(), p.askingOtherwise(), p.failing(),
	}
}

// ask is a request without a body.
func ask(method, target string, lines ...string) string {
	request := method + " " + target + " HTTP/1.1\r\nHost: {host}\r\n{id}{auth}"
	for _, line := range lines {
		request += line + "\r\n"
	}
	return request + "\r\n"
}

// get is an ordinary request with further header lines.
func get(lines ...string) string { return ask("GET", "{target}", lines...) }

// forge makes a header line for each name.
func forge(names []string, spell func(string) string) (lines []string) {
	for _, name := range names {
		lines = append(lines, spell(name)+": {forged}")
	}
	return lines
}

func asIs(name string) string { return name }

func oddCase(name string) string {
	return strings.ToLower(name[:1]) + name[1:len(name)-1] + strings.ToLower(name[len(name)-1:])
}

// respelt writes c for the hyphens of a name that are chosen.
func respelt(c string, chosen func(i, last int) bool) func(string) string {
	return func(name string) string {
		parts := strings.Split(name, "-")
		out := parts[0]
		for i, part := range parts[1:] {
			if chosen(i, len(parts)-2) {
				out += c + part
			} else {
				out += "-" + part
			}
		}
		return out
	}
}

func eachHyphen(i, last int) bool  { return true }
func firstHyphen(i, last int) bool { return i == 0 }
func lastHyphen(i, last int) bool  { return i == last }

// forging is docs/threats.md#t1.
func (p *probe) forging() kind {
	k := kind{
		Attack: Attack{Threat: 1, as: everyone, judge: sameIdentity},
		tries:  triesForging, judged: judgedForging,
	}
	names, first := p.Identity, p.Identity[0]
	for _, name := range names {
		k.add(name, get(name+": {forged}"))
	}
	if p.ownsFamily() {
		k.add("other names of the family", get("X-WX-FROM-OPENID: {forged}", "X-WX-PHONE: {forged}",
			"X-WX-CLOUDBASE-ACCESS-TOKEN: {forged}", "X-WX-: {forged}"))
	}
	k.addBoth("in lower case", get(forge(names, strings.ToLower)...))
	k.add("in canonical case", get(forge(names, http.CanonicalHeaderKey)...))
	k.add("in odd case", get(forge(names, oddCase)...))
	k.addBoth("twice", get(first+": {forged}", strings.ToLower(first)+": {forged}2"))
	k.add("a list", get(first+": {forged}, {forged}2"))
	k.add("a placeholder", get(first+": {http.request.header.X-Probe-Id}"), needEcho)
	k.add("empty", get(first+":", strings.ToLower(first)+": "), needEcho)
	k.add("before the credential",
		"GET {target} HTTP/1.1\r\n"+first+": {forged}\r\nHost: {host}\r\n{id}{auth}\r\n")
	k.add("HTTP/1.0", strings.Replace(get(forge(names, asIs)...), "HTTP/1.1", "HTTP/1.0", 1))
	k.add("POST", ask("POST", "{target}", first+": {forged}", "Content-Length: 1")+"x")
	k.add("lone LFs", strings.ReplaceAll(get(first+": {forged}"), "\r\n", "\n"))
	for _, line := range []string{
		"NAME : {forged}", "NAME\t: {forged}", "NAME\x00: {forged}", "\x00NAME: {forged}",
		"NAME\x0b: {forged}", "NAME\r: {forged}", "NAME:\t {forged} \t", "NAME:\r\n {forged}",
		"NAME\r\n : {forged}", "X-A: b\r\n NAME: {forged}", "X-A: b\r\n\tNAME: {forged}",
		"X-A:\r\n NAME: {forged}", "X-A: b\rNAME: {forged}", "X-A: b\nNAME: {forged}",
	} {
		shown, _, _ := strings.Cut(line, " {forged}")
		k.add(fmt.Sprintf("the line %q", shown),
			get(strings.ReplaceAll(line, "NAME", first)), needEcho)
	}
	k.addOver2("in upper case", "", [2]string{strings.ToUpper(first), "{forged}"})
	k.addOver2("CR and LF in a value", "", [2]string{"x-a", "b\r\n" + first + ": {forged}"})
	return k
}

// respelling is docs/threats.md#t2.
func (p *probe) respelling() kind {
	k := kind{
		Attack: Attack{Threat: 2, as: everyone, judge: sameIdentity},
		tries:  "Sends identity headers in a spelling that some servers take for the same",
		judged: judgedForging,
	}
	for _, c := range strings.Split(punctuation, "") {
		each, first, last := respelt(c, eachHyphen), respelt(c, firstHyphen), respelt(c, lastHyphen)
		k.addBoth(each(p.Identity[0]), get(forge(p.Identity, each)...))
		k.add(last(p.Identity[0])+" and the like",
			get(append(forge(p.Identity, first), forge(p.Identity, last)...)...))
	}
	for _, c := range strings.Split(" \t\x00\x0b/:[\"(\\,;@={", "") {
		name := respelt(c, eachHyphen)(p.Identity[0])
		k.add(fmt.Sprintf("not a name: %q", name), get(name+": {forged}"), needEcho)
	}
	return k
}
