package opendata_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

func TestThreat29_VerifySignature(t *testing.T) {
	const signature, key = opendata.ReasonSignature, opendata.ReasonSessionKey
	if err := opendata.VerifySignature([]byte(s1Data), s1Sum, s1Key); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		data, sum, key string
		want           opendata.Reason
	}{
		"one byte of the data": {
			strings.Replace(s1Data, "Band", "band", 1), s1Sum, s1Key, signature,
		},
		"white space":        {s1Data + " ", s1Sum, s1Key, signature},
		"slash escaped":      {strings.Replace(s1Data, "/", `\/`, 1), s1Sum, s1Key, signature},
		"no data":            {"", s1Sum, s1Key, signature},
		"no signature":       {s1Data, "", s1Key, signature},
		"half a signature":   {s1Data, s1Sum[:20], s1Key, signature},
		"a longer signature": {s1Data, s1Sum + "0", s1Key, signature},
		"capitals":           {s1Data, strings.ToUpper(s1Sum), s1Key, signature},
		"another key":        {s1Data, s1Sum, commonKey, signature},
		// sha1 of the data alone, which needs no key
		"no key":                  {"", "da39a3ee5e6b4b0d3255bfef95601890afd80709", "", key},
		"part of the key as data": {s1Data + s1Key[:4], s1Sum, s1Key[4:], key},
		"key with a line break":   {s1Data, s1Sum, s1Key + "\n", key},
		"end of the data as a key": {
			s1Data[:len(s1Data)-4], s1Sum, s1Data[len(s1Data)-4:] + s1Key, key,
		},
	} {
		t.Run(name, func(t *testing.T) {
			wantReason(t, opendata.Data{},
				opendata.VerifySignature([]byte(tc.data), tc.sum, tc.key), tc.want)
		})
	}
	for i := range len(s1Sum) {
		for bit := range 8 {
			sum := []byte(s1Sum)
			sum[i] ^= 1 << bit
			if !errors.Is(opendata.VerifySignature([]byte(s1Data), string(sum), s1Key),
				opendata.ErrInvalid) {
				t.Fatalf("bit %d of character %d does not matter", bit, i)
			}
		}
	}
}

func TestSignature_Vectors(t *testing.T) {
	for name, tc := range map[string]struct{ key, body, want string }{
		"M1": {
			"o0q0otL8aEzpcZL/FT9WsQ==", `{"foo":"bar"}`,
			"654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
		},
		"M2": {
			"o0q0otL8aEzpcZL/FT9WsQ==", "",
			"46e043c5525c2d817c44be603d30837a808a1d930d038f6fdc3e62a201fed128",
		},
		"M3": {
			"HyVFkGl5F5OQWJZZaNzBBg==", "",
			"252b75c92698025afe925b29cca5517fdf9ee67aae072cf3225ebf3a53783058",
		},
		"M4": {
			"tiihtNczf5v6AKRyjwEUhQ==", "",
			"7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735",
		},
		// the result of swapped arguments (docs/wechat.md#check-session-key)
		"M2 swapped": {
			"", "o0q0otL8aEzpcZL/FT9WsQ==",
			"960b00797a7ea423d40216c7e6e9c227ce79ab6535f7bd1b47eac64555a08085",
		},
	} {
		if got := opendata.Signature(tc.key, []byte(tc.body)); got != tc.want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
