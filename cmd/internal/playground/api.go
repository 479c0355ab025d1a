package playground

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"slices"

	"github.com/wxgate/wxgate/caddymodule/weixintest"
)

// maxCall bounds a call of the page, in bytes: a request with its body, as JSON.
const maxCall = 512 << 10

// mistake is a call that cannot be done. The page has words for each code.
type mistake struct {
	Code   string `json:"error"`
	Detail string `json:"detail,omitempty"`
}

func (m mistake) Error() string { return m.Code + ": " + m.Detail }

// call reads one JSON object and answers with what do returns.
func call[In any](s *Server, do func(*http.Request, In) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxCall))
		d.DisallowUnknownFields()
		out, err := any(nil), d.Decode(&in)
		if err != nil {
			err = mistake{"bad_call", err.Error()}
		} else {
			out, err = do(r, in)
		}
		status := http.StatusOK
		if err != nil {
			var m mistake
			if !errors.As(err, &m) {
				m = mistake{"failed", err.Error()}
			}
			status, out = http.StatusBadRequest, m
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(out) // a page that is gone reads no answer
	}
}

func (s *Server) state(*http.Request, struct{}) (any, error) {
	return struct {
		Sites  []Site   `json:"sites"`
		Users  []string `json:"users"`
		WeChat string   `json:"wechat"`
	}{s.cfg.Sites, s.cfg.Users, s.weChat()}, nil
}

// person names a user of a mini program.
type person struct {
	AppID string `json:"appid"`
	User  string `json:"user"`
}

func (s *Server) check(p person) error {
	if !UserShape.MatchString(p.User) {
		return mistake{"bad_user", p.User}
	}
	return s.checkApp(p.AppID)
}

func (s *Server) checkApp(appID string) error {
	for _, site := range s.cfg.Sites {
		if slices.Contains(site.Apps, appID) {
			return nil
		}
	}
	return mistake{"bad_app", appID}
}

type codeAnswer struct {
	Code string `json:"code"`
}

// code does what wx.login does.
func (s *Server) code(_ *http.Request, in struct {
	person
	UnionID bool `json:"unionid"`
},
) (any, error) {
	if err := s.check(in.person); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// SetUser replaces what the developer may have set over /_sim/user, so it waits for
	// a change.
	if key := [2]string{in.AppID, in.User}; s.noUnionID[key] == in.UnionID {
		s.noUnionID[key] = !in.UnionID
		s.cfg.WeChat.SetUser(in.AppID, in.User, weixintest.UserOptions{NoUnionID: !in.UnionID})
	}
	return codeAnswer{s.cfg.WeChat.Code(in.AppID, in.User)}, nil
}

var phoneShape = regexp.MustCompile(`^(\d{1,4}-)?\d{5,15}$`)

// phoneCode does what a getPhoneNumber button does.
func (s *Server) phoneCode(_ *http.Request, in struct {
	AppID string `json:"appid"`
	Phone string `json:"phone"`
},
) (any, error) {
	if !phoneShape.MatchString(in.Phone) {
		return nil, mistake{"bad_phone", in.Phone}
	}
	if err := s.checkApp(in.AppID); err != nil {
		return nil, err
	}
	return codeAnswer{s.cfg.WeChat.PhoneCode(in.AppID, in.Phone)}, nil
}

// encrypt does what wx.getUserInfo and its kind do: it seals data of the user.
func (s *Server) encrypt(_ *http.Request, in struct {
	person
	Data json.RawMessage `json:"data"`
},
) (any, error) {
	if err := s.check(in.person); err != nil {
		return nil, err
	}
	sealed, err := s.cfg.WeChat.Encrypt(in.AppID, in.User, in.Data)
	if err != nil {
		return nil, mistake{"bad_data", err.Error()}
	}
	return sealed, nil
}
