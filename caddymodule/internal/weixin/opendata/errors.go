package opendata

import "errors"

// ErrInvalid is what every failure of this package is. Its text, and that of each [Error], is the same whatever went wrong: a client
// that can tell bad padding from a bad object can make up data of its own (THREATS.md 29).
var ErrInvalid = errors.New("open data is invalid")

// Error is ErrInvalid with a reason for the operator. The package returns no other error.
type Error struct {
	Reason Reason // for a log or a metric, never for the client
}

// Error returns the text of ErrInvalid: the reason does not reach a client by way of an error text.
func (*Error) Error() string { return ErrInvalid.Error() }

// Unwrap returns ErrInvalid.
func (*Error) Unwrap() error { return ErrInvalid }

// Reason says what was wrong. It is one of a closed set and holds nothing of the data.
type Reason string

// The reasons.
const (
	ReasonSessionKey Reason = "session_key"         // not 24 characters of base64
	ReasonIV         Reason = "iv"                  // not 16 bytes in base64
	ReasonCiphertext Reason = "encrypted_data"      // not base64, too large, or not a whole number of blocks
	ReasonPadding    Reason = "padding"             // opened to what was not padded by PKCS#7
	ReasonObject     Reason = "object"              // opened to what is not one plain JSON object
	ReasonAppID      Reason = "watermark_appid"     // no watermark, or that of another mini program
	ReasonTime       Reason = "watermark_timestamp" // no time, or one outside of the window
	ReasonOpenID     Reason = "openid"              // data of another user
	ReasonUnionID    Reason = "unionid"             // of impossible shape, or without an openid
	ReasonPhone      Reason = "phone"               // incomplete, or of impossible shape
	ReasonSignature  Reason = "signature"
)

// StaleKey reports whether err is what a session_key other than the one that sealed or signed the data leads to: the previous key is
// worth a try, and a new wx.login the cure (WECHAT.md 11.8 to 11.13). It tells a client nothing of the padding.
func StaleKey(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Reason == ReasonPadding || e.Reason == ReasonObject || e.Reason == ReasonSignature)
}

func invalid(r Reason) error { return &Error{Reason: r} }
