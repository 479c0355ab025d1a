"""Verifies an assertion: python3 verify.py <token>, with JWKS, ISSUER and AUDIENCE set.

It prints the openid. It needs PyJWT and cryptography (Debian: python3-jwt).
"""
import json
import os
import sys
import urllib.request

import jwt


def verify(token, keys, issuer, audience):
    """Returns the claims of a token that is for us and holds now.

    An app keeps the keys for 5 minutes, and gets them anew for a kid that it does not know.
    """
    kid = jwt.get_unverified_header(token).get("kid")
    for key in keys:
        if key["kid"] == kid:
            public = jwt.algorithms.ECAlgorithm.from_jwk(json.dumps(key))
            return jwt.decode(token, public, algorithms=["ES256"], issuer=issuer,
                              audience=audience, leeway=30,
                              options={"require": ["exp", "iat", "iss", "aud", "sub"]})
    raise jwt.InvalidTokenError("key")


with urllib.request.urlopen(os.environ["JWKS"]) as answer:
    known = json.load(answer)["keys"]
try:
    print(verify(sys.argv[1], known, os.environ["ISSUER"], os.environ["AUDIENCE"])["sub"])
except jwt.PyJWTError as refusal:
    sys.exit(f"refused: {refusal}")
