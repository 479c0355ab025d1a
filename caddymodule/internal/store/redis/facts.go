package redis

import "context"

// setFactScript replaces a fact unless it has changed since the caller read it, and
// returns the fact that is there.
var setFactScript = repeatable(readLua + `
local now = read(KEYS[1])
if now ~= ARGV[1] then return now end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
`)

// Fact implements store.Store.
func (s *Store) Fact(ctx context.Context, name string) ([]byte, error) {
	return result(ctx, s.read, func(ctx context.Context, db db) ([]byte, error) {
		v, err := db.getOne(ctx, db.keys.fact(name))
		return bytesOf(v), err
	})
}

// SetFact implements store.Store.
func (s *Store) SetFact(ctx context.Context, name string, was, value []byte) ([]byte, error) {
	return result(ctx, s.write, func(ctx context.Context, db db) ([]byte, error) {
		x := call{
			keys: []string{db.keys.fact(name)}, args: []string{string(was), string(value)},
		}
		now, err := db.runFor(ctx, setFactScript, x, true).ToString()
		return bytesOf(now), err
	})
}

// bytesOf returns nil for what is not there.
func bytesOf(text string) []byte {
	if text == "" {
		return nil
	}
	return []byte(text)
}
