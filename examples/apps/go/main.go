// Command go is a small app behind the gate. It keeps its users in a file:
//
//	go run ./examples/apps/go
package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"

	"go.etcd.io/bbolt"
)

type app struct {
	db     *bbolt.DB
	wechat string // URL of the gate's wechat_api
}

// caller is the user of a request, as the gate names it.
type caller struct{ appID, openID, unionID string }

// key has both: an openid belongs to one mini program.
func (c caller) key() []byte { return []byte(c.appID + "/" + c.openID) }

// user is the row of a user.
type user struct {
	ID       string `json:"id"`
	OpenID   string `json:"openid"`
	UnionID  string `json:"unionid"` // empty until WeChat tells it
	Nickname string `json:"nickname"`
}

type refusal struct {
	Error string `json:"error"`
}

var users = []byte("users")

// user returns the row of the caller. It writes at first sight, and for a new unionid.
func (a *app) user(c caller) (u user, err error) {
	err = a.db.View(func(tx *bbolt.Tx) error {
		return json.Unmarshal(tx.Bucket(users).Get(c.key()), &u)
	})
	if err == nil && (c.unionID == "" || c.unionID == u.UnionID) {
		return u, nil
	}
	return a.save(c, "")
}

// save makes or changes the row of the caller. An empty value changes nothing. bbolt runs
// one Update at a time, so parallel first requests make one row.
func (a *app) save(c caller, nickname string) (u user, err error) {
	err = a.db.Update(func(tx *bbolt.Tx) error {
		u = user{ID: rand.Text(), OpenID: c.openID}
		if row := tx.Bucket(users).Get(c.key()); row != nil {
			if err := json.Unmarshal(row, &u); err != nil {
				return err
			}
		}
		u.UnionID, u.Nickname = cmp.Or(c.unionID, u.UnionID), cmp.Or(nickname, u.Nickname)
		row, _ := json.Marshal(u) // strings do not fail
		return tx.Bucket(users).Put(c.key(), row)
	})
	return u, err
}

// call asks WeChat through the gate, or the gate itself (/wx/user/…).
func (a *app) call(path string, in map[string]any, answer any) error {
	body, _ := json.Marshal(in)
	resp, err := http.Post(a.wechat+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the gate answers %s", path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// putMe sets the nickname. WeChat asks apps to check what other users will read.
func (a *app) putMe(c caller, r *http.Request) (int, any, error) {
	nickname := r.PostFormValue("nickname")
	if nickname == "" {
		return http.StatusBadRequest, refusal{"nickname is missing"}, nil
	}
	var check struct { // with an ErrCode there is no result
		ErrCode int
		Result  struct{ Suggest string }
	}
	err := a.call("/wxa/msg_sec_check?from_appid="+url.QueryEscape(c.appID), map[string]any{
		"openid": c.openID, "version": 2, "scene": 1, "content": nickname,
	}, &check)
	if err == nil && check.ErrCode != 0 {
		err = fmt.Errorf("WeChat does not check texts: errcode %d", check.ErrCode)
	}
	if err != nil || check.Result.Suggest != "pass" {
		return http.StatusUnprocessableEntity, refusal{"nickname is refused"}, err
	}
	u, err := a.save(c, nickname)
	return http.StatusOK, u, err
}

// deleteMe closes the account. The gate is first: it ends the user's sessions, so that
// no new request makes the row again.
func (a *app) deleteMe(c caller, _ *http.Request) (int, any, error) {
	err := a.call("/wx/user/forget", map[string]any{"appid": c.appID, "openid": c.openID}, nil)
	if err == nil {
		err = a.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(users).Delete(c.key()) })
	}
	return http.StatusNoContent, nil, err
}

// as calls a handler with the user whom the gate names. There is no other login code.
func as(handle func(caller, *http.Request) (int, any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		c := caller{h.Get("X-WX-APPID"), h.Get("X-WX-OPENID"), h.Get("X-WX-UNIONID")}
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		status, body, err := http.StatusUnauthorized, any(refusal{"no user"}), error(nil)
		if c.openID != "" {
			status, body, err = handle(c, r)
		}
		if err != nil {
			log.Print(err)
			status, body = http.StatusInternalServerError, refusal{"try again"}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if body != nil {
			json.NewEncoder(w).Encode(body)
		}
	}
}

func newApp(file, wechat string) (http.Handler, error) {
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		return nil, err
	}
	a, mux := &app{db, wechat}, http.NewServeMux()
	mux.HandleFunc("GET /api/me", as(func(c caller, _ *http.Request) (int, any, error) {
		u, err := a.user(c)
		return http.StatusOK, u, err
	}))
	mux.HandleFunc("PUT /api/me", as(a.putMe))
	mux.HandleFunc("DELETE /api/me", as(a.deleteMe))
	return mux, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(users)
		return err
	})
}

func main() {
	app, err := newApp(cmp.Or(os.Getenv("DATABASE"), "users.db"),
		cmp.Or(os.Getenv("WECHAT"), "http://127.0.0.1:8081"))
	if err != nil {
		log.Fatal(err)
	}
	// On loopback, since the app believes the headers of all who reach it.
	log.Fatal(http.ListenAndServe("127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8080"), app))
}
