package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"
)

// script is a Lua script, by which the engine changes several keys in one step, or
// a key according to its value. The keys of each have one hash tag.
type script struct {
	text, sha  string // the server knows a script that it has seen by its SHA-1
	repeatable bool
}

// repeatable makes a script that leaves the same behind when it runs twice, so the
// client may send it again after a lost answer.
func repeatable(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:]), repeatable: true}
}

// once makes a script that the client must send only once.
func once(text string) *script {
	s := repeatable(text)
	s.repeatable = false
	return s
}

// call is the input of one run.
type call struct{ keys, args []string }

func (s *script) short(c rueidis.Client, x call) rueidis.Completed {
	b := c.B().Evalsha().Sha1(s.sha).Numkeys(int64(len(x.keys)))
	return s.mark(b.Key(x.keys...).Arg(x.args...).Build())
}

func (s *script) long(c rueidis.Client, x call) rueidis.Completed {
	b := c.B().Eval().Script(s.text).Numkeys(int64(len(x.keys)))
	return s.mark(b.Key(x.keys...).Arg(x.args...).Build())
}

func (s *script) mark(cmd rueidis.Completed) rueidis.Completed {
	if s.repeatable {
		return cmd.ToRetryable()
	}
	return cmd
}

func (s *script) run(ctx context.Context, c rueidis.Client, x call) rueidis.RedisResult {
	res := c.Do(ctx, s.short(c, x))
	if unknown(res) {
		res = c.Do(ctx, s.long(c, x))
	}
	return res
}

// runAll runs the script for each call, and more commands after that in the same
// round. It returns the first error.
func (s *script) runAll(
	ctx context.Context, c rueidis.Client, calls []call, more ...rueidis.Completed,
) error {
	cmds := make([]rueidis.Completed, len(calls), len(calls)+len(more))
	for i, x := range calls {
		cmds[i] = s.short(c, x)
	}
	for i, res := range c.DoMulti(ctx, append(cmds, more...)...) {
		if i < len(calls) && unknown(res) {
			res = s.run(ctx, c, calls[i])
		}
		if err := ignoreNil(res.Error()); err != nil {
			return err
		}
	}
	return nil
}

// unknown reports whether the server needs the script's text.
func unknown(res rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(res.Error())
	return ok && err.IsNoScript()
}

func ignoreNil(err error) error {
	if rueidis.IsRedisNil(err) {
		return nil
	}
	return err
}
