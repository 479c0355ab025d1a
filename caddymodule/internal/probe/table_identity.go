package probe

import (
	"net/http"
	"strings"
)

const (
	triesForging  = "Sends identity headers of its own"
	judgedForging = "the app is told anything but what the gate knows"
)

// get is an ordinary request with more header lines.
func get(lines ...string) string {
	var b strings.Builder
	b.WriteString("GET {target} HTTP/1.1\r\nHost: {host}\r\n{id}{auth}")
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	return b.String() + "\r\n"
}

// forge makes a header line for each name.
func forge(names []string, spell func(string) string) (lines []string) {
	for _, name := range names {
		lines = append(lines, spell(name)+": {forged}")
	}
	return lines
}

func asIs(name string) string { return name }

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

// forging is THREATS.md 1.
func (p *probe) forging() group {
	names, first := p.Identity, p.Identity[0]
	g := group{threat: 1, tries: triesForging, judged: judgedForging}
	add := func(name string, need needs, bytes string) {
		g.attacks = append(g.attacks, attack{name: name, as: everyone, bytes: bytes, needs: need, judge: truth})
	}
	for _, name := range names {
		add(name, 0, get(name+": {forged}"))
	}
	if p.ownsFamily() {
		add("other names of the family", 0, get("X-WX-FROM-OPENID: {forged}", "X-WX-CLOUDBASE-ACCESS-TOKEN: {forged}", "X-WX-PHONE: {forged}", "X-WX-: {forged}"))
	}
	add("in lower case", 0, get(forge(names, strings.ToLower)...))
	add("in canonical case", 0, get(forge(names, http.CanonicalHeaderKey)...))
	add("in odd case", 0, get(forge(names, func(s string) string { return strings.ToLower(s[:1]) + s[1:len(s)-1] + strings.ToLower(s[len(s)-1:]) })...))
	add("twice", 0, get(first+": {forged}", strings.ToLower(first)+": {forged}2"))
	add("a list", 0, get(first+": {forged}, {forged}2"))
	add("empty", needEcho, get(first+":", strings.ToLower(first)+": "))
	add("before the credential", 0, "GET {target} HTTP/1.1\r\n"+first+": {forged}\r\nHost: {host}\r\n{id}{auth}\r\n")
	add("HTTP/1.0", 0, "GET {target} HTTP/1.0\r\nHost: {host}\r\n{id}{auth}"+strings.Join(forge(names, asIs), "\r\n")+"\r\n\r\n")
	add("POST", 0, "POST {target} HTTP/1.1\r\nHost: {host}\r\n{id}{auth}"+first+": {forged}\r\nContent-Length: 1\r\n\r\nx")
	add("a blank before the colon", needEcho, get(first+" : {forged}"))
	add("a folded line", needEcho, get("X-A: b", " "+first+": {forged}"))
	add("behind a lone CR", needEcho, get("X-A: b\r"+first+": {forged}"))
	add("lone LFs", 0, strings.ReplaceAll("GET {target} HTTP/1.1\nHost: {host}\n{id}{auth}"+first+": {forged}\n\n", "\r", ""))
	var fields [][2]string
	for _, name := range names {
		fields = append(fields, [2]string{strings.ToLower(name), "{forged}"})
	}
	over := func(name string, fields ...[2]string) {
		g.attacks = append(g.attacks, attack{name: "HTTP/2: " + name, as: everyone, frames: &stream{fields: fields}, judge: truth})
	}
	over("the names", fields...)
	over("twice", fields[0], [2]string{fields[0][0], "{forged}2"})
	over("in upper case", [2]string{strings.ToUpper(first), "{forged}"})
	over("CR and LF in a value", [2]string{"x-a", "b\r\n" + first + ": {forged}"})
	return g
}

// respelling is THREATS.md 2.
func (p *probe) respelling() group {
	g := group{threat: 2, tries: "Sends identity headers in a spelling that some servers take for the same", judged: judgedForging}
	for _, c := range punctuation {
		c := string(c)
		g.attacks = append(
			g.attacks,
			attack{name: respelt(c, eachHyphen)(p.Identity[0]), as: everyone, bytes: get(forge(p.Identity, respelt(c, eachHyphen))...), judge: truth},
			attack{name: respelt(c, lastHyphen)(p.Identity[0]) + " and the like", as: everyone, bytes: get(append(forge(p.Identity, respelt(c, firstHyphen)), forge(p.Identity, respelt(c, lastHyphen))...)...), judge: truth},
		)
		g.attacks = append(g.attacks, attack{name: "HTTP/2: " + respelt(c, eachHyphen)(p.Identity[0]), as: everyone, frames: &stream{fields: [][2]string{{strings.ToLower(respelt(c, eachHyphen)(p.Identity[0])), "{forged}"}}}, judge: truth})
	}
	for _, c := range []string{" ", "/", "\t", "\x00"} {
		g.attacks = append(g.attacks, attack{name: "not a name: " + strings.NewReplacer("\t", "(tab)", "\x00", "(NUL)").Replace(respelt(c, eachHyphen)(p.Identity[0])), as: everyone, needs: needEcho, bytes: get(respelt(c, eachHyphen)(p.Identity[0]) + ": {forged}"), judge: truth})
	}
	return g
}
