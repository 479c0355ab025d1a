package gate

import "net/http"

// sourceValue is what X-WX-SOURCE says of a call from a mini program (WECHAT.md 8.2).
const sourceValue = "wx_client"

// Identity is what the app is told about the caller.
type Identity struct {
	OpenID  string
	UnionID string // empty: not known
	AppID   string
}

// identityHeaders are canonical names, ready to be map keys.
type identityHeaders struct{ openID, unionID, appID, source string }

// Inject sets the identity headers of r, exactly one value each, and the unionid only when it is known. It wants
// r cleaned. It is all or nothing: a missing openid or appid, or a value that is not visible ASCII, is
// ErrBadIdentity and leaves r as it was, since half an identity could be taken for a whole one.
func (g *Gate) Inject(r *http.Request, id Identity) error {
	if id.OpenID == "" || id.AppID == "" || !isVisible(id.OpenID) || !isVisible(id.AppID) || !isVisible(id.UnionID) {
		return ErrBadIdentity
	}
	// One array for all values; the capacities keep a later Header.Add from writing into a neighbour.
	v := &[4]string{id.OpenID, id.AppID, sourceValue, id.UnionID}
	h := r.Header
	h[g.identity.openID] = v[0:1:1]
	h[g.identity.appID] = v[1:2:2]
	h[g.identity.source] = v[2:3:3]
	if id.UnionID != "" {
		h[g.identity.unionID] = v[3:4:4]
	} else {
		delete(h, g.identity.unionID)
	}
	return nil
}

func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
