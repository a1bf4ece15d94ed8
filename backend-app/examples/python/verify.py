"""Verifies X-Tenant-Context in Python (3.10 or later); needs `cryptography` from PyPI. What is checked and why is in
../README.md.

    contexts = TenantContexts("http://127.0.0.1:8600/.well-known/schoolgate/jwks.json", "shared")
    tenant = contexts.verify(request.headers.getlist("X-Tenant-Context"))   # raises NotVerified: answer 401

As a server: python3 verify.py <URL of the keys> <pool> [host:port]
"""

import base64
import json
import re
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LEEWAY_S = 5  # between the gateway's clock and ours
ISSUED_AHEAD_S = 60  # a token's whole life; more is a broken clock
ASK_AGAIN_S = 5  # invented key ids must not make us a load on the source of keys
KEEP_S = 300  # at most, whatever max-age says: a withdrawn key counts for no longer
FETCH_WITHIN_S = 2
LONGEST_TOKEN = 16 * 1024
LARGEST_JWKS = 64 * 1024


class NotVerified(Exception):
    """The request did not come through the gateway, or is for somebody else: 401."""


class TenantContexts:
    def __init__(self, keys_url, audience, issuer="schoolgate"):
        self.keys_url, self.audience, self.issuer = keys_url, audience, issuer
        self._keys, self._stale_at, self._asked_at = {}, float("-inf"), float("-inf")
        self._lock = threading.Lock()

    def verify(self, tokens, now=None):
        """The claims of a token that holds; raises NotVerified otherwise.

        `tokens` are all values of the header: there must be exactly one. `now` is in seconds since 1970.
        """
        now = time.time() if now is None else now
        if tokens is None or len(tokens) != 1 or len(tokens[0]) > LONGEST_TOKEN:
            raise NotVerified("there must be one tenant context")
        parts = tokens[0].split(".")
        if len(parts) != 3 or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
            raise NotVerified("not a compact JWS")
        header, claims = _object(parts[0]), _object(parts[1])
        if header.get("alg") != "EdDSA" or "crit" in header:
            raise NotVerified("not signed with plain EdDSA")
        try:
            # The algorithm is the key's own, Ed25519, whatever the token says.
            self._key(header.get("kid")).verify(_bytes(parts[2]), f"{parts[0]}.{parts[1]}".encode())
        except InvalidSignature:
            raise NotVerified("the signature does not hold") from None
        if claims.get("iss") != self.issuer or claims.get("aud") != self.audience:
            raise NotVerified("from or for someone else")
        if _number(claims, "exp") + LEEWAY_S <= now:
            raise NotVerified("expired")
        if "nbf" in claims and _number(claims, "nbf") - LEEWAY_S > now:
            raise NotVerified("not valid yet")
        if _number(claims, "iat") > now + ISSUED_AHEAD_S:
            raise NotVerified("issued in the future")
        tenant = claims.get("tenant_id")
        is_id = isinstance(tenant, str) and re.fullmatch(r"tnt_[0-9A-HJKMNP-TV-Z]{26}", tenant)
        if not is_id or claims.get("sub") != tenant:
            raise NotVerified("no valid tenant")
        return claims

    def _key(self, key_id):
        if not isinstance(key_id, str):
            raise NotVerified("it names no key")
        with self._lock:
            now = time.monotonic()
            wanted = key_id not in self._keys or now >= self._stale_at
            if wanted and now - self._asked_at >= ASK_AGAIN_S:
                self._asked_at = now
                try:
                    self._fetch()
                except (OSError, ValueError, KeyError, TypeError) as error:
                    # While the source is gone, the keys we have go on counting.
                    print(f"no keys from {self.keys_url}: {error}", file=sys.stderr)
            if key_id not in self._keys:
                raise NotVerified("signed with an unknown key")
            return self._keys[key_id]

    def _fetch(self):
        with urllib.request.urlopen(self.keys_url, timeout=FETCH_WITHIN_S) as answer:
            jwks = json.loads(answer.read(LARGEST_JWKS))
            cache_control = answer.headers.get("Cache-Control", "")
        keys = {
            key["kid"]: Ed25519PublicKey.from_public_bytes(_bytes(key["x"]))
            for key in jwks["keys"]
            if key["kty"] == "OKP" and key["crv"] == "Ed25519"
        }
        if not keys:
            raise ValueError("no Ed25519 key in it")
        max_age = re.search(r"(?:^|[\s,])max-age=(\d+)", cache_control)
        self._keys = keys
        self._stale_at = time.monotonic() + min(int(max_age[1]) if max_age else KEEP_S, KEEP_S)


def _bytes(part):
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _object(part):
    try:
        value = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise NotVerified("not a compact JWS")
    return value


def _number(claims, name):
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise NotVerified(f"{name} is no time")
    return value


class Greeter(BaseHTTPRequestHandler):
    """A backend that greets the school. Everything but /healthz needs a tenant context."""

    protocol_version = "HTTP/1.1"
    contexts = None

    def do_GET(self):
        if self.path == "/healthz":
            return self._answer(200, {"status": "ok"})
        try:
            tenant = self.contexts.verify(self.headers.get_all("X-Tenant-Context"))
        except NotVerified as error:
            # Why is for our log: a stranger learns nothing.
            self.log_error("401: %s", error)
            message = "This needs a tenant context of the gateway."
            return self._answer(401, {"status": 401, "error": "INVALID_TOKEN", "message": message})
        greeting = f"Welcome to {tenant['name']}"
        self._answer(200, {"tenant_id": tenant["tenant_id"], "slug": tenant["slug"], "greeting": greeting})

    def _answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    if not 3 <= len(sys.argv) <= 4:
        sys.exit("usage: python3 verify.py <URL of the keys> <pool> [host:port]")
    host, port = (sys.argv[3] if len(sys.argv) == 4 else "127.0.0.1:8802").split(":")
    Greeter.contexts = TenantContexts(sys.argv[1], sys.argv[2])
    server = ThreadingHTTPServer((host, int(port)), Greeter)
    print(f"listening on {host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
