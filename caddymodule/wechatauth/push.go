package wechatauth

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/wxgate/wxgate/caddymodule/internal/pushbox"
	"github.com/wxgate/wxgate/caddymodule/internal/reply"
	"github.com/wxgate/wxgate/caddymodule/internal/session"
	"github.com/wxgate/wxgate/caddymodule/internal/store"
	"github.com/wxgate/wxgate/caddymodule/internal/weixin/push"
	"github.com/wxgate/wxgate/caddymodule/wechatapp"
)

const (
	// pushWindow is how far the time of a push may be from the gate's.
	pushWindow = 10 * time.Minute

	// pushMemory is how long the gate knows a push after the time that it names: past
	// the end of the window, for gates whose clocks differ.
	pushMemory = pushWindow + time.Minute

	// pushWork bounds what the gate does before it answers: WeChat sends a push again
	// when five seconds pass.
	pushWork = 2 * time.Second
)

// takesPushes reports whether a mini program of the site receives pushes.
func takesPushes(h *Handler) bool { return h.app != nil && h.app.TakesPushes(h.apps) }

// servePush answers GET and POST /wx/push/<appid>: WeChat's message push.
func (h *Handler) servePush(w http.ResponseWriter, r *http.Request, _ string) error {
	appID := path.Base(r.URL.Path)
	to := h.app.PushReceiver(appID)
	if to == nil || !slices.Contains(h.apps, appID) {
		return h.refusePush(w, r, appID, push.ErrReceiver)
	}
	box := mailbox{appID, to}
	return h.receive(w, r, to, box,
		func(ctx context.Context, live *wechatapp.Live, in received) error {
			return consume(ctx, r, live, box, in)
		})
}

// mailbox is a mini program and whose lines say what befalls its pushes. Without lines the
// app gets none.
type mailbox struct {
	appID string
	lines *wechatapp.PushReceiver
}

