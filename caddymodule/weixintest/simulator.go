package weixintest

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// maxRequestBody bounds what is read of one request, in bytes.
const maxRequestBody = 1 << 20

// Config describes a Simulator. Only Apps is needed.
type Config struct {
	// Apps holds the AppSecret of each mini program (and plugin) by appid.
	Apps map[string]string
	// Components are the third-party platforms.
	Components []Component
	// Now is the clock of codes, keys, tokens, limits and Date; nil means time.Now. A
	// fault's Delay passes in real time (in bubble time inside
	// testing/synctest).
	Now func() time.Time
	// KeyRefresh is the shortest time between two session_keys of one user:
	// wx.login after it brings a new key (docs/wechat.md#session-key). Zero
	// means DefaultKeyRefresh; a negative value renews the key at each
	// wx.login.
	KeyRefresh time.Duration
	// OnCall, if not nil, is told of each call once it is over, from the
	// goroutine that served it.
	OnCall func(Call)
}

// Simulator is api.weixin.qq.com as an http.Handler. Make one with New. Its
// methods are safe for concurrent use.
type Simulator struct {
	cfg    Config
	routes map[string]route
	admin  http.Handler
	done   chan struct{}  // closed by Close
	busy   sync.WaitGroup // calls in work

	mu   sync.Mutex
	apps map[string]*app
	// platforms are the third-party platforms by appid; the map never changes.
	platforms map[string]*platform
	codes     map[string]*code
	minted    []*code
	tokens    map[string]*token
	media     map[string]medium
	faults    []*Fault
	calls     []*Call
	counts    map[string]int
	replies   int
}

// app is one mini program as WeChat keeps it.
type app struct {
	id, secret string
	users      map[string]*user // by name
	openids    map[string]*user
	current    *token
	forced     []time.Time // forced token refreshes of the last day
	push       *PushSettings
}

// New returns a Simulator of the given mini programs.
func New(cfg Config) *Simulator {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.KeyRefresh == 0 {
		cfg.KeyRefresh = DefaultKeyRefresh
	}
	s := &Simulator{
		cfg:    cfg,
		done:   make(chan struct{}),
		apps:   make(map[string]*app),
		codes:  make(map[string]*code),
		tokens: make(map[string]*token),
		media:  make(map[string]medium),
		counts: make(map[string]int),

		platforms: make(map[string]*platform),
	}
	for _, c := range cfg.Components {
		s.platforms[c.AppID] = newPlatform(c)
	}
	for id, secret := range cfg.Apps {
		s.apps[id] = &app{
			id: id, secret: secret,
			users: make(map[string]*user), openids: make(map[string]*user),
		}
	}
	s.routes = s.table()
	s.admin = s.controlHandler()
	return s
}

