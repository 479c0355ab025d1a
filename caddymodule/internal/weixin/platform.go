package weixin

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"time"
)

// Platform is a third-party platform (component), which stands in for the AppSecret of
// the mini programs that have authorised it (docs/wechat.md#component). It keeps the
// tokens; its errors are [*Error].
type Platform interface {
	// AppID returns the appid of the platform itself.
	AppID() string

	// ComponentToken returns the component_access_token: another one than refused, which
	// WeChat has refused, or "" for none.
	ComponentToken(ctx context.Context, refused string) (string, error)

	// MerchantToken returns the authorizer_access_token of a mini program, likewise.
	MerchantToken(ctx context.Context, appID, refused string) (string, error)

	// Doubted hears that WeChat says a mini program has not authorised the platform.
	Doubted(appID string)
}

const (
	opComponentToken = "getting component_access_token"
	opQueryAuth      = "getting authorisation of a mini program"
	opMerchantToken  = "getting authorizer_access_token"
	opList           = "listing authorised mini programs"
	opPreAuth        = "getting pre_auth_code"
	opStartPush      = "asking for component_verify_ticket"

	// ListPage is how many mini programs one answer of Authorizers lists.
	ListPage = 500

	maxList = 1 << 20 // bytes of such an answer: about 100 KiB come
)

// PlatformToken is a token with its life, and for a mini program its refresh token. Printing,
// logging or marshalling it shows nothing of it.
type PlatformToken struct {
	unprintable

	Token   string
	Refresh string // empty: unchanged, or a component's
	Life    time.Duration
}

// Authorization is the answer to an authorization_code.
type Authorization struct {
	AppID string
	PlatformToken
}

// Authorizer is a mini program of the list of a platform. Refresh is empty when its
// authorization_code was never exchanged. Its printing shows no token.
type Authorizer struct {
	unprintable

	AppID, Refresh string
}

// Refusal returns an error that a Platform makes itself: no request was sent.
func Refusal(op string, class Class, reason string) *Error {
	return &Error{Op: op, Class: class, Reason: reason, unsent: true}
}

// componentSession is Code2Session for a mini program of a third-party platform. WeChat
// judges the component_access_token before the code, so the code is not spent when it
// refuses that.
func (c *Client) componentSession(
	ctx context.Context, app Credentials, code string,
) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	token, err := app.Platform.ComponentToken(ctx, "")
	if err != nil {
		return Session{}, err
	}
	for second := false; ; second = true {
		s, err := do(ctx, c, c.login, call{
			name: "component_code2session",
			app:  app.ID,
			op:   opExchange,
			path: "sns/component/jscode2session",
			query: url.Values{
				"appid":                  {app.ID},
				"js_code":                {code},
				"grant_type":             {"authorization_code"},
				"component_appid":        {app.Platform.AppID()},
				"component_access_token": {token},
			},
			odd: isOdd(code),
		}, decodeSession)
		e, refused := errors.AsType[*Error](err)
		if refused && e.Class == ClassUnauthorized {
			app.Platform.Doubted(app.ID)
		}
		if second || !refused || !isTokenRefusal(e.ErrCode) {
			return s, err
		}
		another, tokenErr := app.Platform.ComponentToken(ctx, token)
		if tokenErr != nil {
			return s, err
		}
		token = another
	}
}

// ladder makes a call of the third-party platform in its own name. token is empty for
// the calls that need none.
func ladder[T any](
	ctx context.Context, c *Client, k call, app Credentials, token string, body map[string]any,
	decode func(answer) (T, *Error),
) (T, error) {
	if e := checkSecret(k.op, app); e != nil {
		var none T
		return none, e
	}
	k.app, k.name, k.path = app.ID, k.path, "cgi-bin/component/"+k.path
	if token != "" {
		k.query = url.Values{"component_access_token": {token}}
	}
	body["component_appid"] = app.ID
	k.body, _ = json.Marshal(body) // strings and numbers always marshal
	return do(ctx, c, c.other, k, decode)
}

// ComponentToken exchanges a component_verify_ticket for a component_access_token. The
// calls of a platform take its appid and AppSecret as Credentials. Any error is an
// [*Error], here and below.
func (c *Client) ComponentToken(
	ctx context.Context, platform Credentials, ticket string,
) (PlatformToken, error) {
	return ladder(ctx, c, call{path: "api_component_token", op: opComponentToken}, platform, "",
		map[string]any{
			"component_appsecret": platform.Secret, "component_verify_ticket": ticket,
		},
		decodeToken(func(f tokenFields) text { return f.Component }))
}

// QueryAuth exchanges the authorization_code of a mini program. WeChat accepts a code
// once, so it is sent a second time only as in Code2Session.
func (c *Client) QueryAuth(
	ctx context.Context, platform Credentials, token, code string,
) (Authorization, error) {
	return ladder(ctx, c, call{path: "api_query_auth", op: opQueryAuth}, platform, token,
		map[string]any{"authorization_code": code}, decodeAuthorization)
}

