package session_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

var (
	_ session.Caller    = (*weixin.Client)(nil)
	_ session.Exchanger = (*weixin.Client)(nil)
)

// platform is WeChat with a session_key for each openid: all calls but the
// signatures.
type platform struct {
	// answered is called when a call has taken effect, before its answer. An
	// error becomes the answer. It may block.
	answered func(ctx context.Context, op string) error

	mu    sync.Mutex
	keys  map[string]string
	calls map[string]int
	args  []string // of the calls that have them
}

func newPlatform() *platform {
	return &platform{keys: make(map[string]string), calls: make(map[string]int)}
}

func newSessionKey() string {
	var b [16]byte
	rand.Read(b[:])
	return base64.StdEncoding.EncodeToString(b[:])
}

// key returns the session_key of a user.
func (p *platform) key(openID string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys[openID] == "" {
		p.keys[openID] = newSessionKey()
	}
	return p.keys[openID]
}

// renew gives the user another session_key.
func (p *platform) renew(openID string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[openID] = newSessionKey()
	return p.keys[openID]
}

func (p *platform) count(op string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[op]
}

// asked returns how many calls there were.
func (p *platform) asked() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, of := range p.calls {
		n += of
	}
	return n
}

func (p *platform) answer(ctx context.Context, op string, args ...any) error {
	p.mu.Lock()
	p.calls[op]++
	p.args = append(p.args, fmt.Sprintln(append([]any{op}, args...)...))
	p.mu.Unlock()
	if p.answered != nil {
		if err := p.answered(ctx, op); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return &weixin.Error{Op: op, Class: weixin.ClassCanceled, Reason: "the caller gave up"}
	}
	return nil
}

// Code2Session takes codes as wechat does.
func (p *platform) Code2Session(
	ctx context.Context, _ weixin.Credentials, code string,
) (weixin.Session, error) {
	who, _, _ := strings.Cut(code, "#")
	openID, unionID, _ := strings.Cut(who, "/")
	s := weixin.Session{OpenID: openID, SessionKey: p.key(openID), UnionID: unionID}
	return s, p.answer(ctx, "Code2Session")
}

func stale(op string) error {
	return &weixin.Error{
		Op: op, Class: weixin.ClassKeyStale, ErrCode: 87009, Reason: "signature refused",
	}
}

func (p *platform) CheckSession(ctx context.Context, _ weixin.Credentials, s weixin.Session) error {
	if s.SessionKey != p.key(s.OpenID) {
		return stale("checking session_key")
	}
	return p.answer(ctx, "CheckSession")
}

func (p *platform) ResetUserSessionKey(
	ctx context.Context, _ weixin.Credentials, s weixin.Session,
) (weixin.Session, error) {
	if s.SessionKey != p.key(s.OpenID) {
		return weixin.Session{}, stale("resetting session_key")
	}
	s.SessionKey = p.renew(s.OpenID)
	return s, p.answer(ctx, "ResetUserSessionKey")
}

func (p *platform) UserEncryptKey(
	ctx context.Context, _ weixin.Credentials, s weixin.Session,
) ([]weixin.UserKey, error) {
	if s.SessionKey != p.key(s.OpenID) {
		return nil, stale("getting encryption keys")
	}
	return []weixin.UserKey{{Version: 7}}, p.answer(ctx, "UserEncryptKey")
}

// PhoneNumber answers the code "number" or "number@country".
func (p *platform) PhoneNumber(
	ctx context.Context, app weixin.Credentials, code, openID string,
) (opendata.Phone, error) {
	if err := p.answer(ctx, "PhoneNumber", app.ID, code, openID); err != nil {
		return opendata.Phone{}, err
	}
	pure, country, foreign := strings.Cut(code, "@")
	if !foreign {
		return opendata.Phone{Number: pure, PureNumber: pure, CountryCode: "86"}, nil
	}
	return opendata.Phone{Number: country + pure, PureNumber: pure, CountryCode: country}, nil
}

// PaidUnionID answers the number of the order.
func (p *platform) PaidUnionID(
	ctx context.Context, app weixin.Credentials, pay weixin.Payment,
) (string, error) {
	err := p.answer(ctx, "PaidUnionID", app.ID, pay.OpenID)
	return pay.TransactionID, err
}

func (p *platform) PluginOpenPID(
	ctx context.Context, app weixin.Credentials, code string,
) (string, error) {
	err := p.answer(ctx, "PluginOpenPID", app.ID, code)
	return "pid of " + code, err
}

// on makes a gate use the platform.
func on(p *platform) option {
	return with(func(c *session.Config) { c.WeChat, c.Calls = p, p })
}

func remembering(_ *session.CoreConfig, c *session.Config) { c.RememberPhone = true }

// seal encrypts as WeChat does. sessionKey is base64.
func seal(sessionKey, object string) session.SealedData {
	key, err := base64.StdEncoding.DecodeString(sessionKey)
	if err != nil {
		panic(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	var iv [aes.BlockSize]byte
	rand.Read(iv[:])
	n := aes.BlockSize - len(object)%aes.BlockSize
	text := []byte(object + strings.Repeat(string(rune(n)), n))
	cipher.NewCBCEncrypter(block, iv[:]).CryptBlocks(text, text)
	return session.SealedData{
		EncryptedData: base64.StdEncoding.EncodeToString(text),
		IV:            base64.StdEncoding.EncodeToString(iv[:]),
	}
}

// sign adds rawData and its signature.
func sign(d session.SealedData, sessionKey, rawData string) session.SealedData {
	sum := sha1.Sum([]byte(rawData + sessionKey))
	d.RawData, d.Signature = []byte(rawData), hex.EncodeToString(sum[:])
	return d
}

// object is open data of a user, made now, with a unionId or without.
func object(id store.UserID, unionID string) string {
	union := ""
	if unionID != "" {
		union = fmt.Sprintf(`,"unionId":%q`, unionID)
	}
	return fmt.Sprintf(`{"openId":%q%s,"watermark":{"timestamp":%d,"appid":%q}}`,
		id.OpenID, union, time.Now().Unix(), id.AppID)
}
