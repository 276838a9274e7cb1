"""The signature of our requests: whoever gets one can tell that it is ours, and new."""

import hashlib
import hmac

SIGNATURE_HEADER = "X-GLM-Voice-Signature"


def signature(secret: str, at: int, body: bytes) -> str:
    """The value of the signature's header.

    Args:
        secret: Shared with the server.
        at: Unix seconds.
        body: Of the request; empty where it has none.
    """
    signed = f"{at}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
