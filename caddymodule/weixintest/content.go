package weixintest

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"image"
	"image/color"
	"image/jpeg"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"strings"
	"time"
)

// sendMessage is POST /cgi-bin/message/subscribe/send and
// /cgi-bin/message/custom/send. The simulator keeps no message: Calls tells
// whom it was for.
func (s *Simulator) sendMessage(q *query) (any, int) {
	var in struct {
		ToUser     string          `json:"touser"`
		TemplateID string          `json:"template_id"`
		Data       json.RawMessage `json:"data"`
		MsgType    string          `json:"msgtype"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	u := q.app.openids[in.ToUser]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	if in.TemplateID == "" && in.MsgType == "" {
		return nil, 40037
	}
	return succeeded(), 0
}

// checkText is POST /wxa/msg_sec_check. A text that holds "risky" is found so;
// everything else passes.
func (s *Simulator) checkText(q *query) (any, int) {
	var in struct {
		Content string `json:"content"`
		OpenID  string `json:"openid"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	u := q.app.openids[in.OpenID]
	if u == nil {
		return nil, 40003
	}
	q.call.noteUser(u)
	type result struct {
		Suggest string `json:"suggest"`
		Label   int    `json:"label"`
	}
	found := result{"pass", 100}
	if strings.Contains(in.Content, "risky") {
		found = result{"risky", 20001}
	}
	return struct {
		outcome
		Result result `json:"result"`
	}{succeeded(), found}, 0
}

// mediaTTL is how long an uploaded file is kept.
const mediaTTL = 3 * 24 * time.Hour

// picture is an answer that is no JSON.
type picture struct {
	mime string
	data []byte
}

type medium struct {
	app  *app
	made time.Time
	picture
}

// codeSize is the width and height of a mini program code in pixels.
const codeSize = 280

// miniProgramCode is POST /wxa/getwxacodeunlimit: a JPEG, which is noise, but
// the same for the same mini program, scene and page.
func (s *Simulator) miniProgramCode(q *query) (any, int) {
	var in struct {
		Scene string `json:"scene"`
		Page  string `json:"page"`
	}
	if code := q.decode(&in); code != 0 {
		return nil, code
	}
	if in.Scene == "" || len(in.Scene) > 32 {
		return nil, 40169
	}
	seed := sha256.Sum256([]byte(q.app.id + "\x00" + in.Scene + "\x00" + in.Page))
	dots := rand.New(rand.NewChaCha8(seed))
	img := image.NewGray(image.Rect(0, 0, codeSize, codeSize))
	for i := range codeSize * codeSize {
		img.SetGray(i%codeSize, i/codeSize, color.Gray{Y: uint8(dots.IntN(2) * 255)})
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic(err) // a buffer takes everything
	}
	return picture{"image/jpeg", b.Bytes()}, 0
}

// uploadMedia is POST /cgi-bin/media/upload: a multipart form with the file in
// the field media.
func (s *Simulator) uploadMedia(q *query) (any, int) {
	_, params, err := mime.ParseMediaType(q.contentType)
	if err != nil || params["boundary"] == "" {
		return nil, 41005
	}
	parts := multipart.NewReader(bytes.NewReader(q.body), params["boundary"])
	form, err := parts.ReadForm(maxRequestBody)
	if err != nil || len(form.File["media"]) != 1 {
		return nil, 41005
	}
	file := form.File["media"][0]
	f, err := file.Open()
	if err != nil {
		return nil, 41005
	}
	defer f.Close()
	var data bytes.Buffer
	if _, err := data.ReadFrom(f); err != nil {
		return nil, 41005
	}
	id := randomText(64, alphanumeric)
	s.media[id] = medium{q.app, q.now, picture{file.Header.Get("Content-Type"), data.Bytes()}}
	return struct {
		Type      string `json:"type"`
		MediaID   string `json:"media_id"`
		CreatedAt int64  `json:"created_at"`
	}{q.Get("type"), id, q.now.Unix()}, 0
}

// getMedia is GET /cgi-bin/media/get.
func (s *Simulator) getMedia(q *query) (any, int) {
	m, ok := s.media[q.Get("media_id")]
	if !ok || m.app != q.app || q.now.Sub(m.made) >= mediaTTL {
		return nil, 40007
	}
	return m.picture, 0
}
