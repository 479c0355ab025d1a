package keyring_test

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wxgate/wxgate/caddymodule/internal/keyring"
)

func parse(t interface {
	Helper()
	Fatal(...any)
}, masterKeys ...string,
) *keyring.Ring {
	t.Helper()
	ring, err := keyring.Parse(strings.Join(masterKeys, ","))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// newMasterKeys returns keys that may stand in one ring.
func newMasterKeys(n int) (keys []string) {
	for len(keys) < n {
		k := keyring.NewMasterKey()
		if _, err := keyring.Parse(strings.Join(append(keys, k), ",")); err == nil {
			keys = append(keys, k)
		}
	}
	return keys
}

func TestParse_Spellings_AreReadOrRefused(t *testing.T) {
	keys := newMasterKeys(2)
	key, second := keys[0], keys[1]
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) != 32 {
		t.Fatalf("NewMasterKey: %d bytes, %v", len(raw), err)
	}
	const same = "keys 1 and 2 are the same"
	odd := strings.Repeat("+/v7", 10) + "+/s="
	url := strings.NewReplacer("+", "-", "/", "_").Replace(odd)
	base64Of := base64.StdEncoding.EncodeToString
	for name, tt := range map[string]struct{ text, want string }{
		"one":               {key, ""},
		"line end":          {key + "\r\n", ""},
		"comma":             {key + "," + second, ""},
		"white space":       {"\t" + key + " \n" + second + " , ", ""},
		"empty":             {"", "holds no key"},
		"only separators":   {" ,\n,", "holds no key"},
		"short":             {base64Of(raw[:31]), "key 1 of 1 is not 32 bytes"},
		"long":              {base64Of(append(slices.Clone(raw), 1)), "key 1 of 1 is not 32 bytes"},
		"URL alphabet":      {odd + "," + url, same},
		"no padding":        {key + "," + strings.TrimRight(key, "="), same},
		"hex":               {key + "," + hex.EncodeToString(raw), same},
		"named":             {key + ",2026b:" + key, same},
		"short hex":         {hex.EncodeToString(raw[:31]), "key 1 of 1 is not 32 bytes"},
		"a passphrase":      {"correct-horse-battery-staple", "not 32 bytes in base64 or hex"},
		"second is bad":     {key + ",x", "key 2 of 2"},
		"same twice":        {key + "," + second + "," + key, "keys 1 and 3 are the same"},
		"same, other spell": {key + "," + respell(key), same},
	} {
		_, err := keyring.Parse(tt.text)
		if (err == nil) != (tt.want == "") ||
			err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// respell changes the two bits of base64 that a key of 32 bytes does not use.
func respell(key string) string {
	const std = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(key) - 2
	return key[:last] + string(std[strings.IndexByte(std, key[last])|1]) + key[last+1:]
}

// A token names its key by one character, so two keys that share it cannot be
// in one ring.
func TestParse_SharedShortID_IsRefused(t *testing.T) {
	key := keyring.NewMasterKey()
	for range 10_000 {
		if _, err := keyring.Parse(key + "," + keyring.NewMasterKey()); err != nil {
			if !strings.Contains(err.Error(), "keys 1 and 2 share the short id") {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no two of 10,000 keys share one of 64 ids")
}

func TestP6_ParseError_ShowsNoKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := make([]string, rapid.IntRange(1, 4).Draw(t, "keys"))
		for i := range words {
			raw := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
			words[i] = base64.StdEncoding.EncodeToString(raw)
		}
		words = append(words, words[0]) // a duplicate, if nothing is wrong before
		broken := rapid.IntRange(0, len(words)-1).Draw(t, "broken")
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			words[broken] = words[broken][:rapid.IntRange(1, 43).Draw(t, "cut")]
		case 1:
			words[broken] += "AAAA"
		case 2:
			words[broken] = "!" + words[broken]
		}
		_, err := keyring.Parse(strings.Join(words, ","))
		if err == nil {
			t.Fatal("accepted")
		}
		for _, w := range words {
			for i := 0; i+5 <= len(w); i++ {
				if part := w[i : i+5]; part != "AAAAA" && strings.Contains(err.Error(), part) {
					t.Fatalf("%q shows %q", err, part)
				}
			}
		}
	})
}

func TestIDs_Ring_NamesKeysInOrder(t *testing.T) {
	keys := newMasterKeys(3)
	ring := parse(t, keys...)
	ids := ring.IDs()
	if len(ids) != 3 || ids[0] == ids[1] || ids[1] == ids[2] || ring.Signer() != ids[0] {
		t.Fatal(ids)
	}
	for i, id := range ids {
		if alone := parse(t, keys[i]); alone.Signer() != id || len(id.String()) != 8 {
			t.Errorf("key %d is %s in a ring and %s alone", i, id, alone.Signer())
		}
		if strings.Contains(keys[i], id.String()) {
			t.Error("the id shows the key")
		}
		if without := parse(t, keys[(i+1)%3], keys[(i+2)%3]); without.Has(id) || !ring.Has(id) {
			t.Errorf("key %d: Has is wrong", i)
		}
	}
}
