package weixintest

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PushMode is how much of a message push is encrypted.
type PushMode string

// The modes of the WeChat console.
const (
	PushSecure     PushMode = "secure"
	PushCompatible PushMode = "compatible" // encrypted, and in clear beside it
	PushPlain      PushMode = "plain"
)

// PushSettings are what the WeChat console has of a mini program's message push.
type PushSettings struct {
	URL    string   `json:"url"`
	Token  string   `json:"token"`
	AESKey string   `json:"aes_key"` // EncodingAESKey; not needed in plain mode
	Mode   PushMode `json:"mode"`    // empty: secure
	XML    bool     `json:"xml"`     // in place of JSON
}

// Push is a message to send. Message is a JSON object; without one WeChat tells of a
// user: Event, and RevokeInfo for user_authorization_revoke.
type Push struct {
	User       string          `json:"user"`
	Event      string          `json:"event"`
	RevokeInfo string          `json:"revoke_info"`
	Message    json.RawMessage `json:"message"`
}

// Pushed tells what became of a push.
type Pushed struct {
	Attempts int    `json:"attempts"` // 1 to 3: WeChat sends again what is not answered
	Status   int    `json:"status"`   // of the last answer; 0 for none
	Answer   string `json:"answer"`   // its body, decrypted where it is encrypted
}

const (
	pushAttempts = 3
	pushTimeout  = 5 * time.Second
)

// errNoPush means that the console has no URL.
var errNoPush = errors.New("set the URL of the message push first")

// SetPush enters the settings of a mini program in the console, which asks the URL
// for the proof first, as WeChat does on saving. The error says why it refuses.
func (s *Simulator) SetPush(ctx context.Context, appid string, p PushSettings) error {
	if err := s.checkApp(appid); err != nil {
		return err
	}
	if p.Mode == "" {
		p.Mode = PushSecure
	}
	if p.Mode != PushPlain {
		if _, err := aesKey(p.AESKey); err != nil {
			return err
		}
	}
	echo := strconv.FormatUint(randomNumber(), 10)
	q := s.signed(p, "")
	q.Set("echostr", echo)
	status, body, err := call(ctx, http.MethodGet, p.URL, q, nil, "")
	if err == nil && (status != http.StatusOK || string(body) != echo) {
		err = fmt.Errorf("the URL does not prove the Token: it answered %d %q", status, body)
	}
	if err != nil {
		return fmt.Errorf("saving the message push: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apps[appid].push = &p
	return nil
}

// Push sends a message to the URL of a mini program: again up to twice while there is
// no answer within five seconds, or one with another status than 200. The error means
// that nothing could be sent.
func (s *Simulator) Push(ctx context.Context, appid string, m Push) (Pushed, error) {
	if err := s.checkApp(appid); err != nil {
		return Pushed{}, err
	}
	s.mu.Lock()
	settings := s.apps[appid].push
	s.mu.Unlock()
	if settings == nil {
		return Pushed{}, errNoPush
	}
	message, err := s.message(appid, m)
	if err != nil {
		return Pushed{}, err
	}
	out, body, err := repeat(ctx, func() (int, []byte, error) {
		return s.send(ctx, appid, *settings, message)
	})
	if err == nil && out.Status == http.StatusOK {
		out.Answer, err = settings.answer(appid, body)
	}
	return out, err
}

// repeat sends a push until it is answered 200, three times at most. The error is that of
// the context.
func repeat(
	ctx context.Context, send func() (status int, body []byte, err error),
) (out Pushed, body []byte, err error) {
	for out.Attempts < pushAttempts {
		out.Attempts++
		out.Status, body, err = send()
		out.Answer = string(body)
		if err == nil && out.Status == http.StatusOK {
			return out, body, nil
		}
		if ctx.Err() != nil {
			return out, nil, ctx.Err()
		}
	}
	return out, body, nil
}

// members is a message: its names in order, with texts and numbers.
type members []member

type member struct {
	name  string
	value any
}

// message returns the members of a message.
func (s *Simulator) message(appid string, m Push) (members, error) {
	if m.Message == nil {
		// FromUserName is WeChat itself in these events (docs/wechat.md#push-events).
		out := members{
			{"ToUserName", ghID(appid)},
			{"FromUserName", "oWeChatItself"},
			{"CreateTime", s.cfg.Now().Unix()},
			{"MsgType", "event"},
			{"Event", m.Event},
			{"OpenID", s.OpenID(appid, m.User)},
			{"AppID", appid},
		}
		if m.RevokeInfo != "" {
			out = append(out, member{"RevokeInfo", m.RevokeInfo})
		}
		return out, nil
	}
	var given map[string]any
	d := json.NewDecoder(bytes.NewReader(m.Message))
	d.UseNumber()
	if err := d.Decode(&given); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	var out members
	for _, name := range slices.Sorted(maps.Keys(given)) {
		out = append(out, member{name, given[name]})
	}
	return out, nil
}

// ghID is the original id of a mini program.
func ghID(appid string) string { return "gh_" + appid[2:14] }

func (m members) json() []byte {
	var b bytes.Buffer
	for i, one := range m {
		b.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(&b, "%s:%s", mustJSON(one.name), mustJSON(one.value))
	}
	b.WriteByte('}')
	return b.Bytes()
}

func (m members) xml() []byte {
	var b bytes.Buffer
	b.WriteString("<xml>")
	for _, one := range m {
		text := fmt.Sprint(one.value)
		if _, ok := one.value.(string); ok {
			text = "<![CDATA[" + strings.ReplaceAll(text, "]]>", "]]]]><![CDATA[>") + "]]>"
		}
		fmt.Fprintf(&b, "<%s>%s</%[1]s>", one.name, text)
	}
	b.WriteString("</xml>")
	return b.Bytes()
}

func (m members) encode(p PushSettings) (body []byte, contentType string) {
	if p.XML {
		return m.xml(), "text/xml"
	}
	return m.json(), "application/json"
}

// send makes one attempt. Each has a signature, a nonce and a ciphertext of its own.
func (s *Simulator) send(
	ctx context.Context, appid string, p PushSettings, m members,
) (status int, answer []byte, err error) {
	message, contentType := m.encode(p)
	if p.Mode == PushPlain {
		return call(ctx, http.MethodPost, p.URL, s.signed(p, ""), message, contentType)
	}
	encrypt, err := sealPush(p.AESKey, randomBytes(16), message, appid)
	if err != nil {
		return 0, nil, err
	}
	envelope := members{{"ToUserName", ghID(appid)}}
	if p.Mode == PushCompatible {
		envelope = m
	}
	envelope = append(slices.Clip(envelope), member{"Encrypt", encrypt})
	body, _ := envelope.encode(p)
	return call(ctx, http.MethodPost, p.URL, s.signed(p, encrypt), body, contentType)
}

// signed returns the query of one call.
func (s *Simulator) signed(p PushSettings, encrypt string) url.Values {
	stamp := strconv.FormatInt(s.cfg.Now().Unix(), 10)
	nonce := strconv.FormatUint(randomNumber()%1_000_000_000, 10)
	q := url.Values{
		"timestamp": {stamp}, "nonce": {nonce}, "signature": {signPush(p.Token, stamp, nonce)},
	}
	if encrypt != "" {
		q.Set("encrypt_type", "aes")
		q.Set("msg_signature", signPush(p.Token, stamp, nonce, encrypt))
	}
	return q
}

// call sends one request and reads a short answer. It follows no redirect.
func call(
	ctx context.Context, method, target string, q url.Values, body []byte, contentType string,
) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	u, err := url.Parse(target)
	if err != nil {
		return 0, nil, err
	}
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	res, err := client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxRequestBody))
	return res.StatusCode, answer, err
}

