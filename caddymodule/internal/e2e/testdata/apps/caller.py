"""Says who is calling as WSGI has it, and all else that WSGI knows of the request.

What it says also goes to the file $APP_SEEN, so that a request is noticed
whatever becomes of the answer.
"""

import json
import os
import posixpath


def application(environ, start_response):
    environ["wsgi.input"].read()
    said = json.dumps({
        "openid": environ.get("HTTP_X_WX_OPENID"),
        "unionid": environ.get("HTTP_X_WX_UNIONID"),
        "appid": environ.get("HTTP_X_WX_APPID"),
        "source": environ.get("HTTP_X_WX_SOURCE"),
        "environment": [
            {"api": "environ", "name": name, "value": value}
            for name, value in environ.items()
            if isinstance(value, str)
        ],
        "headers": [],
        "paths": {
            "RAW_URI": environ.get("RAW_URI", "").split("?")[0],
            "SCRIPT_NAME": environ["SCRIPT_NAME"],
            "PATH_INFO": environ["PATH_INFO"],
            "normpath": posixpath.normpath(environ["PATH_INFO"]),
        },
    })
    with open(os.environ["APP_SEEN"], "a") as seen:
        seen.write(said + "\n")
    start_response("200 OK", [("X-App", "wsgi"), ("Content-Type", "application/json")])
    return [said.encode()]
