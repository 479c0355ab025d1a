package caddymodule

import (
	"net/http"
	"time"
)

// keysAnswer is what GET /wechat/keys tells: names, never keys.
type keysAnswer struct {
	Keys []keyRow `json:"keys"` // as in the ring, newest first
}

type keyRow struct {
	ID          string    `json:"id"`
	State       string    `json:"state"`
	NeededUntil time.Time `json:"needed_until,omitzero"`
}

// The states of a master key.
const (
	keySigns  = "signs"  // signs new tokens and encrypts session_keys
	keyNeeded = "needed" // sessions that were made under it live
	keySpare  = "not needed"
)

func serveKeys(live *running, w http.ResponseWriter, r *http.Request) error {
	needs, err := live.sessions.MasterKeys(r.Context())
	if err != nil {
		return storeRefusal(err)
	}
	var answer keysAnswer
	for i, id := range live.app.ring.IDs() {
		row := keyRow{ID: id.String(), State: keySpare}
		switch until := needs[id]; {
		case i == 0:
			row.State = keySigns
		case until.After(time.Now()):
			row.State, row.NeededUntil = keyNeeded, until.UTC().Truncate(time.Second).Add(time.Second)
		}
		answer.Keys = append(answer.Keys, row)
	}
	return answerAdmin(w, answer)
}