// MerchantToken exchanges the refresh token of a mini program for an
// authorizer_access_token. The new Refresh, if there is one, replaces the old.
func (c *Client) MerchantToken(
	ctx context.Context, platform Credentials, token, appID, refresh string,
) (PlatformToken, error) {
	return ladder(ctx, c, call{path: "api_authorizer_token", op: opMerchantToken}, platform, token,
		map[string]any{"authorizer_appid": appID, "authorizer_refresh_token": refresh},
		decodeToken(func(f tokenFields) text { return f.Merchant }))
}

// Authorizers lists mini programs that have authorised a platform, up to ListPage from
// offset on, and returns how many there are.
func (c *Client) Authorizers(
	ctx context.Context, platform Credentials, token string, offset int,
) (page []Authorizer, total int, err error) {
	page, err = ladder(ctx, c,
		call{path: "api_get_authorizer_list", op: opList, limit: maxList}, platform, token,
		map[string]any{"offset": offset, "count": ListPage},
		func(a answer) (page []Authorizer, e *Error) {
			page, total, e = decodeAuthorizers(a)
			return page, e
		})
	return page, total, err
}

// PreAuthCode returns a code for the page on which a mini program authorises the
// platform, and its life.
func (c *Client) PreAuthCode(
	ctx context.Context, platform Credentials, token string,
) (code string, life time.Duration, err error) {
	g, err := ladder(ctx, c, call{path: "api_create_preauthcode", op: opPreAuth}, platform, token,
		map[string]any{},
		decodeToken(func(f tokenFields) text { return f.PreAuth }))
	return g.Token, g.Life, err
}

// StartPushTicket has WeChat push tickets again, which it does from the start on and
// stops when the receiver fails.
func (c *Client) StartPushTicket(ctx context.Context, platform Credentials) error {
	_, err := ladder(ctx, c, call{path: "api_start_push_ticket", op: opStartPush}, platform, "",
		map[string]any{"component_secret": platform.Secret}, decodeCheck) // not …_appsecret
	return err
}

// tokenFields are the fields of the answers that hold a token.
type tokenFields struct {
	Component text    `json:"component_access_token"`
	Merchant  text    `json:"authorizer_access_token"`
	PreAuth   text    `json:"pre_auth_code"`
	Refresh   text    `json:"authorizer_refresh_token"`
	ExpiresIn integer `json:"expires_in"`
}

// grant accepts one of the tokens, with a life.
func (f tokenFields) grant(a answer, token text) (PlatformToken, *Error) {
	if !isVisible(string(token), maxToken) || f.ExpiresIn <= 0 {
		return PlatformToken{}, a.unusable("without a usable token and expires_in")
	}
	g := PlatformToken{Token: string(token)}
	if isVisible(string(f.Refresh), maxToken) {
		g.Refresh = string(f.Refresh)
	}
	seconds := min(int64(f.ExpiresIn), int64(maxTokenLife/time.Second))
	g.Life = time.Duration(seconds) * time.Second
	return g, nil
}

// decodeToken reads an answer that holds the token that pick takes out.
func decodeToken(pick func(tokenFields) text) func(answer) (PlatformToken, *Error) {
	return func(a answer) (PlatformToken, *Error) {
		var r struct {
			envelope
			tokenFields
		}
		if e := a.decode(&r, &r.envelope); e != nil {
			return PlatformToken{}, e
		}
		return r.grant(a, pick(r.tokenFields))
	}
}

func decodeAuthorization(a answer) (Authorization, *Error) {
	var r struct {
		envelope
		Info struct {
			tokenFields
			AppID text `json:"authorizer_appid"`
		} `json:"authorization_info"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return Authorization{}, e
	}
	if e := a.requireVisible("authorizer_appid", r.Info.AppID); e != nil {
		return Authorization{}, e
	}
	g, e := r.Info.grant(a, r.Info.Merchant)
	if e == nil && g.Refresh == "" {
		e = a.unusable("without a usable authorizer_refresh_token")
	}
	return Authorization{AppID: string(r.Info.AppID), PlatformToken: g}, e
}

func decodeAuthorizers(a answer) (page []Authorizer, total int, _ *Error) {
	var r struct {
		envelope
		Total *integer `json:"total_count"`
		List  []struct {
			AppID   text `json:"authorizer_appid"`
			Refresh text `json:"refresh_token"`
		} `json:"list"`
	}
	if e := a.decode(&r, &r.envelope); e != nil {
		return nil, 0, e
	}
	if r.Total == nil || *r.Total < 0 || *r.Total > 1<<24 || len(r.List) > ListPage {
		return nil, 0, a.unusable("without a usable list")
	}
	for _, m := range r.List {
		if e := a.requireVisible("authorizer_appid", m.AppID); e != nil {
			return nil, 0, e
		}
		one := Authorizer{AppID: string(m.AppID)}
		if isVisible(string(m.Refresh), maxToken) {
			one.Refresh = string(m.Refresh)
		}
		page = append(page, one)
	}
	return page, int(*r.Total), nil
}
