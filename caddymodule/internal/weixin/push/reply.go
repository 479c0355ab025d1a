package push

import (
	"encoding/json"
	"encoding/xml"
	"net/url"
	"strconv"
	"time"
)

// Success answers a push for which there is nothing to say, in clear in every mode.
const Success = "success"

// Reply returns the body that answers a push with a message: encrypted by the key that
// opened it, signed with the nonce of the push, in its format.
func (r *Receiver) Reply(f Format, message []byte, with Key, nonce string, now time.Time) []byte {
	return r.reply(f, r.Seal(message, with), nonce, now)
}

func (r *Receiver) reply(f Format, encrypt, nonce string, now time.Time) []byte {
	stamp := now.Unix()
	signature := r.sign(strconv.FormatInt(stamp, 10), nonce, encrypt)
	if f == XML {
		return encodeXML(struct {
			XMLName      xml.Name `xml:"xml"`
			Encrypt      cdata
			MsgSignature cdata
			TimeStamp    int64
			Nonce        cdata
		}{
			Encrypt: cdata{encrypt}, MsgSignature: cdata{signature}, TimeStamp: stamp,
			Nonce: cdata{nonce},
		})
	}
	return encodeJSON(struct {
		Encrypt, MsgSignature string
		TimeStamp             int64
		Nonce                 string
	}{encrypt, signature, stamp, nonce})
}

type cdata struct {
	Text string `xml:",cdata"`
}

func encodeXML(v any) []byte {
	b, err := xml.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return b
}

func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return b
}

// Body returns the body of a push as WeChat sends it, for a simulator. A notice for a
// third-party platform names its recipient AppId in place of ToUserName.
func (e Envelope) Body(notice bool) []byte {
	name := "ToUserName"
	if notice {
		name = "AppId"
	}
	if e.Format == XML {
		to := struct {
			XMLName xml.Name
			cdata
		}{xml.Name{Local: name}, cdata{e.To}}
		return encodeXML(struct {
			XMLName xml.Name `xml:"xml"`
			To      any
			Encrypt cdata
		}{To: to, Encrypt: cdata{e.Encrypt}})
	}
	return encodeJSON(map[string]string{name: e.To, "Encrypt": e.Encrypt})
}

// Sign returns the query of a push of the body with encrypt at a time, for a simulator;
// of one in plain mode without encrypt.
func (r *Receiver) Sign(encrypt, nonce string, now time.Time) url.Values {
	stamp := strconv.FormatInt(now.Unix(), 10)
	q := url.Values{
		"timestamp": {stamp}, "nonce": {nonce}, "signature": {r.sign(stamp, nonce)},
	}
	if encrypt != "" {
		q.Set("encrypt_type", "aes")
		q.Set("msg_signature", r.sign(stamp, nonce, encrypt))
	}
	return q
}
