package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// maxData is many times what WeChat hands out: a month of steps, the longest there is, has about 2,000 characters, and what rawData adds to userinfo is shorter.
const maxData = 64 << 10

// decrypt opens what WeChat has sealed for the caller.
func (g *Gate) decrypt(w http.ResponseWriter, r *http.Request, live *running, u store.UserID) (json.RawMessage, error) {
	if wait, ok := live.allowances.decrypt(u); !ok {
		leaveBody(w, r)
		return nil, tooMany(wait)
	}
	body, err := readObjectUpTo(w, r, maxData)
	if err != nil {
		return nil, err
	}
	d, err := sealedData(body)
	if err != nil {
		return nil, err
	}
	object, err := live.sessions.OpenData(r.Context(), u, d)
	if errors.Is(err, session.ErrData) {
		live.allowances.decryptFailed(u)
	}
	return object, err
}

// sealedData reads what wx.getUserInfo and its kind gave to the client. What it holds is judged where it is opened.
func sealedData(body map[string]any) (d session.SealedData, err error) {
	var raw string
	for name, dst := range map[string]*string{"encryptedData": &d.EncryptedData, "iv": &d.IV, "rawData": &raw, "signature": &d.Signature} {
		if *dst, err = text(body, name); err != nil {
			return d, err
		}
	}
	if d.EncryptedData == "" || d.IV == "" {
		return d, invalidRequest(http.StatusBadRequest, "encryptedData and iv must be there, as WeChat gave them")
	}
	if (raw == "") != (d.Signature == "") {
		return d, invalidRequest(http.StatusBadRequest, "rawData and signature come together or not at all")
	}
	if raw != "" {
		d.RawData = []byte(raw)
	}
	return d, nil
}
