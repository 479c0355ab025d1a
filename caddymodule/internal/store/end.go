package store

import (
	"cmp"
	"encoding/hex"
	"slices"
	"sync/atomic"
	"time"
)

// Reason says why a session ended. The numbers are at rest, so they stay.
type Reason uint8

// The reasons.
const (
	EndLogout    Reason = iota + 1 // the user logged out, from here or from everywhere
	EndExpired                     // it reached its TTL
	EndIdle                        // it reached the idle timeout
	EndReplaced                    // a login came with its token
	EndEvicted                     // a later login, over max_per_user
	EndRevoked                     // the operator ended it
	EndByApp                       // the app ended it by wechat_api
	EndBlocked                     // the operator blocked the user
	EndForgotten                   // the operator or the app had the user forgotten
	EndCancelled                   // WeChat said that the user cancelled the account
	EndWithdrawn                   // WeChat said that the user withdrew consent
)

var reasonWords = [...]string{
	"unknown", "logout", "expired", "idle", "replaced", "evicted", "revoked", "revoked_by_app",
	"blocked", "forgotten", "cancelled", "withdrawn",
}

// String returns the word of logs and JSON; "unknown" for a reason of a later release.
func (r Reason) String() string {
	if int(r) >= len(reasonWords) {
		r = 0
	}
	return reasonWords[r]
}

// lapsed reports whether time ended the session, and nothing that was done.
func (r Reason) lapsed() bool { return r == EndExpired || r == EndIdle }

// SessionID is the beginning of a digest. Operators and logs call a session by it; it
// opens nothing.
type SessionID [8]byte

// String returns the id in hex.
func (id SessionID) String() string { return hex.EncodeToString(id[:]) }

// ID returns what operators call the session.
func (d Digest) ID() SessionID { return SessionID(d[:len(SessionID{})]) }

// End is what a user's record keeps of a session that has ended.
type End struct {
	Session SessionID
	Created time.Time
	At      time.Time // of the end; for EndReplaced of the login, Grace before it
	Reason  Reason
}

// Ended is an End with whose session it was.
type Ended struct {
	User UserID
	End
}

func (s SessionRef) end(why Reason, at time.Time) End {
	return End{Session: s.Digest.ID(), Created: s.Created, At: at, Reason: why}
}

// MaxEnds bounds the ends that a user's record keeps: the last ones.
const MaxEnds = 5

// EndReporter is a Store that tells how sessions end, as far as it notices: each end
// once for all gates that share the store, by the gate that put it on record.
type EndReporter interface {
	// ReportEnds makes the store call report, from any goroutine, when an end is
	// durable. The gate calls it once, before any other method.
	ReportEnds(report func(Ended))
}

// EndReports is the part of an engine that is an EndReporter. It is safe for concurrent
// use.
type EndReports struct{ report atomic.Pointer[func(Ended)] }

// ReportEnds implements EndReporter.
func (r *EndReports) ReportEnds(report func(Ended)) { r.report.Store(&report) }

// TellEnds reports ends that are durable.
func (r *EndReports) TellEnds(list []Ended) {
	report := r.report.Load()
	if report == nil {
		return
	}
	for _, e := range list {
		(*report)(e)
	}
}

// noteEnd adds an end to those on record, unless its reason is zero. The first end of a
// session counts, unless only time had ended it and a longer limit brought it back.
func (u *User) noteEnd(e End) {
	if e.Reason == 0 {
		return
	}
	e.Created, e.At = atRest(e.Created), atRest(e.At)
	i := slices.IndexFunc(u.Ends, func(o End) bool { return o.Session == e.Session })
	if i >= 0 && (e.Reason.lapsed() || e.Reason == EndReplaced || !u.Ends[i].Reason.lapsed()) {
		return
	}
	ends := slices.Clone(u.Ends)
	if i >= 0 {
		ends = slices.Delete(ends, i, i+1)
	}
	u.setEnds(append(ends, e))
	u.fresh = append(u.fresh[:len(u.fresh):len(u.fresh)], e)
}

// setEnds keeps the last of a list of ends.
func (u *User) setEnds(ends []End) {
	slices.SortStableFunc(ends, func(a, b End) int {
		return cmp.Or(a.At.Compare(b.At), a.Created.Compare(b.Created))
	})
	u.Ends = ends[max(0, len(ends)-MaxEnds):]
}

// TakeEnds returns the ends that were noted since the record was read or TakeEnds was
// called. Engines report them when the record is durable.
func (u *User) TakeEnds() (list []Ended) {
	for _, e := range u.fresh {
		list = append(list, Ended{u.ID, e})
	}
	u.fresh = nil
	return list
}

// atRest cuts t to the precision of times at rest.
func atRest(t time.Time) time.Time { return time.UnixMilli(t.UnixMilli()) }
