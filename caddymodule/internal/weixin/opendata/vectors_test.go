package opendata_test

import (
	_ "embed"
	"encoding/json"
)

const (
	demoApp    = "wx4f4bc4dec97d474b"
	demoUser   = "oGZUI0egBJY1zhBYw2KhdUfwVJJE"
	demoUnion  = "ocMvos6NjeKLIBqg5Mr9QjxrP1FA"
	demoTime   = 1477314187
	commonKey  = "AAECAwQFBgcICQoLDA0ODw=="
	commonIV   = "EBESExQVFhcYGRobHB0eHw=="
	foreignApp = "wxffffffffffffffff"
)

// vector is an object and its encrypted form; d2 opens to no object.
type vector struct{ Name, Key, IV, Sealed, Object string }

// vectorsJSON holds the vectors of docs/wechat.md#open-data, published ones and
// our own.
//
//go:embed testdata/vectors.json
var vectorsJSON []byte

var vectors = func() (v struct {
	Open   []vector
	Signed struct{ Key, Data, Sum string }
},
) {
	if err := json.Unmarshal(vectorsJSON, &v); err != nil {
		panic(err)
	}
	return v
}()

var (
	d1, d2, d3 = vectors.Open[0], vectors.Open[1], vectors.Open[2]
	d4, d5, d6 = vectors.Open[3], vectors.Open[4], vectors.Open[5]

	s1Key, s1Data, s1Sum = vectors.Signed.Key, vectors.Signed.Data, vectors.Signed.Sum
)
