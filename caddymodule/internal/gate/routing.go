package gate

import "net/http"

// routingNames are the headers, folded, by which some apps route in place of path and
// method.
var routingNames = func() (t nameTable) {
	for _, name := range []string{
		"x-original-url", "x-original-uri", "x-original-path", "x-original-method",
		"x-rewrite-url", "x-rewrite-uri", "x-rewrite-path", "x-override-url", "x-override-uri",
		"x-http-method-override", "x-http-method", "x-method-override", "x-override-method",
		"x-http-path-override", "x-path-override",
		"x-forwarded-uri", "x-forwarded-url", "x-forwarded-path", "x-forwarded-method",
		"unencoded-url",
	} {
		t.list = append(t.list, namedKind{folded: name, kind: routing})
		t.lengths |= lengthBit(name)
	}
	return t
}()

// DropRouting removes, in any spelling, the headers by which an app may route
// elsewhere than the path says. It is for paths that a rule opened
// (docs/threats.md#t44).
func (g *Rules) DropRouting(r *http.Request) {
	for name := range r.Header {
		if k, _ := routingNames.classify(name); k == routing {
			delete(r.Header, name)
		}
	}
}
