package command

import (
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // the directives of the Caddyfiles

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
	_ "github.com/wxgate/wxgate/caddymodule/logformat"
)

func TestMain(m *testing.M) { caddytest.MainProvisioning(m) }