// answer returns what an answer with status 200 says, decrypted where it is encrypted.
func (p PushSettings) answer(appid string, body []byte) (string, error) {
	var reply struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    json.Number
	}
	decode := json.Unmarshal
	if p.XML {
		decode = xml.Unmarshal
	}
	if err := decode(body, &reply); err != nil || reply.Encrypt == "" {
		return string(body), nil
	}
	want := signPush(p.Token, reply.TimeStamp.String(), reply.Nonce, reply.Encrypt)
	if want != reply.MsgSignature {
		return "", errors.New("the signature of the reply is wrong")
	}
	return openPush(p.AESKey, reply.Encrypt, appid)
}

// The cryptography of message pushes (docs/wechat.md#push-secure), written apart from
// that of the gate.

// signPush returns hex(sha1(the parts, sorted and joined)).
func signPush(parts ...string) string {
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return hex.EncodeToString(sum[:])
}

func aesKey(encoded string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(encoded + "=")
	if err != nil || len(key) != 32 {
		return nil, errors.New("aes_key is no EncodingAESKey: it has 43 letters and digits")
	}
	return key, nil
}

func sealPush(encoded string, random, message []byte, receiver string) (string, error) {
	key, err := aesKey(encoded)
	if err != nil {
		return "", err
	}
	text := append(random, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(text[16:], uint32(len(message)))
	text = append(append(text, message...), receiver...)
	pad := 32 - len(text)%32
	for range pad {
		text = append(text, byte(pad))
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	cipher.NewCBCEncrypter(block, key[:16]).CryptBlocks(text, text)
	return base64.StdEncoding.EncodeToString(text), nil
}

// openPush decrypts a reply.
func openPush(encoded, encrypt, receiver string) (string, error) {
	errBroken := errors.New("the reply does not decrypt")
	key, err := aesKey(encoded)
	if err != nil {
		return "", err
	}
	text, err := base64.StdEncoding.DecodeString(encrypt)
	if err != nil || len(text) < 32 || len(text)%32 != 0 {
		return "", errBroken
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", err
	}
	cipher.NewCBCDecrypter(block, key[:16]).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > 32 || len(text)-pad < 20 {
		return "", errBroken
	}
	text = text[:len(text)-pad]
	message, size := text[20:], int64(binary.BigEndian.Uint32(text[16:]))
	if size > int64(len(message)) || string(message[size:]) != receiver {
		return "", errBroken
	}
	return string(message[:size]), nil
}

func randomNumber() uint64 { return binary.BigEndian.Uint64(randomBytes(8)) }
