package wechatapp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/block"
	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
)

// Push is how one mini program receives WeChat's message push, as the WeChat console
// has it.
type Push struct {
	// The Token, as a placeholder.
	Token string `json:"token,omitempty"`

	// The EncodingAESKey, as a placeholder.
	AESKey string `json:"aes_key,omitempty"`

	// The EncodingAESKey before a change, as a placeholder: WeChat goes on using it for
	// a while.
	PreviousAESKey string `json:"previous_aes_key,omitempty"`

	// The mode: `secure`, `compatible` or `plain`. No request can change it. In the
	// last one anyone who has seen one URL of WeChat's can send any message for ten
	// minutes. Default: secure.
	Mode PushMode `json:"mode,omitempty"`

	// Keep the record of a user who has cancelled the account, and only end the
	// sessions. Default: the gate forgets the user.
	KeepUsers bool `json:"keep_users,omitempty"`

	// A path, as `/push`, on which the app gets every push, decrypted. No client can
	// ask for it. Default: the app gets none.
	Deliver string `json:"deliver,omitempty"`

	// A path, as `/events`, on which the app is told of users whose data it should
	// delete, signed with the key of `assertion`, which each site of the mini program
	// must have. No client can ask for it. Default: the app is told nothing.
	EventsTo string `json:"events_to,omitempty"`
}

// PushMode is the mode of a message push.
type PushMode string

// The modes.
const (
	PushSecure     PushMode = "secure"
	PushCompatible PushMode = "compatible" // encrypted, and in clear beside it
	PushPlain      PushMode = "plain"
)

// PushReceiver is a Push with its secrets resolved.
type PushReceiver struct {
	*push.Receiver
	Plain     bool
	KeepUsers bool
	Deliver   string // path of the app; empty: it gets no push
	EventsTo  string // path of the app; empty: it gets no event
}

// PushReceiver returns how a mini program receives pushes, or nil when it does not.
func (a *App) PushReceiver(appID string) *PushReceiver { return a.pushes[appID] }

