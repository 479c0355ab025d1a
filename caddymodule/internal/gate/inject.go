package gate

import "net/http"

// sourceValue is what X-WX-SOURCE says of a call from a mini program (WECHAT.md 8.2).
const sourceValue = "wx_client"

// Identity is what the app is told about the caller.
type Identity struct {
	OpenID  string
	UnionID string // empty: not known
	AppID   string
	Phone   string // empty: not known, or not to be told
}

// identityHeaders are canonical names, ready to be map keys.
type identityHeaders struct{ openID, unionID, appID, source, phone string }

// Inject sets the identity headers of r, exactly one value each, and the unionid and the phone only when they are
// known. It wants r cleaned. It is all or nothing: a missing openid or appid, or a value that is not visible ASCII, is
// ErrBadIdentity and leaves r as it was, since half an identity could be taken for a whole one. A phone says nothing of
// who the caller is: one that is not visible ASCII is left out.
func (g *Rules) Inject(r *http.Request, id Identity) error {
	if id.OpenID == "" || id.AppID == "" || !isVisible(id.OpenID) || !isVisible(id.AppID) || !isVisible(id.UnionID) {
		return ErrBadIdentity
	}
	// One array for all values; the capacities keep a later Header.Add from writing into a neighbour.
	v := &[5]string{id.OpenID, id.AppID, sourceValue, id.UnionID, id.Phone}
	h := r.Header
	h[g.identity.openID] = v[0:1:1]
	h[g.identity.appID] = v[1:2:2]
	h[g.identity.source] = v[2:3:3]
	if id.UnionID != "" {
		h[g.identity.unionID] = v[3:4:4]
	} else {
		delete(h, g.identity.unionID)
	}
	if id.Phone != "" && isVisible(id.Phone) {
		h[g.identity.phone] = v[4:5:5]
	} else {
		delete(h, g.identity.phone)
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
