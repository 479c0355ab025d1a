package opendata

import "errors"

// ErrInvalid is every failure of this package. Its text, and that of each
// [Error], is always the same: a client that can tell bad padding from a bad
// object can make up data of its own (docs/threats.md#t29).
var ErrInvalid = errors.New("open data is invalid")

// Error is ErrInvalid with a reason for the operator. The package returns no
// other error.
type Error struct {
	Reason Reason // for a log or a metric, never for the client
}

// Error returns the text of ErrInvalid, so that no client gets the reason.
func (*Error) Error() string { return ErrInvalid.Error() }

// Unwrap returns ErrInvalid.
func (*Error) Unwrap() error { return ErrInvalid }

// Reason is one of a closed set of causes. It holds nothing of the data.
type Reason string

// The reasons.
const (
	ReasonSessionKey Reason = "session_key"         // not 24 characters of base64
	ReasonIV         Reason = "iv"                  // not 16 bytes in base64
	ReasonCiphertext Reason = "encrypted_data"      // not base64, too large, or no whole blocks
	ReasonPadding    Reason = "padding"             // the plaintext has no PKCS#7 padding
	ReasonObject     Reason = "object"              // the plaintext is not one plain JSON object
	ReasonAppID      Reason = "watermark_appid"     // no watermark, or that of another mini program
	ReasonTime       Reason = "watermark_timestamp" // no time, or one outside of the window
	ReasonOpenID     Reason = "openid"              // data of another user
	ReasonUnionID    Reason = "unionid"             // of impossible shape, or without an openid
	ReasonPhone      Reason = "phone"               // incomplete, or of impossible shape
	ReasonSignature  Reason = "signature"
)

// StaleKey reports whether a session_key other than the data's may cause err. Then
// the previous key may open it, and a new wx.login is the cure
// (docs/wechat.md#stale-key). It tells a client nothing of the padding.
func StaleKey(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok &&
		(e.Reason == ReasonPadding || e.Reason == ReasonObject || e.Reason == ReasonSignature)
}

func invalid(r Reason) error { return &Error{Reason: r} }