// DeliverPaths returns the paths on which apps get pushes and events of mini programs,
// and of those of third-party platforms.
func (a *App) DeliverPaths(appIDs []string) (paths []string) {
	for _, id := range append(a.PlatformIDs(), appIDs...) {
		p := a.pushes[id]
		if p == nil {
			continue
		}
		for _, path := range []string{p.Deliver, p.EventsTo} {
			if path != "" && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// TakesPushes reports whether any of the mini programs receives pushes.
func (a *App) TakesPushes(appIDs []string) bool {
	return slices.ContainsFunc(appIDs, func(id string) bool { return a.pushes[id] != nil })
}

func (p *Push) unmarshal(b *block.Block) error {
	err := b.Sub(func(in *block.Block) error {
		switch in.D.Val() {
		case "mode":
			return in.Checked((*string)(&p.Mode), func(v string) error {
				return PushMode(v).check()
			})
		}
		return p.unmarshalLine(in, "token, aes_key, mode, forget, deliver or events_to")
	})
	if err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return b.D.WrapErr(err)
	}
	return nil
}

// unmarshalLine reads a line that a third-party platform may have, too.
func (p *Push) unmarshalLine(in *block.Block, known string) error {
	switch in.D.Val() {
	case "token":
		return in.Checked(&p.Token, func(v string) error {
			return block.CheckSecret("the push token", v)
		})
	case "aes_key":
		return p.unmarshalKeys(in)
	case "forget":
		return p.unmarshalForget(in)
	case "deliver":
		return in.Checked(&p.Deliver, checkDeliver)
	case "events_to":
		return in.Checked(&p.EventsTo, checkEventsTo)
	}
	return in.Unknown(known)
}

func (p *Push) unmarshalKeys(in *block.Block) error {
	if err := in.First(); err != nil {
		return err
	}
	keys := in.D.RemainingArgs()
	if len(keys) != 1 && len(keys) != 2 {
		return in.D.Err("aes_key takes the placeholder of the EncodingAESKey, " +
			"or of the current and the previous one")
	}
	for _, key := range keys {
		if err := block.CheckSecret("the push aes_key", key); err != nil {
			return in.D.WrapErr(err)
		}
	}
	p.AESKey = keys[0]
	if len(keys) == 2 {
		p.PreviousAESKey = keys[1]
	}
	if p.PreviousAESKey == p.AESKey {
		return in.D.Err("the current and the previous aes_key are the same placeholder: " +
			"write it once, or name the other one")
	}
	return nil
}

func (p *Push) unmarshalForget(in *block.Block) error {
	var value string
	err := in.Checked(&value, func(v string) error {
		if v != "no" {
			return errors.New("forget takes the value no; " +
				"leave the line out to forget users who cancel their account")
		}
		return nil
	})
	p.KeepUsers = value == "no"
	return err
}

// deliverPath is the form of a path that all servers read in one way.
var deliverPath = regexp.MustCompile(`^(/[A-Za-z0-9_-]+)+$`)

func checkDeliver(path string) error { return checkAppPath("deliver", path, "/push") }

func checkEventsTo(path string) error { return checkAppPath("events_to", path, "/wx-events") }

func checkAppPath(word, path, example string) error {
	if !deliverPath.MatchString(path) {
		return fmt.Errorf("%s %q: write a plain path of your app, such as %s", word, path, example)
	}
	return nil
}

func (m PushMode) check() error {
	switch m {
	case "", PushSecure, PushCompatible, PushPlain:
		return nil
	}
	return fmt.Errorf("push mode %q: expected secure, compatible or plain", string(m))
}

// check refuses a Push that cannot work, whatever its secrets are.
func (p *Push) check() error {
	err := p.Mode.check()
	if err == nil && p.Deliver != "" {
		err = checkDeliver(p.Deliver)
	}
	if err == nil && p.EventsTo != "" {
		err = checkEventsTo(p.EventsTo)
	}
	switch {
	case err != nil:
		return err
	case p.EventsTo != "" && p.EventsTo == p.Deliver:
		return errors.New("deliver and events_to have the same path: give each its own")
	case p.Token == "":
		return errors.New("push needs the Token of the WeChat console: " +
			"add the line token {env.WX_PUSH_TOKEN}")
	case p.AESKey == "" && p.Mode != PushPlain:
		return errors.New("push needs the EncodingAESKey of the WeChat console: " +
			"add the line aes_key {env.WX_PUSH_KEY}")
	}
	return nil
}

// provisionPush resolves the secrets of a push. whose says what kind of receiver it is.
func (a *App) provisionPush(whose, appID string, p *Push) error {
	if p == nil {
		return nil
	}
	if err := p.check(); err != nil {
		return fmt.Errorf("push of %s %s: %w", whose, appID, err)
	}
	resolve := func(what, value string) (string, error) {
		what += " of " + whose + " " + appID
		text, err := block.ResolveSecret(what, value)
		if err == nil && text == "" {
			a.empty = append(a.empty, what+" "+value)
		}
		return text, err
	}
	empty := len(a.empty)
	token, err := resolve("push token", p.Token)
	if err != nil {
		return err
	}
	var keys []string
	for _, value := range []string{p.AESKey, p.PreviousAESKey} {
		if value == "" {
			continue
		}
		key, err := resolve("push aes_key", value)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if len(a.empty) > empty {
		return nil // the gate does not start, and says so
	}
	receiver, err := push.New(appID, token, keys...)
	if err != nil {
		return fmt.Errorf("push of %s %s: %w", whose, appID, err)
	}
	if a.pushes == nil {
		a.pushes = make(map[string]*PushReceiver)
	}
	a.pushes[appID] = &PushReceiver{
		Receiver: receiver, Plain: p.Mode == PushPlain, KeepUsers: p.KeepUsers,
		Deliver: p.Deliver, EventsTo: p.EventsTo,
	}
	a.warnPush(appID, p.Mode)
	return nil
}

// warnPush tells of a mode that protects less.
func (a *App) warnPush(appID string, m PushMode) {
	appid := zap.String("appid", appID)
	cure := zap.String("cure", "choose secure mode in the WeChat console, and take out the line")
	switch m {
	case PushCompatible:
		a.log.Warn("push mode compatible: WeChat sends messages in clear, too", appid, cure)
	case PushPlain:
		a.log.Warn("push mode plain: who has seen a push can forge others", appid, cure)
	}
}

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
