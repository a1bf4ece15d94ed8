"""Verifies X-Tenant-Context in Python (3.10 or later); needs `cryptography`.

    contexts = TenantContexts("http://127.0.0.1:8600/.well-known/schoolgate/jwks.json", "shared")
    tenant = contexts.verify(request.headers.getlist("X-Tenant-Context"))   # raises ValueError: answer 401

From the command line: python3 verify_context.py <URL of the keys> <pool> <token>
"""

import base64
import json
import re
import sys
import threading
import time
import urllib.request

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

REFETCH_INTERVAL_S = 5  # invented key ids must not make us a load on the source of keys
LEEWAY_S = 5
ISSUED_AHEAD_S = 60


class TenantContexts:
    def __init__(self, keys_url, audience, issuer="schoolgate"):
        self.keys_url, self.audience, self.issuer = keys_url, audience, issuer
        self._keys, self._fetched_at, self._lock = {}, float("-inf"), threading.Lock()

    def verify(self, tokens, now=None):
        """The claims of a token that holds. `tokens` are all values of the header; there must be one."""
        try:
            return self._verify(tokens, time.time() if now is None else now)
        except (AttributeError, KeyError, TypeError):
            raise ValueError("not a tenant context") from None

    def _verify(self, tokens, now):
        if len(tokens) != 1:
            raise ValueError("there must be one tenant context")
        parts = tokens[0].split(".")
        if len(parts) != 3 or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
            raise ValueError("not a compact JWS")
        header, claims = (json.loads(_decode(part)) for part in parts[:2])
        if header.get("alg") != "EdDSA" or "crit" in header:
            raise ValueError("not signed with plain EdDSA")
        try:
            self._key(header.get("kid")).verify(_decode(parts[2]), f"{parts[0]}.{parts[1]}".encode())
        except InvalidSignature:
            raise ValueError("the signature does not hold") from None
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            raise ValueError("from or for someone else")
        if claims["exp"] + LEEWAY_S <= now:
            raise ValueError("expired")
        if claims["iat"] > now + ISSUED_AHEAD_S:
            raise ValueError("issued in the future")
        tenant = claims["tenant_id"]
        if not re.fullmatch(r"tnt_[0-9A-HJKMNP-TV-Z]{26}", tenant) or claims["sub"] != tenant:
            raise ValueError("no valid tenant")
        return claims

    def _key(self, key_id):
        with self._lock:
            if key_id not in self._keys and time.monotonic() - self._fetched_at >= REFETCH_INTERVAL_S:
                self._fetched_at = time.monotonic()
                with urllib.request.urlopen(self.keys_url, timeout=2) as answer:
                    jwks = json.load(answer)
                self._keys = {
                    key["kid"]: Ed25519PublicKey.from_public_bytes(_decode(key["x"]))
                    for key in jwks["keys"]
                    if key["kty"] == "OKP" and key["crv"] == "Ed25519"
                }
            if key_id not in self._keys:
                raise ValueError("signed with an unknown key")
            return self._keys[key_id]


def _decode(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


if __name__ == "__main__":
    keys_url, audience, token = sys.argv[1:]
    print(json.dumps(TenantContexts(keys_url, audience).verify([token])))
