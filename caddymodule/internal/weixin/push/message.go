package push

import (
	"crypto/sha256"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The events that oblige the receiver to act (docs/wechat.md#push-events).
const (
	UserCancelled = "user_authorization_cancellation" // the account is gone
	UserRevoked   = "user_authorization_revoke"       // consent is withdrawn: RevokeInfo
	UserModified  = "user_info_modified"              // WeChat has cleaned a profile
)

// What a RevokeInfo withdraws.
const (
	RevokedPhone = "8"   // the telephone number
	RevokedAll   = "301" // everything, in an app or a website
)

// The notices that a third-party platform gets (InfoType).
const (
	VerifyTicket     = "component_verify_ticket"
	Authorized       = "authorized"
	UpdateAuthorized = "updateauthorized"
	Unauthorized     = "unauthorized"
)

// Message is what a push says. All of it is empty where the push does not say it.
// Printing it shows its kind only.
type Message struct {
	In         Format // of the body
	Type       string // MsgType: event, text, …
	Event      string
	InfoType   string    // in place of Event, for a third-party platform
	CreateTime time.Time // the zero time when there is none
	MsgID      string

	// From is the sender: a user in a customer's message, and WeChat itself in the
	// events about users. So it names no user; what one sender sends has an order.
	From string

	OpenID, UnionID string   // the user; 1 to 128 visible ASCII characters each
	AppID           string   // the mini program, or the third-party platform
	RevokeInfo      []string // what the user withdraws, each by its number

	// Of a third-party platform.
	ComponentVerifyTicket    string
	AuthorizerAppID          string
	AuthorizationCode        string
	AuthorizationCodeExpires time.Time
}

// ReadMessage reads a decrypted message, or the body of a push in plain mode. It takes
// every kind of message. The error wraps ErrMalformed.
func ReadMessage(body []byte) (Message, error) {
	format, f, err := read(body)
	if err != nil {
		return Message{}, err
	}
	m := Message{
		In: format, Type: f.first("MsgType"),
		Event: f.first("Event"), InfoType: f.first("InfoType"),
		CreateTime: unix(f.first("CreateTime")), MsgID: f.first("MsgId"),
		From: f.first("FromUserName"), OpenID: f.first("OpenID"), UnionID: f.first("UnionID"),
		AppID:                    f.first("AppID", "AppId"),
		ComponentVerifyTicket:    f.first("ComponentVerifyTicket"),
		AuthorizerAppID:          f.first("AuthorizerAppid"),
		AuthorizationCode:        f.first("AuthorizationCode"),
		AuthorizationCodeExpires: unix(f.first("AuthorizationCodeExpiredTime")),
	}
	for _, text := range f["RevokeInfo"] {
		m.RevokeInfo = append(m.RevokeInfo, strings.FieldsFunc(text, notAlphanumeric)...)
	}
	for _, id := range []string{m.Kind(), m.OpenID, m.UnionID, m.AppID, m.AuthorizerAppID} {
		if !isID(id) {
			return Message{}, fmt.Errorf("%w: odd characters in a name", ErrMalformed)
		}
	}
	return m, nil
}

func notAlphanumeric(c rune) bool { return !alphanumeric(string(c)) }

// maxID bounds names that go into headers and logs: generous.
const maxID = 128

func isID(s string) bool {
	return len(s) <= maxID &&
		!strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

func unix(text string) time.Time {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// Kind returns the Event, the InfoType or the Type, for a log.
func (m Message) Kind() string {
	switch {
	case m.Event != "":
		return m.Event
	case m.InfoType != "":
		return m.InfoType
	}
	return m.Type
}

// Format writes the kind for every verb.
func (m Message) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "Message{"+m.Kind()+"}") }

// Digest names a message of the receiver: the same for each retry of WeChat's, which
// comes with another signature and other ciphertext.
func (r *Receiver) Digest(message []byte) [sha256.Size]byte {
	return sha256.Sum256([]byte(r.id + "\n" + string(message)))
}
