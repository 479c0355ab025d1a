package caddytest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/wxgate/wxgate/caddymodule/internal/weixin"
)

// Exchanger is WeChat without a network. It takes the codes of NewCode.
type Exchanger struct{}

var codes atomic.Int64

// NewCode returns a code that logs an openid in.
func NewCode(openID string) string { return fmt.Sprintf("%s.%d", openID, codes.Add(1)) }

// Code2Session returns the user of a code.
func (Exchanger) Code2Session(
	_ context.Context, _ weixin.Credentials, code string,
) (weixin.Session, error) {
	openID, _, _ := strings.Cut(code, ".")
	return weixin.Session{OpenID: openID, SessionKey: "c2Vzc2lvbl9rZXk9PT09PQ=="}, nil
}
