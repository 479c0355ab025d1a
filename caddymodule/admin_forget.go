package caddymodule

import (
	"context"
	"errors"
	"net/http"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
)

// forgetAnswer is what POST /wechat/forget tells when it is done.
type forgetAnswer struct {
	Target    string `json:"target"`              // user or unionid
	Forgotten *ended `json:"forgotten,omitempty"` // users who were known, and their live sessions; absent when that could not be found out before
}

// serveForget takes any mini program, one that is no longer configured, too: its users are to be forgotten the sooner.
func serveForget(live *running, w http.ResponseWriter, r *http.Request) error {
	kind, t, err := readTarget(w, r, "user", "unionid")
	if err != nil {
		return err
	}
	n, err := live.forget(context.WithoutCancel(r.Context()), kind, t) // what was begun is finished, as with a revocation
	t.audit(r, "user forgotten", kind, n, err)
	switch {
	case errors.Is(err, session.ErrUnavailable):
		return refusal(http.StatusServiceUnavailable, "the session store does not answer: this gate refuses the user's sessions from now on, but may not have forgotten the user: repeat it", err)
	case err != nil:
		return storeRefusal(err)
	}
	return answerAdmin(w, forgetAnswer{Target: kind, Forgotten: n})
}

// forget removes what is known of a target and returns how much it was.
func (live *running) forget(ctx context.Context, kind string, t adminTarget) (*ended, error) {
	users, unknown := live.known(ctx, kind, t)
	var err error
	if kind == "user" {
		err = live.sessions.Forget(ctx, t.user())
	} else {
		_, err = live.sessions.ForgetUnionID(ctx, t.UnionID)
	}
	if err != nil || unknown != nil {
		return nil, err
	}
	n := countLive(users...)
	n.Users = len(users)
	return n, nil
}
