package wechatapp

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
)

// What befell a user of whom an app is told.
const (
	EventCancelled = "cancelled" // the account, and the gate keeps the record
	EventForgotten = "forgotten"
	EventBlocked   = "blocked"
)

// Who made it happen.
const (
	ReasonCancelled = "user_cancelled" // the user, by cancelling the account
	ReasonOperator  = "operator"
)

// Event is what the app is told, so that it can delete what it holds of a user.
type Event struct {
	Event   string    `json:"event"`
	AppID   string    `json:"appid"`
	OpenID  string    `json:"openid"`
	UnionID string    `json:"unionid,omitempty"`
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"`
	Until   time.Time `json:"until,omitzero"` // of a block that ends
}

// eventPause keeps an event back until what it tells is done: Tell comes first, so that
// a crash loses neither.
const eventPause = 3 * time.Second

// SendsEvents reports whether an app is told of users.
func (a *App) SendsEvents() bool {
	for _, p := range a.pushes {
		if p.EventsTo != "" {
			return true
		}
	}
	return false
}

// Tell keeps an event durably until the app has it; of a mini program without events_to
// it keeps nothing. An event with the id of one that is kept is the same. r is the push
// of WeChat's that brought it, or nil. The error wraps session.ErrUnavailable.
func (l *Live) Tell(ctx context.Context, id string, r *http.Request, e Event) error {
	if !l.App.SendsEvents() {
		return nil
	}
	to, path, err := l.eventsOf(ctx, e.AppID)
	if err != nil || to == nil || to.EventsTo == "" {
		return err
	}
	now := time.Now()
	e.At = now.UTC().Truncate(time.Second)
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	d := pushbox.Due{
		ID: "event " + id, Event: e.Event, AppID: e.AppID, OpenID: e.OpenID, UnionID: e.UnionID,
		From: "event " + e.OpenID, Path: path, ContentType: "application/json", Body: body,
		Next: now.Add(eventPause),
	}
	if r != nil {
		d.Host, d.Path = r.Host, r.URL.Path
	}
	_, err = l.PushQueue().Add(ctx, d, now)
	return storeTrouble(err) // a queue that is full is one for now, too
}

// eventsOf returns whose lines hold for a mini program, and where below the prefix of a
// site its pushes come. nil stands for none.
func (l *Live) eventsOf(ctx context.Context, appID string) (*PushReceiver, string, error) {
	if to := l.App.PushReceiver(appID); to != nil {
		return to, "/push/" + appID, nil
	}
	for _, p := range l.platforms {
		if ok, err := p.Knows(ctx, appID); err != nil {
			return nil, "", storeTrouble(err)
		} else if ok {
			return l.App.PushReceiver(p.AppID()),
				"/component/" + p.AppID() + "/callback/" + appID, nil
		}
	}
	return nil, "", nil
}
