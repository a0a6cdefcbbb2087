"""Verifies what farcall sends to a callback's URL: Standard Webhooks 1.0.0, symmetric signatures.

`verify(secret, headers, body)` raises ValueError unless the body came from somebody who knows the secret, and came
within the last five minutes. `headers` is any mapping with lower-case names, `body` the bytes as they arrived.
"""

import base64
import hashlib
import hmac
import time

TOLERANCE_S = 5 * 60


def verify(secret, headers, body, now=None):
    webhook_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs((time.time() if now is None else now) - int(timestamp)) > TOLERANCE_S:
        raise ValueError("too old, or from the future")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # One of several may match, while a secret is replaced. Compared whole, and in constant time.
    if not any(hmac.compare_digest(given.encode(), expected) for given in headers["webhook-signature"].split()):
        raise ValueError("no signature matches")
    # A webhook may come more than once: remember `webhook_id` and take each only once.
    return webhook_id
