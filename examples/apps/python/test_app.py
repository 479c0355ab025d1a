"""The tests: python3 test_app.py. A header is all that makes a request a logged-in user's."""
import io
import json
import os
import tempfile
import unittest

from app import App

ADA = {"appid": "wxA", "openid": "oAda"}


class Gate(App):
    """The app with a gate that finds "risky" in texts, and notes whom it forgets."""
    forgotten, down = None, False

    def call(self, path, data):
        if self.down:
            raise RuntimeError("the gate is down")
        if path == "/wx/user/forget":
            self.forgotten = data
            return {}
        return {"result": {"suggest": "risky" if "risky" in data["content"] else "pass"}}


class TestMe(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.app = Gate(os.path.join(folder.name, "users.db"), "")

    def me(self, method, user, body=""):
        environ = {"REQUEST_METHOD": method, "PATH_INFO": "/api/me",
                   "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body.encode())}
        for name, value in user.items():
            environ["HTTP_X_WX_" + name.upper()] = value
        started = []
        body = b"".join(self.app(environ, lambda status, headers: started.append(status)))
        return int(started[0][:3]), json.loads(body) if body else None

    def test_each_user_has_one_row(self):
        _, first = self.me("GET", ADA)
        self.assertEqual("oAda", first["openid"])
        self.assertEqual((200, first), self.me("GET", ADA))
        for other in {**ADA, "openid": "oBob"}, {**ADA, "appid": "wxB"}:
            self.assertNotEqual(first["id"], self.me("GET", other)[1]["id"])
        self.assertEqual(401, self.me("GET", {})[0])

    def test_unionid_that_comes_late_stays(self):
        for told, want in ("", None), ("uAda", "uAda"), ("", "uAda"), ("uNew", "uNew"):
            self.assertEqual(want, self.me("GET", {**ADA, "unionid": told})[1]["unionid"])

    def test_wechat_checks_the_nickname(self):
        for body, want in (("nickname=Ada", 200), ("nickname=a+risky+one", 422),
                           ("nickname=", 400), ("", 400)):
            self.assertEqual(want, self.me("PUT", ADA, body)[0], body)
        self.assertEqual("Ada", self.me("GET", ADA)[1]["nickname"])

    def test_gate_forgets_first(self):
        _, first = self.me("GET", ADA)
        self.app.down = True
        with self.assertLogs():
            self.assertEqual(500, self.me("DELETE", ADA)[0])
        self.assertEqual((200, first), self.me("GET", ADA))
        self.app.down = False
        self.assertEqual((204, None), self.me("DELETE", ADA))
        self.assertEqual(ADA, self.app.forgotten)
        self.assertNotEqual(first["id"], self.me("GET", ADA)[1]["id"])


if __name__ == "__main__":
    unittest.main()
