"""A small app behind the gate. It keeps its users in SQLite:

    python3 app.py                                 # or, as in production:
    gunicorn --bind 127.0.0.1:8080 --workers 2 'app:create()'

It listens on loopback, since it believes the headers of all who reach it.
"""
import json
import logging
import os
import sqlite3
import uuid
from contextlib import closing
from http import HTTPStatus
from socketserver import ThreadingMixIn
from urllib.error import HTTPError
from urllib.parse import parse_qsl, quote
from urllib.request import ProxyHandler, Request, build_opener
from wsgiref.simple_server import WSGIServer, make_server

USERS = """CREATE TABLE IF NOT EXISTS users (
    appid    TEXT NOT NULL,
    openid   TEXT NOT NULL,
    id       TEXT NOT NULL UNIQUE,
    unionid  TEXT,
    nickname TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (appid, openid)
)"""

MAX_BODY = 64 * 1024

# The gate is on this machine: no proxy of the environment is asked.
opener = build_opener(ProxyHandler({}))


class Refusal(Exception):
    """An answer with an error status."""


class App:
    def __init__(self, file, wechat):
        """wechat is the URL of the gate's wechat_api."""
        self.file, self.wechat = file, wechat
        self.row(USERS)

    def __call__(self, environ, start_response):
        """Answers a request (PEP 3333)."""
        try:
            status, data = self.handle(environ)
        except Refusal as refusal:
            status, data = refusal.args[0], {"error": refusal.args[1]}
        except Exception:
            logging.exception("request failed")
            status, data = 500, {"error": "try again"}
        start_response(f"{status} {HTTPStatus(status).phrase}",
                       [("Content-Type", "application/json")])
        return [] if data is None else [json.dumps(data).encode()]

    def handle(self, environ):
        # The gate has verified these. There is no other login code.
        key = environ.get("HTTP_X_WX_APPID", ""), environ.get("HTTP_X_WX_OPENID", "")
        unionid = environ.get("HTTP_X_WX_UNIONID") or None
        if not key[1]:
            raise Refusal(401, "no user")
        match environ["REQUEST_METHOD"], environ["PATH_INFO"]:
            case "GET", "/api/me":
                return 200, self.user(key, unionid)
            case "PUT", "/api/me":
                length = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BODY)
                body = environ["wsgi.input"].read(length)
                return 200, self.rename(key, unionid, body)
            case "DELETE", "/api/me":
                return 204, self.delete(key)
        raise Refusal(404, "no such page")

    def user(self, key, unionid):
        """Returns the row of a user. It writes at first sight, and for a new unionid.

        The database lets one of parallel first requests make the row. An unknown unionid
        does not overwrite a known one.
        """
        found = self.row("SELECT id, openid, unionid, nickname FROM users"
                         " WHERE appid = ? AND openid = ?", key)
        if found and unionid in (None, found["unionid"]):
            return found
        return self.row(
            "INSERT INTO users (appid, openid, id, unionid) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (appid, openid)"
            " DO UPDATE SET unionid = COALESCE(excluded.unionid, unionid)"
            " RETURNING id, openid, unionid, nickname", (*key, uuid.uuid4().hex, unionid))

    def rename(self, key, unionid, body):
        """Sets the nickname. WeChat asks apps to check what other users will read."""
        nickname = dict(parse_qsl(body.decode(errors="replace"))).get("nickname")
        if not nickname:
            raise Refusal(400, "nickname is missing")
        check = self.call("/wxa/msg_sec_check?from_appid=" + quote(key[0]), {
            "openid": key[1], "version": 2, "scene": 1, "content": nickname})
        if check["result"]["suggest"] != "pass":
            raise Refusal(422, "nickname is refused")
        self.user(key, unionid)
        return self.row("UPDATE users SET nickname = ? WHERE appid = ? AND openid = ?"
                        " RETURNING id, openid, unionid, nickname", (nickname, *key))

    def delete(self, key):
        """Closes the account.

        The gate is first: it ends the user's sessions, so that no new request makes the
        row again.
        """
        self.call("/wx/user/forget", {"appid": key[0], "openid": key[1]})
        self.row("DELETE FROM users WHERE appid = ? AND openid = ?", key)

    def row(self, sql, values=()):
        """Runs a statement, and returns its row as a dictionary."""
        with closing(sqlite3.connect(self.file, timeout=10)) as db, db:
            db.row_factory = sqlite3.Row
            rows = db.execute(sql, values).fetchall()
        return dict(rows[0]) if rows else None

    def call(self, path, data):
        """Asks WeChat through the gate, or the gate itself (/wx/user/…)."""
        request = Request(self.wechat + path, json.dumps(data).encode(),
                          {"Content-Type": "application/json"})
        try:
            with opener.open(request, timeout=30) as answer:
                text = answer.read()
        except HTTPError as refusal:  # of the gate; WeChat answers with an errcode
            raise RuntimeError(f"{path}: {refusal}: {refusal.read()}") from refusal
        answer = json.loads(text) if text else {}
        if answer.get("errcode"):
            raise RuntimeError(f"{path}: {answer}")
        return answer


def create():
    return App(os.environ.get("DATABASE", "users.db"),
               os.environ.get("WECHAT", "http://127.0.0.1:8081"))


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8080"))
    make_server("127.0.0.1", port, create(), server_class=Server).serve_forever()
