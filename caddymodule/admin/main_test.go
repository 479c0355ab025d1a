package admin

import (
	"testing"

	"github.com/wxgate/wxgate/caddymodule/internal/caddytest"
)

func TestMain(m *testing.M) { caddytest.Main(m) }