// SetSecret replaces the AppSecret of a mini program, as a reset in the console
// does: WeChat refuses the old one (40125) at once. It panics when the appid is
// unknown.
func (s *Simulator) SetSecret(appid, secret string) {
	if err := s.checkApp(appid); err != nil {
		panic("weixintest: " + err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[appid].secret = secret
}

// Close ends every call that a fault holds up and returns when no call is in
// work. Later calls are broken off.
func (s *Simulator) Close() {
	s.stop()
	s.busy.Wait()
}

func (s *Simulator) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed() {
		close(s.done)
	}
}

func (s *Simulator) closed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// query is one call of the API while it is worked on.
type query struct {
	url.Values
	body        []byte
	contentType string
	now         time.Time
	app         *app // owner of the access_token, where one is needed
	call        *Call
}

// route is one path of the API. Its work runs under the Simulator's lock and
// returns the success object, or a picture, or an errcode other than 0.
type route struct {
	method string // empty: any
	mime   string
	token  bool // access_token needed
	work   func(*query) (any, int)
}

func (s *Simulator) table() map[string]route {
	const (
		text  = "text/plain"                       // docs/wechat.md#code2session-response
		loose = "application/json; encoding=utf-8" // docs/wechat.md#code2session-response
		json  = "application/json; charset=UTF-8"
	)
	routes := map[string]route{
		"/sns/jscode2session":              {"", text, false, s.code2Session},
		"/cgi-bin/stable_token":            {http.MethodPost, loose, false, s.stableToken},
		"/wxa/checksession":                {http.MethodGet, json, true, s.checkSession},
		"/wxa/resetusersessionkey":         {http.MethodGet, json, true, s.resetSessionKey},
		"/wxa/business/getuserencryptkey":  {"", json, true, s.userEncryptKey},
		"/wxa/business/getuserphonenumber": {http.MethodPost, json, true, s.phoneNumber},
		"/wxa/getpaidunionid":              {http.MethodGet, json, true, s.paidUnionID},
		"/wxa/getpluginopenpid":            {http.MethodPost, json, true, s.pluginOpenPID},
		"/wxa/getwxacodeunlimit":           {http.MethodPost, json, true, s.miniProgramCode},
		"/wxa/msg_sec_check":               {http.MethodPost, json, true, s.checkText},
		"/cgi-bin/message/subscribe/send":  {http.MethodPost, json, true, s.sendMessage},
		"/cgi-bin/message/custom/send":     {http.MethodPost, json, true, s.sendMessage},
		"/cgi-bin/media/upload":            {http.MethodPost, text, true, s.uploadMedia},
		"/cgi-bin/media/get":               {http.MethodGet, json, true, s.getMedia},
	}
	routes["/sns/component/jscode2session"] = route{"", text, false, s.componentCode2Session}
	for name, work := range map[string]func(*query) (any, int){
		"api_component_token":     s.componentToken,
		"api_create_preauthcode":  s.preAuthCode,
		"api_query_auth":          s.queryAuth,
		"api_authorizer_token":    s.authorizerToken,
		"api_get_authorizer_list": s.authorizerList,
		"api_start_push_ticket":   s.startPushTicket,
	} {
		routes["/cgi-bin/component/"+name] = route{http.MethodPost, json, false, work}
	}
	return routes
}

// ServeHTTP answers one call of the simulated API, or of the control API under
// /_sim/.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, controlPrefix) {
		s.admin.ServeHTTP(w, r)
		return
	}
	// net/http notices that a client has gone only after the body was read.
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Date", s.cfg.Now().UTC().Format(http.TimeFormat))
	call, fault := s.arrive(r)
	defer s.busy.Done()
	if s.cfg.OnCall != nil {
		defer func() { s.cfg.OnCall(s.snapshot(call)) }()
	}
	s.play(w, r, fault, call, func() reply { return s.work(r, body, call) })
}

// work does what WeChat would do with the call.
func (s *Simulator) work(r *http.Request, body []byte, call *Call) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &query{
		Values: r.URL.Query(), body: body, contentType: r.Header.Get("Content-Type"),
		now: s.cfg.Now(), call: call,
	}
	rt, known := s.routes[r.URL.Path]
	if !known {
		unknown := func(*query) (any, int) { return nil, 40066 }
		rt = route{"", "application/json; charset=UTF-8", false, unknown}
	}
	v, code := s.dispatch(rt, r.Method, q)
	call.ErrCode = code
	if code != 0 {
		v = s.failure(q.now, textCode(r.URL.Path, code), message(code))
	}
	if p, ok := v.(picture); ok {
		return reply{status: http.StatusOK, mime: p.mime, body: p.data}
	}
	return reply{status: http.StatusOK, mime: rt.mime, body: encode(v)}
}

func (s *Simulator) dispatch(rt route, method string, q *query) (any, int) {
	switch {
	case rt.method == http.MethodGet && method != http.MethodGet:
		return nil, 43001
	case rt.method == http.MethodPost && method != http.MethodPost:
		return nil, 43002
	}
	if rt.token {
		a, code := s.authorize(q.Get("access_token"), q.now)
		if code != 0 {
			return nil, code
		}
		q.app, q.call.AppID = a, a.id
	}
	return rt.work(q)
}
