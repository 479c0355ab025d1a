package push_test

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
)

// vector is a sealed message; Source tells who made it.
type vector struct {
	Name, Source, Token, Key, Receiver string
	Timestamp, Nonce, Signature        string // Signature: of the query alone
	MsgSignature, Encrypt              string
	Random, Message                    string // Random: known where the sealing is, too
	Size                               int    // of a message that is not written out
	Error                              string
}

//go:embed testdata/vectors.json
var vectorsJSON []byte

var vectors = func() (v []vector) {
	if err := json.Unmarshal(vectorsJSON, &v); err != nil {
		panic(err)
	}
	return v
}()

func (v vector) query() push.Query {
	return push.Query{
		Signature: v.Signature, MsgSignature: v.MsgSignature,
		Timestamp: v.Timestamp, Nonce: v.Nonce,
	}
}

func receiver(t testing.TB, id, token string, keys ...string) *push.Receiver {
	t.Helper()
	r, err := push.New(id, token, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func find(name string) vector {
	for _, v := range vectors {
		if v.Name == name {
			return v
		}
	}
	panic(name)
}

const (
	otherApp = "wxffffffffffffffff"
	otherKey = "0123456789012345678901234567890123456789012"
)

func TestReceiver_Vectors_OpenAndSeal(t *testing.T) {
	errs := map[string]error{"": nil, "sealed": push.ErrSealed, "receiver": push.ErrReceiver}
	for _, v := range vectors {
		t.Run(v.Name, func(t *testing.T) {
			r := receiver(t, v.Receiver, v.Token, v.Key)
			q := v.query()
			if v.MsgSignature == "" { // a sample of the encryption alone
				q.Timestamp, q.Nonce = "1714112445", "415670741"
				q.MsgSignature = r.Sign(v.Encrypt, q.Nonce, q.Time()).Get("msg_signature")
			}
			got, with, err := r.Open(q, v.Encrypt)
			if !errors.Is(err, errs[v.Error]) || err != nil && got != nil {
				t.Fatalf("%q, %v", got, err)
			}
			if err != nil {
				return
			}
			if with != 0 || v.Size == 0 && string(got) != v.Message ||
				v.Size != 0 && len(got) != v.Size {
				t.Errorf("message %q by key %d", got, with)
			}
			if v.Random != "" && r.SealWith(v.Random, got, 0) != v.Encrypt {
				t.Error("seals it otherwise")
			}
			if err := r.Signed(q); (err == nil) != (v.Signature != "") {
				t.Errorf("signature: %v", err)
			}
		})
	}
}

// The two GETs of the documents: the proof of a URL (G0), and a push in plain mode (G1).
func TestSigned_Vectors(t *testing.T) {
	r := receiver(t, "wxba5fad812f8e6fb9", "AAAAA")
	for _, tt := range []struct {
		timestamp, nonce, signature string
		want                        error
	}{
		{"1714036504", "1514711492", "f464b24fc39322e44b38aa78f5edd27bd1441696", nil},
		{"1714037059", "486452656", "899cf89e464efb63f54ddac96b0a0a235f53aa78", nil},
		{"1714037059", "486452657", "899cf89e464efb63f54ddac96b0a0a235f53aa78", push.ErrSignature},
		{"1714037059", "486452656", "899CF89E464EFB63F54DDAC96B0A0A235F53AA78", push.ErrSignature},
		{"1714037059", "486452656", "", push.ErrSignature},
	} {
		q := push.Query{Timestamp: tt.timestamp, Nonce: tt.nonce, Signature: tt.signature}
		if err := r.Signed(q); !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestOpen_Tampered_Refused(t *testing.T) {
	v := find("G2")
	r := receiver(t, v.Receiver, v.Token, v.Key)
	for name, change := range map[string]func(*push.Query, *string){
		"nonce":      func(q *push.Query, _ *string) { q.Nonce += "0" },
		"timestamp":  func(q *push.Query, _ *string) { q.Timestamp = "1714112446" },
		"encrypt":    func(_ *push.Query, e *string) { *e = "A" + (*e)[1:] },
		"not base64": func(_ *push.Query, e *string) { *e = "%" + (*e)[1:] },
		"only the signature of the query": func(q *push.Query, _ *string) {
			q.MsgSignature = q.Signature
		},
		"none": func(q *push.Query, _ *string) { q.MsgSignature = "" },
	} {
		q, encrypt := v.query(), v.Encrypt
		change(&q, &encrypt)
		if got, _, err := r.Open(q, encrypt); !errors.Is(err, push.ErrSignature) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A reply is sealed by the key that opened the push, so that WeChat can read it during
// a change of keys.
func TestOpen_PreviousKey_IsTold(t *testing.T) {
	old := receiver(t, otherApp, "AAAAA", otherKey)
	r := receiver(t, otherApp, "AAAAA", strings.Repeat("A", 43), otherKey)
	encrypt := old.Seal([]byte("{}"), 0)
	now := time.Now()
	q := open(t, old.Sign(encrypt, "1", now).Encode())
	got, with, err := r.Open(q, encrypt)
	if err != nil || string(got) != "{}" || with != 1 {
		t.Fatalf("%q by key %d: %v", got, with, err)
	}
	var reply struct {
		Encrypt, MsgSignature, Nonce string
		TimeStamp                    int64
	}
	body := r.Reply(push.JSON, []byte("[]"), with, q.Nonce, now)
	if err := json.Unmarshal(body, &reply); err != nil {
		t.Fatal(err)
	}
	q = push.Query{
		MsgSignature: reply.MsgSignature, Nonce: reply.Nonce,
		Timestamp: fmt.Sprint(reply.TimeStamp),
	}
	if got, _, err := old.Open(q, reply.Encrypt); err != nil || string(got) != "[]" {
		t.Errorf("the old key opens %q of %s: %v", got, body, err)
	}
	if _, _, err := receiver(t, otherApp, "AAAAA", strings.Repeat("B", 43)).Open(q,
		reply.Encrypt); !errors.Is(err, push.ErrSealed) && !errors.Is(err, push.ErrReceiver) {
		t.Errorf("another key: %v", err)
	}
}

func TestReply_Vectors(t *testing.T) {
	for name, want := range map[string]struct {
		format push.Format
		body   string
	}{
		"G3": {push.JSON, `{"Encrypt":"%s","MsgSignature":"%s","TimeStamp":%s,"Nonce":"%s"}`},
		"C2": {push.XML, `<xml><Encrypt><![CDATA[%s]]></Encrypt><MsgSignature><![CDATA[%s]]>` +
			`</MsgSignature><TimeStamp>%s</TimeStamp><Nonce><![CDATA[%s]]></Nonce></xml>`},
	} {
		v := find(name)
		r := receiver(t, v.Receiver, v.Token, v.Key)
		got := string(r.ReplyWith(want.format, v.Encrypt, v.Nonce, v.query().Time().Unix()))
		want := fmt.Sprintf(want.body, v.Encrypt, v.MsgSignature, v.Timestamp, v.Nonce)
		if got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
}

func TestNew_BadSecret_RefusedUnseen(t *testing.T) {
	key := strings.Repeat("A", 43)
	for _, tt := range []struct{ token, key string }{
		{"", key},
		{"ab", key},
		{strings.Repeat("a", 33), key},
		{"with space", key},
		{"AAAAA", ""},
		{"AAAAA", key[1:]},
		{"AAAAA", key + "="},
		{"AAAAA", key[1:] + "-"},
		{"AAAAA", key[1:] + "\n"},
	} {
		r, err := push.New(otherApp, tt.token, tt.key)
		if err == nil || tt.key != "" && strings.Contains(err.Error(), tt.key) {
			t.Errorf("%+v: %v, %v", tt, r, err)
		}
	}
	r := receiver(t, otherApp, "t0ken", key)
	shown := fmt.Sprintf("%v %+v %#v %s %x %v", r, r, r, r, r, *r)
	if strings.Contains(shown, "t0ken") {
		t.Error(shown)
	}
}

func open(t testing.TB, raw string) push.Query {
	t.Helper()
	q, err := push.ReadQuery(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func TestReadQuery(t *testing.T) {
	const good = "signature=a&timestamp=1714112445&nonce=415670741"
	block := strings.Repeat("A", 64) // the base64 of whole blocks
	for _, tt := range []struct {
		raw  string
		good bool
	}{
		{good, true},
		{good + "&echostr=4375120948345356249&openid=x&openid=y", true},
		{good + "&nonce=1", false},
		{good + "&msg_signature=a&msg_signature=a", false},
		{good + "&echostr=%3Cscript%3E", false},
		{good + "&echostr=" + strings.Repeat("1", 129), false},
		{"timestamp=1714112445", false},
		{"nonce=1", false},
		{"timestamp=&nonce=1", false},
		{"timestamp=17141124450&nonce=1", false}, // takes a digit of the nonce
		{"timestamp=-1&nonce=1", false},
		{"timestamp=1e9&nonce=1", false},
		{"timestamp=1714112445&nonce=" + block, false}, // takes blocks of the ciphertext
		{"timestamp=1714112445&nonce=1%2B", false},
		{"timestamp=1714112445;nonce=1", false},
		{"", false},
	} {
		q, err := push.ReadQuery(tt.raw)
		if (err == nil) != tt.good || err != nil && !errors.Is(err, push.ErrMalformed) {
			t.Errorf("%s: %+v, %v", tt.raw, q, err)
		}
	}
	if q := open(t, good); q.Time().Unix() != 1714112445 {
		t.Errorf("%+v", q)
	}
}
