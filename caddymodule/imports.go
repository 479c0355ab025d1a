package caddymodule

import (
	_ "github.com/wxgate/wxgate/caddymodule/admin"
	_ "github.com/wxgate/wxgate/caddymodule/command"
	_ "github.com/wxgate/wxgate/caddymodule/logformat"
	_ "github.com/wxgate/wxgate/caddymodule/wechatapi"
	_ "github.com/wxgate/wxgate/caddymodule/wechatapp"
	_ "github.com/wxgate/wxgate/caddymodule/wechatauth"
)
