package opendata_test

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin/opendata"
)

func BenchmarkOpen(b *testing.B) {
	for _, v := range []vector{d1, d3} {
		b.Run(v.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := open(demo, v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("wrong key", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := demo.Open(commonKey, d1.Sealed, d1.IV); err == nil {
				b.Fatal("opened")
			}
		}
	})
}

func BenchmarkVerifySignature(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := opendata.VerifySignature([]byte(s1Data), s1Sum, s1Key); err != nil {
			b.Fatal(err)
		}
	}
}
