package wechatauth

import (
	"cmp"

	"github.com/wxgate/wxgate/caddymodule/internal/judge"
)

// Guards implements judge.Gate.
func (h *Handler) Guards() (endpoints string, public []string) {
	if !h.Cloudrun {
		endpoints = cmp.Or(h.Endpoints, "/wx")
	}
	return endpoints, h.Public
}

var _ judge.Gate = (*Handler)(nil)
