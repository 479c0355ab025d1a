package wechatauth

import (
	"errors"
	"net/http"
	"slices"

	"github.com/wxgate/wxgate/caddymodule/internal/gate"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// Claims is what a request says of itself, read once and without the store.
type Claims struct {
	Route     gate.Route
	Token     string // "": none
	Ticket    string // of the query; counts when there is no token
	Ambiguous error  // two different tokens
	Stray     string // a place with a token in it that is not read
	Early     bool   // over HTTP/3, before the handshake is complete
	Unsafe    bool   // the method may change something
	Trailer   error  // declares a trailer under an owned name

	Cloudrun bool // the site trusts WeChat Cloud Hosting
	Platform gate.Platform
	Untrue   error    // why the platform's headers do not count
	Apps     []string // mini programs that the site accepts; nil: any
}

// Action is what the handler does with a request.
type Action int

// The actions.
const (
	Refuse Action = iota // answer Problem
	Answer               // an endpoint of the gate answers
	Check                // the session behind the token decides
	Trust                // pass it on with what WeChat Cloud Hosting says
	Pass                 // pass it on without an identity
)

// Decision is what becomes of a request.
type Decision struct {
	Do      Action
	Result  Result         // for the metric; with Check when the session is valid
	Problem *reply.Problem // with Refuse
	Why     string         // in place of the detail of Problem, where not empty
}

// The problems of cloudrun mode. 403, not 401: there is no login endpoint in this
// mode, and a client would retry login forever.
var (
	identityMissing = reply.Problem{
		Status: 403, Code: "identity_missing",
		Detail: "this route needs a user, " +
			"and the request does not come from one by way of WeChat Cloud Hosting",
	}
	identityRefused = reply.Problem{
		Status: 403, Code: "identity_refused",
		Detail: "the identity headers of this request are not those of WeChat Cloud Hosting",
	}
)

// tooEarly refuses what an observer could replay, or send from another's address
// (docs/threats.md#t38). Clients repeat the request by themselves (RFC 8470, 5.2).
var tooEarly = reply.Problem{
	Status: http.StatusTooEarly, Code: "too_early",
	Detail: "the TLS handshake is not complete: send the request again",
}

// Decide returns what becomes of a request. It is pure: ServeHTTP executes it, the
// command explain prints it.
func Decide(c Claims) Decision {
	switch class := c.Route.Class; {
	case c.Trailer != nil:
		return refuse(BadTrailer, &reply.BadTrailer, c.Trailer.Error())
	case class == gate.Public:
		return Decision{Do: Pass, Result: Public}
	case class == gate.NotFound:
		return refuse(NotFound, &reply.NotFound, "")
	case class == gate.Endpoint && endpointOf(c.Route.Endpoint).health:
		return Decision{Do: Answer}
	case c.Cloudrun:
		return decideCloudrun(c)
	case c.Ambiguous != nil && !endpointOf(c.Route.Endpoint).open:
		return refuse(Ambiguous, &reply.Ambiguous, c.Ambiguous.Error())
	case c.Early && (class == gate.Endpoint || c.Unsafe && c.Token != ""):
		return refuse(Early, &tooEarly, "")
	case class == gate.Endpoint:
		return Decision{Do: Answer}
	case c.Token != "" || c.Ticket != "":
		return Decision{Do: Check, Result: Accepted}
	case class == gate.Optional:
		return Decision{Do: Pass, Result: Guest}
	}
	return refuse(Missing, &reply.SessionMissing, "")
}

// decideCloudrun goes on where the site trusts WeChat Cloud Hosting.
func decideCloudrun(c Claims) Decision {
	switch id := c.Platform.Identity; {
	case c.Route.Class == gate.Endpoint:
		return refuse(NotFound, &reply.NotFound,
			"behind WeChat Cloud Hosting there is no login endpoint")
	case errors.Is(c.Untrue, gate.ErrAmbiguousPlatform):
		return refuse(Ambiguous, &identityRefused, c.Untrue.Error())
	case errors.Is(c.Untrue, gate.ErrLocalDebug):
		return refuse(LocalDebug, &identityRefused, c.Untrue.Error())
	case c.Untrue != nil:
		return refuse(NotPlatform, &identityRefused, c.Untrue.Error())
	case id[gate.OpenID] == "" || id[gate.AppID] == "":
		if c.Route.Class == gate.Optional {
			return Decision{Do: Trust, Result: Guest}
		}
		return refuse(Missing, &identityMissing, "")
	case c.Apps != nil && !slices.Contains(c.Apps, id[gate.AppID]):
		return refused(reply.NotServed(id[gate.AppID]))
	}
	return Decision{Do: Trust, Result: Accepted}
}

// refusals are the ends of Check other than Accepted. The client learns less than
// the metric and the log (docs/threats.md#t22).
var refusals = []struct {
	err     error
	result  Result
	problem *reply.Problem
}{
	{session.ErrMalformed, Malformed, &reply.SessionInvalid},
	{session.ErrForged, Forged, &reply.SessionInvalid},
	{session.ErrForeign, Forged, &reply.SessionInvalid},
	{session.ErrUnknown, Unknown, &reply.SessionInvalid},
	{session.ErrExpired, Expired, &reply.SessionInvalid},
	{session.ErrRevoked, Revoked, &reply.SessionInvalid},
	{reply.OtherApp, OtherApp, &reply.OtherApp},
	// A login never makes a session whose identity is unfit for a header.
	{gate.ErrBadIdentity, BadIdentity, &reply.SessionInvalid},
}

// refused returns the decision for an error of Check. An error that no row knows is
// a fault of the gate's own, which must not cost the user the session.
func refused(err error) Decision {
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			why := ""
			if p, ok := errors.AsType[reply.Problem](err); ok {
				why = p.Detail
			}
			return refuse(row.result, row.problem, why)
		}
	}
	return refuse(StoreDown, &reply.StoreDown, "")
}

func refuse(result Result, p *reply.Problem, why string) Decision {
	return Decision{Do: Refuse, Result: result, Problem: p, Why: why}
}
