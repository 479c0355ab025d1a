package weixin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// fileGrace is how long the last token of a file is good for while the file is missing or empty: it may be just about to be rewritten.
const fileGrace = 10 * time.Second

// fromFile reads the token of a TokenFile. It does so for each call: that costs nothing beside the call, and no change can be missed.
func (t *Tokens) fromFile(app Credentials) (AccessToken, error) {
	if e := checkAppID(opToken, app); e != nil {
		return AccessToken{}, e
	}
	value, e := readTokenFile(app.TokenFile.Path)
	t.mu.Lock()
	defer t.mu.Unlock()
	k, now := t.keeper(app), time.Now()
	switch {
	case e == nil:
		k.token, k.end = AccessToken{value: value, cloud: app.TokenFile.Cloud}, now.Add(fileGrace)
	case !now.Before(k.end):
		return AccessToken{}, e
	}
	return k.token, nil
}

func readTokenFile(path string) (string, *Error) {
	e := &Error{Op: opToken, Class: ClassMisconfigured, Reason: "the token file cannot be read"}
	f, err := os.Open(path)
	if err != nil {
		e.cause = pathError(err)
		return "", e
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxToken+2)) // with a line end; a longer one shows as too long
	if err != nil {
		e.cause = pathError(err)
		return "", e
	}
	value := string(bytes.TrimSpace(b))
	if !isVisible(value, maxToken) {
		e.Reason = fmt.Sprintf("the token file %q does not hold an access token and nothing else", path)
		return "", e
	}
	return value, nil
}

// pathError keeps of an error what the file system said: a path and an errno.
func pathError(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p
	}
	return nil
}
