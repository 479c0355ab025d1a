package playground

import (
	"io"
	"net/http"
	"slices"
	"strings"
)

// The modes of WeChat. A fault of the simulator would be in the queue of those that the
// developer injects, and end with them.
const (
	works  = "works"
	down   = "down"   // breaks each connection
	busy   = "busy"   // answers that it is busy
	silent = "silent" // never answers
)

func (s *Server) weChat() string {
	if mode, ok := s.mode.Load().(string); ok {
		return mode
	}
	return works
}

// setWeChat takes WeChat away, or brings it back.
func (s *Server) setWeChat(_ *http.Request, in struct {
	Mode string `json:"mode"`
},
) (any, error) {
	if !slices.Contains([]string{works, down, busy, silent}, in.Mode) {
		return nil, mistake{"bad_call", in.Mode}
	}
	s.mode.Store(in.Mode)
	return in, nil
}

// WeChat passes calls on to the simulator, unless the page has taken WeChat away. The
// control API works always.
func (s *Server) WeChat(simulator http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := s.weChat()
		if strings.HasPrefix(r.URL.Path, "/_sim/") {
			mode = works
		}
		switch mode {
		case silent:
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case down:
			panic(http.ErrAbortHandler)
		case busy:
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, `{"errcode":-1,"errmsg":"system error"}`)
		default:
			simulator.ServeHTTP(w, r)
		}
	})
}
