package caddymodule

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store/bolt"
)

// serveBackup streams the database. It is refused to all browsers: no page, however trusted, has a use for it.
func serveBackup(live *running, w http.ResponseWriter, r *http.Request) error {
	out := &backupWriter{w: w}
	n, err := live.sessions.Backup(r.Context(), out)
	audit(r, "sessions backed up", err, zap.Int64("bytes", n))
	switch {
	case err == nil:
		return nil
	case out.begun:
		// Too late for a status: what was sent must not pass for whole.
		panic(http.ErrAbortHandler)
	case errors.Is(err, session.ErrNoBackup):
		return refusal(http.StatusNotImplemented, "this kind of session store is backed up with its own tools", nil)
	case errors.Is(err, bolt.ErrBusy):
		return refusal(http.StatusConflict, "another backup is being made: try again when it is done", nil)
	case errors.Is(err, bolt.ErrRoom):
		return refusal(http.StatusInsufficientStorage, "a backup is first made beside the database, and there is too little room; the log has the figures", err)
	}
	return storeRefusal(err)
}

// backupWriter sends the header with the first bytes, so that an error before them can still be told.
type backupWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", "application/octet-stream")
	}
	return b.w.Write(p)
}
