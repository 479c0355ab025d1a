package weixintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const controlPrefix = "/_sim/"

// The bodies of control requests. JSON ignores the case of names.
type (
	who           struct{ AppID, User string } // names a user
	phoneRequest  struct{ AppID, Phone string }
	pluginRequest struct{ Plugin, Host, User string }
	secretRequest struct{ AppID, Secret string }
	merchant      struct{ Component, AppID string } // of a third-party platform
	eventsRequest struct{ Component, URL string }
)

type pushURLRequest struct {
	AppID string `json:"appid"`
	PushSettings
}

type pushRequest struct {
	AppID string `json:"appid"`
	Push
}

type encryptRequest struct {
	who
	Data json.RawMessage `json:"data"`
}

type userRequest struct {
	who
	UserOptions
	KeyRefresh duration `json:"key_refresh"`
}

type userAnswer struct {
	OpenID     string `json:"openid"`
	UnionID    string `json:"unionid,omitempty"`
	SessionKey string `json:"session_key"`
}

type faultRequest struct {
	Fault
	Delay duration `json:"delay"`
}

// controlHandler is the control API of the package comment. An answer of nil
// becomes 204.
func (s *Simulator) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /_sim/code", control(func(in who) (any, error) {
		return map[string]string{"code": s.Code(in.AppID, in.User)}, s.checkApp(in.AppID)
	}))
	mux.Handle("POST /_sim/phone_code", control(func(in phoneRequest) (any, error) {
		return map[string]string{"code": s.PhoneCode(in.AppID, in.Phone)}, s.checkApp(in.AppID)
	}))
	mux.Handle("POST /_sim/plugin_code", control(func(in pluginRequest) (any, error) {
		code := s.PluginCode(in.Plugin, in.Host, in.User)
		return map[string]string{"code": code}, s.checkApp(in.Plugin)
	}))
	mux.Handle("POST /_sim/encrypt", control(func(in encryptRequest) (any, error) {
		return s.Encrypt(in.AppID, in.User, in.Data)
	}))
	mux.Handle("POST /_sim/user", control(func(in userRequest) (any, error) {
		in.UserOptions.KeyRefresh = time.Duration(in.KeyRefresh)
		s.SetUser(in.AppID, in.User, in.UserOptions)
		return s.describe(in.who), s.checkApp(in.AppID)
	}))
	mux.Handle("POST /_sim/rotate_key", control(func(in who) (any, error) {
		s.RotateKey(in.AppID, in.User)
		return s.describe(in), s.checkApp(in.AppID)
	}))
	mux.Handle("POST /_sim/pay", control(func(in who) (any, error) {
		return s.Pay(in.AppID, in.User), s.checkApp(in.AppID)
	}))
	mux.Handle("POST /_sim/fault", control(func(in faultRequest) (any, error) {
		in.Fault.Delay = time.Duration(in.Delay)
		if err := in.check(); err != nil {
			return nil, err
		}
		s.Inject(in.Fault)
		return nil, nil
	}))
	mux.Handle("POST /_sim/secret", control(func(in secretRequest) (any, error) {
		if err := s.checkApp(in.AppID); err != nil {
			return nil, err
		}
		s.SetSecret(in.AppID, in.Secret)
		return nil, nil
	}))
	mux.Handle("POST /_sim/push_url", control(func(in pushURLRequest) (any, error) {
		return nil, s.SetPush(context.Background(), in.AppID, in.PushSettings)
	}))
	mux.Handle("POST /_sim/push", control(func(in pushRequest) (any, error) {
		return s.Push(context.Background(), in.AppID, in.Push)
	}))
	mux.Handle("POST /_sim/component/ticket", control(func(in merchant) (any, error) {
		return s.PushTicket(context.Background(), in.Component)
	}))
	mux.Handle("POST /_sim/component/authorize", control(func(in merchant) (any, error) {
		return s.Authorize(context.Background(), in.Component, in.AppID)
	}))
	mux.Handle("POST /_sim/component/unauthorize", control(func(in merchant) (any, error) {
		return s.Unauthorize(context.Background(), in.Component, in.AppID)
	}))
	mux.Handle("POST /_sim/component/events_url", control(func(in eventsRequest) (any, error) {
		return nil, s.SetEventsURL(in.Component, in.URL)
	}))
	mux.Handle("POST /_sim/component/lose_refresh_tokens", control(
		func(in merchant) (any, error) { return nil, s.LoseRefreshTokens(in.Component) }))
	mux.Handle("POST /_sim/expire_tokens", control(func(struct{}) (any, error) {
		s.ExpireTokens()
		return nil, nil
	}))
	mux.Handle("POST /_sim/reset", control(func(struct{}) (any, error) {
		s.Reset()
		return nil, nil
	}))
	mux.Handle("GET /_sim/calls", control(func(struct{}) (any, error) {
		return struct {
			Counts map[string]int `json:"counts"`
			Calls  []Call         `json:"calls"`
		}{s.allCounts(), s.Calls()}, nil
	}))
	return localOnly(mux)
}

// localOnly refuses requests that a browser sends for a page
// (docs/threats.md#t31), of the same origin, too: DNS rebinding makes every
// page so.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		site := r.Header.Get("Sec-Fetch-Site")
		if len(r.Header["Origin"]) > 0 || site != "" && site != "none" {
			err := errors.New("the control API takes no requests from web pages")
			refuseControl(w, http.StatusForbidden, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// control reads one JSON object (none is an empty one) and answers with what do
// returns; its error is the caller's mistake.
func control[In any](do func(In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody))
		d.DisallowUnknownFields()
		err := d.Decode(&in)
		if err == nil && d.More() {
			err = errors.New("more than one JSON value")
		}
		if err != nil && err != io.EOF {
			refuseControl(w, http.StatusBadRequest, err)
			return
		}
		out, err := do(in)
		switch {
		case err != nil:
			refuseControl(w, http.StatusBadRequest, err)
		case out == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			reply{http.StatusOK, "application/json", append(mustJSON(out), '\n')}.write(w)
		}
	}
}

func refuseControl(w http.ResponseWriter, status int, err error) {
	body := mustJSON(map[string]string{"error": strings.TrimPrefix(err.Error(), "json: ")})
	reply{status, "application/json", append(body, '\n')}.write(w)
}

func (s *Simulator) checkApp(appid string) error {
	if s.apps[appid] == nil { // never changes after New
		return fmt.Errorf("unknown appid %q", appid)
	}
	return nil
}

// describe tells what a test needs to know of a user, "" throughout for an
// unknown appid.
func (s *Simulator) describe(w who) (out userAnswer) {
	s.onUser(w.AppID, w.User, func(u *user) {
		out = userAnswer{u.openid, u.unionID(), s.key(u)}
	})
	return out
}

// duration is a time.Duration written as "1m30s".
type duration time.Duration

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}