// receive answers one call of WeChat to a receiver. act carries a message out; it may
// be called again with the same message after an error, or when a process ends.
//
// WeChat hears success only after act, so that nothing that was acknowledged is lost;
// after anything else it sends the push again.
func (h *Handler) receive(
	w http.ResponseWriter, r *http.Request, to *wechatapp.PushReceiver, box mailbox,
	act func(context.Context, *wechatapp.Live, received) error,
) error {
	if p := wechatapp.PushAttemptOf(r); p != nil {
		h.redeliver(r, box, p)
		return reply.NoContent(w, r)
	}
	if r.Method == http.MethodGet {
		q, err := readProof(r, to)
		if err != nil {
			return h.refusePush(w, r, to.ID(), err)
		}
		metrics.pushed(eventProof, pushTaken)
		return reply.Text(w, r, q.Echo)
	}
	in, err := readPush(w, r, to)
	if err != nil {
		return h.refusePush(w, r, to.ID(), err)
	}
	live, err := h.app.Live(r.Context())
	if err != nil {
		return h.failPush(w, r, to.ID(), in.message, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pushWork)
	defer cancel()
	seen := pushbox.Seen{Facts: live.Core}
	again, err := seen.Has(ctx, in.digest, time.Now())
	answer, result := func() string { return push.Success }, pushRepeated
	if err == nil && !again {
		result = pushTaken
		err = act(ctx, live, in)
		if err == nil && box.lines != nil && box.lines.Deliver != "" {
			answer, err = h.deliver(ctx, r, live, to, box, in)
		}
		if err == nil {
			err = seen.Add(ctx, in.digest, in.query.Time().Add(pushMemory), time.Now())
		}
	}
	switch {
	case errors.Is(err, push.ErrReceiver), errors.Is(err, push.ErrMalformed):
		return h.refusePush(w, r, to.ID(), err)
	case err != nil:
		return h.failPush(w, r, to.ID(), in.message, err)
	}
	metrics.pushed(eventOf(in.message), result)
	return reply.Text(w, r, answer())
}

// received is a push that WeChat has made.
type received struct {
	query   push.Query
	format  push.Format // of the envelope
	text    []byte      // decrypted
	with    push.Key    // that opened it
	message push.Message
	digest  pushbox.Digest
}

// errLate means a push that WeChat made long ago, or that names a time to come.
var errLate = errors.New("push is outside its time window")

func timely(q push.Query) error {
	if time.Since(q.Time()).Abs() > pushWindow {
		return errLate
	}
	return nil
}

// readProof reads the GET by which WeChat asks whether the URL is the gate's.
func readProof(r *http.Request, to *wechatapp.PushReceiver) (push.Query, error) {
	q, err := push.ReadQuery(r.URL.RawQuery)
	if err == nil && q.Echo == "" {
		err = fmt.Errorf("%w: no echostr", push.ErrMalformed)
	}
	if err == nil {
		err = to.Signed(q)
	}
	if err == nil {
		err = timely(q)
	}
	return q, err
}

// readPush reads a push and checks where it comes from. The configuration says whether
// it is encrypted, never the request: a caller could leave encrypt_type out.
func readPush(
	w http.ResponseWriter, r *http.Request, to *wechatapp.PushReceiver,
) (in received, err error) {
	if in.query, err = push.ReadQuery(r.URL.RawQuery); err != nil {
		return in, err
	}
	body, err := reply.ReadBytes(w, r, push.MaxBody)
	if err != nil {
		return in, errors.Join(push.ErrMalformed, err)
	}
	in.text = body
	if to.Plain {
		err = to.Signed(in.query)
	} else {
		var e push.Envelope
		if e, err = push.ReadEnvelope(body); err == nil {
			in.format = e.Format
			in.text, in.with, err = to.Open(in.query, e.Encrypt)
		}
	}
	if err == nil {
		err = timely(in.query)
	}
	if err == nil {
		in.message, err = push.ReadMessage(in.text)
	}
	in.digest = to.Digest(in.text)
	return in, err
}

// consume does what the law asks for when WeChat tells of a user. What is no such event,
// and a user who is not known, needs nothing.
func consume(
	ctx context.Context, r *http.Request, live *wechatapp.Live, box mailbox, in received,
) error {
	m := in.message
	user := session.User{AppID: box.appID, OpenID: m.OpenID}
	fields := []zap.Field{zap.String("appid", user.AppID), zap.String("openid", user.OpenID)}
	var err error
	switch {
	case m.OpenID == "":
		return nil
	case m.Event == push.UserCancelled && box.lines.KeepUsers:
		err = errors.Join(
			tellCancelled(ctx, r, live, wechatapp.EventCancelled, user, in),
			live.Sessions.RevokeUser(ctx, user, store.EndCancelled))
		wechatapp.Audit(r, "user cancelled the account; sessions ended", err, fields...)
	case m.Event == push.UserCancelled:
		end := live.Sessions.Forget
		if err = tellCancelled(ctx, r, live, wechatapp.EventForgotten, user, in); err != nil {
			end = live.Sessions.RevokeUser // the retry must find the unionid
		}
		err = errors.Join(err, end(ctx, user, store.EndCancelled))
		wechatapp.Audit(r, "user cancelled the account; forgotten", err, fields...)
	case m.Event == push.UserRevoked:
		phone := slices.ContainsFunc(m.RevokeInfo, revokesPhone)
		if phone {
			err = live.Sessions.ForgetPhone(ctx, user)
		}
		wechatapp.Audit(r, "user withdrew consent", err, append(fields,
			wechatapp.Bounded("revoke_info", strings.Join(m.RevokeInfo, ",")),
			zap.Bool("phone_forgotten", phone))...)
	case m.Event == push.UserModified:
		wechatapp.Audit(r, "WeChat changed a user's profile", nil, fields...)
	}
	return err
}

// tellCancelled keeps the event for the app before the user is gone: its unionid is in
// the record, and a retry of WeChat's keeps the same one.
func tellCancelled(
	ctx context.Context, r *http.Request, live *wechatapp.Live, event string, user session.User,
	in received,
) error {
	if !live.App.SendsEvents() {
		return nil
	}
	e := wechatapp.Event{
		Event: event, AppID: user.AppID, OpenID: user.OpenID, UnionID: in.message.UnionID,
		Reason: wechatapp.ReasonCancelled,
	}
	known, err := live.Sessions.User(ctx, user)
	switch {
	case err == nil:
		e.UnionID = cmp.Or(e.UnionID, known.UnionID)
	case !errors.Is(err, session.ErrUnknownUser):
		return err
	}
	return live.Tell(ctx, hex.EncodeToString(in.digest[:]), r, e)
}

// revokesPhone reports whether a number of a RevokeInfo stands for the telephone number,
// the only thing that the gate keeps beside the identity.
func revokesPhone(number string) bool {
	return number == push.RevokedPhone || number == push.RevokedAll
}

// pushProblem is the one answer to a push that is not WeChat's to this receiver.
var pushProblem = reply.Problem{
	Status: http.StatusForbidden, Code: "push_refused",
	Detail: "this is no push of WeChat's to that receiver, or it is too old",
}

// pushRefusals are the ends of a push that is not taken. The caller learns less than
// the metric and the log.
var pushRefusals = []struct {
	err    error
	result pushResult
	hint   string // for an operator whose own WeChat is refused
}{
	{
		push.ErrSignature, pushForged,
		"the Token of the WeChat console must be that of the configuration, " +
			"and the mode there secure or compatible unless mode plain is configured",
	},
	{
		push.ErrSealed, pushUnopened,
		"the EncodingAESKey of the WeChat console must be aes_key or the previous one",
	},
	{push.ErrReceiver, pushForeign, "the URL must end in the AppID of the console it stands in"},
	{errLate, pushLate, "the clock of this machine may be wrong"},
}

// refusePush answers a push that nobody proves to be WeChat's.
func (h *Handler) refusePush(
	w http.ResponseWriter, r *http.Request, receiver string, err error,
) error {
	p, result := reply.Invalid(http.StatusBadRequest, "this is no push of WeChat's"), pushMalformed
	fields := []zap.Field{
		wechatapp.Bounded("receiver", receiver), zap.Error(err),
		zap.String("client_ip", clientIP(r)),
	}
	for _, row := range pushRefusals {
		if errors.Is(err, row.err) {
			p, result = pushProblem, row.result
			fields = append(fields, zap.String("hint", row.hint))
		}
	}
	p.ID = reply.NewID()
	metrics.pushed(eventNone, result)
	h.refusals.Log(zap.WarnLevel, "push refused", string(result),
		append(fields, wechatapp.ProblemID(p.ID))...)
	return p.Write(w, r)
}

// failPush answers a push that the gate could not carry out, so that WeChat sends it
// again.
func (h *Handler) failPush(
	w http.ResponseWriter, r *http.Request, receiver string, m push.Message, err error,
) error {
	p := reply.For(reply.Login, err)
	p.ID = reply.NewID()
	metrics.pushed(eventOf(m), pushFailed)
	h.refusals.Log(zap.ErrorLevel, "push not carried out; WeChat repeats it twice",
		string(eventOf(m)),
		zap.String("receiver", receiver), zap.String("event", m.Kind()),
		zap.String("openid", m.OpenID), zap.Error(reply.Cause(err)), wechatapp.ProblemID(p.ID))
	return p.Write(w, r)
}
