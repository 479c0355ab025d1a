package redis

import (
	"encoding/hex"
	"strings"

	"github.com/redis/rueidis"

	"github.com/wxgate/wxgate/caddymodule/internal/store"
)

// invalidations begins, after the prefix, the keys whose writing tells the gates of a change.
const invalidations = "i:"

// invalidated reports what a primary has pushed. nil comes from a server that was emptied, and from the library when the connection is lost: the latter says nothing of any record, and what
// is missed from then on is made up for when the next contact is made.
func (l *link) invalidated(t *tracker, keys []rueidis.RedisMessage) {
	if keys == nil {
		if !t.ended() {
			l.changed(store.Change{What: store.AllChanged})
		}
		return
	}
	for i := range keys {
		key, _ := keys[i].ToString()
		l.changed(parseChange(l.cfg.Prefix, key))
	}
}

// parseChange reads the name of an invalidation. Whatever it does not know is about everything: a later version may tell of changes that this one has never heard of.
func parseChange(prefix, key string) store.Change {
	c := store.Change{What: store.AllChanged}
	name, ok := strings.CutPrefix(key, prefix+invalidations)
	if !ok || len(name) < len("s:{}") || name[1:3] != ":{" || name[len(name)-1] != '}' {
		return c
	}
	name, kind := name[3:len(name)-1], name[0]
	switch {
	case kind == 's' && unhex(c.Digest[:], name):
		c.What = store.SessionChanged
	case kind == 'u' && unhex(c.User[:], name):
		c.What = store.UserChanged
	default:
		return store.Change{What: store.AllChanged}
	}
	return c
}

// unhex reads exactly as many bytes as dst has.
func unhex(dst []byte, s string) bool {
	if hex.DecodedLen(len(s)) != len(dst) || len(s)%2 != 0 {
		return false
	}
	_, err := hex.Decode(dst, []byte(s))
	return err == nil
}
