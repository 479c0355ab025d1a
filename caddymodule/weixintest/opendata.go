package weixintest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// OpenData is what wx.getUserInfo and its kind give to the mini program
// (docs/wechat.md#open-data). The JSON names are WeChat's.
type OpenData struct {
	// EncryptedData and IV are base64.
	EncryptedData string `json:"encryptedData"`
	IV            string `json:"iv"`
	// RawData is the data in clear, without a watermark, byte for byte as
	// signed.
	RawData string `json:"rawData"`
	// Signature is hex(sha1(RawData + session_key text)).
	Signature string `json:"signature"`
}

// Encrypt makes open data for a user with the user's current session_key. data
// is anything that marshals to a JSON object; a json.RawMessage keeps its bytes
// (less the white space). A watermark of the mini program and of now is put at
// its end unless data brings its own. openId and unionId are not added. An
// unknown appid, or data that is no object, is an error.
func (s *Simulator) Encrypt(appid, user string, data any) (OpenData, error) {
	raw, err := marshal(data)
	if err != nil {
		return OpenData{}, fmt.Errorf("encoding open data: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[appid]
	if a == nil {
		return OpenData{}, fmt.Errorf("unknown appid %q", appid)
	}
	plain, err := withWatermark(raw, watermark{s.cfg.Now().Unix(), appid})
	if err != nil {
		return OpenData{}, err
	}
	key, iv := s.key(a.user(user)), randomBytes(aes.BlockSize)
	sealed, err := seal(key, iv, plain)
	if err != nil {
		return OpenData{}, err
	}
	sum := sha1.Sum(append(bytes.Clone(raw), key...))
	return OpenData{
		EncryptedData: sealed,
		IV:            base64.StdEncoding.EncodeToString(iv),
		RawData:       string(raw),
		Signature:     hex.EncodeToString(sum[:]),
	}, nil
}

func withWatermark(object []byte, w watermark) ([]byte, error) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(object, &fields) != nil || fields == nil {
		return nil, errors.New("open data is not a JSON object")
	}
	if _, own := fields["watermark"]; own {
		return object, nil
	}
	head := bytes.Clone(bytes.TrimSuffix(object, []byte("}")))
	if len(fields) > 0 {
		head = append(head, ',')
	}
	return fmt.Appendf(head, `"watermark":%s}`, mustJSON(w)), nil
}

// seal is AES-128-CBC with PKCS#7 padding under a base64 key
// (docs/wechat.md#decryption).
func seal(key string, iv, plain []byte) (string, error) {
	k, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", fmt.Errorf("decoding session_key: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return "", fmt.Errorf("using session_key: %w", err)
	}
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	buf := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(buf, buf)
	return base64.StdEncoding.EncodeToString(buf), nil
}
