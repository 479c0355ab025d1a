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

// fileGrace is the time for which the last token of a file serves while the file
// is missing or empty: its owner may be rewriting it.
const fileGrace = 10 * time.Second

// readFile returns the token of a TokenFile. It reads the file for each call,
// which is cheap beside the call and misses no change.
func (t *Tokens) readFile(app Credentials) (AccessToken, error) {
	if e := checkAppID(opToken, app); e != nil {
		return AccessToken{}, e
	}
	value, e := readTokenFile(app.TokenFile.Path)
	t.mu.Lock()
	defer t.mu.Unlock()
	s, now := t.slot(app), time.Now()
	switch {
	case e == nil:
		s.token = AccessToken{value: value, cloud: app.TokenFile.Cloud}
		s.expires = now.Add(fileGrace)
	case !now.Before(s.expires):
		return AccessToken{}, e
	}
	return s.token, nil
}

func readTokenFile(path string) (string, *Error) {
	e := &Error{Op: opToken, Class: ClassMisconfigured, Reason: "the token file cannot be read"}
	f, err := os.Open(path)
	if err != nil {
		e.cause = pathError(err)
		return "", e
	}
	defer f.Close()
	// The limit has room for a line end, and reads one byte too many of a longer file.
	b, err := io.ReadAll(io.LimitReader(f, maxToken+2))
	if err != nil {
		e.cause = pathError(err)
		return "", e
	}
	value := string(bytes.TrimSpace(b))
	if !isVisible(value, maxToken) {
		e.Reason = fmt.Sprintf("the token file %q does not hold exactly one access token", path)
		return "", e
	}
	return value, nil
}

// pathError returns the part of err that the file system made: a path and an
// errno.
func pathError(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p
	}
	return nil
}
