package redis

import (
	"context"
	"crypto/sha1"
	"encoding/hex"

	"github.com/redis/rueidis"
)

// scripts are all that change more than one key, or a key according to what it holds. The keys of each have one hash tag.
type scripts struct {
	swapUser, endSession, makeEpoch, moveEpoch, touch, index, need, free, spend *script
}

func newScripts() scripts {
	return scripts{
		swapUser:   newScript(swapUserLua, true),
		endSession: newScript(endSessionLua, true),
		makeEpoch:  newScript(makeEpochLua, true),
		moveEpoch:  newScript(moveEpochLua, true),
		touch:      newScript(touchLua, true),
		index:      newScript(indexLua, true),
		need:       newScript(needLua, true),
		free:       newScript(freeLua, true),
		spend:      newScript(spendLua, false),
	}
}

// script is a Lua script that the server knows by its SHA-1 once it has seen it.
type script struct {
	text, sha  string
	repeatable bool
}

func newScript(text string, repeatable bool) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:]), repeatable: repeatable}
}

// call is what one run of a script is given.
type call struct{ keys, args []string }

func (s *script) short(c rueidis.Client, x call) rueidis.Completed {
	return s.mark(c.B().Evalsha().Sha1(s.sha).Numkeys(int64(len(x.keys))).Key(x.keys...).Arg(x.args...).Build())
}

func (s *script) long(c rueidis.Client, x call) rueidis.Completed {
	return s.mark(c.B().Eval().Script(s.text).Numkeys(int64(len(x.keys))).Key(x.keys...).Arg(x.args...).Build())
}

func (s *script) mark(cmd rueidis.Completed) rueidis.Completed {
	if s.repeatable {
		return cmd.ToRetryable()
	}
	return cmd
}

// run runs the script once.
func (s *script) run(ctx context.Context, c rueidis.Client, x call) rueidis.RedisResult {
	res := c.Do(ctx, s.short(c, x))
	if unknown(res) {
		res = c.Do(ctx, s.long(c, x))
	}
	return res
}

// runAll runs the script once for each call and more commands after that, in one
// round, and returns the first error.
func (s *script) runAll(ctx context.Context, c rueidis.Client, calls []call, more ...rueidis.Completed) error {
	cmds := make([]rueidis.Completed, len(calls), len(calls)+len(more))
	for i, x := range calls {
		cmds[i] = s.short(c, x)
	}
	for i, res := range c.DoMulti(ctx, append(cmds, more...)...) {
		if i < len(calls) && unknown(res) {
			res = s.run(ctx, c, calls[i])
		}
		if err := res.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
	}
	return nil
}

// unknown reports whether the server has to be told the script's text.
func unknown(res rueidis.RedisResult) bool {
	err, ok := rueidis.IsRedisErr(res.Error())
	return ok && err.IsNoScript()
}
