"""Who may scrape: HTTP basic authentication against a file of salted hashes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from governor.errors import InputError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_SCRYPT = {"n": 2**14, "r": 8, "p": 1}
"""RFC 7914's parameters for interactive use: 16 MB and some 50 ms a guess."""
_SCHEME = "scrypt"


def hashed(name: str, password: str) -> str:
    """A line of the file of passwords.

    Raises:
        InputError: the name or the password cannot be used.
    """
    if not name or ":" in name or not name.isprintable():
        raise InputError(f"a name is printable and has no colon, got {name!r}")
    if not password:
        raise InputError("an empty password protects nothing")
    salt = secrets.token_bytes(16)
    return f"{name}:{_SCHEME}${salt.hex()}${_derive(password, salt).hex()}"


def _derive(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_SCRYPT)


class Passwords:
    """Names and the hashes of their passwords.

    A right password is remembered (by a hash with a key of this process), so that a scrape
    costs no scrypt; wrong ones are tried one after another, so that guessing cannot take more
    than one core.
    """

    def __init__(self, hashes: Mapping[str, tuple[bytes, bytes]]) -> None:
        """``hashes``: salt and hash by name."""
        self._hashes = dict(hashes)
        self._right: set[bytes] = set()
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()

    @classmethod
    def load(cls, path: Path) -> Passwords:
        """Read the file.

        Raises:
            InputError: it cannot be read, or a line is not as it should be.
        """
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"passwords: {path}: {error}") from error
        hashes: dict[str, tuple[bytes, bytes]] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, _, secret = line.strip().partition(":")
            scheme, _, rest = secret.partition("$")
            salt, _, digest = rest.partition("$")
            try:
                hashes[name] = bytes.fromhex(salt), bytes.fromhex(digest)
            except ValueError:
                scheme = ""
            if scheme != _SCHEME or not salt or not digest:
                raise InputError(
                    f"{path}, line {number}: expected NAME:{_SCHEME}$SALT$HASH as printed by "
                    "governor metrics --password NAME"
                )
        if not hashes:
            raise InputError(f"{path} holds no password; nobody could scrape")
        return cls(hashes)

    def allows(self, header: str) -> bool:
        """Whether an ``Authorization`` header names one of these."""
        kind, _, credentials = header.partition(" ")
        try:
            name, found, password = base64.b64decode(credentials, validate=True).partition(b":")
            user = name.decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            return False
        if kind.lower() != "basic" or not found or user not in self._hashes:
            return False
        seen = hmac.digest(self._key, credentials.encode(), "sha256")
        if seen in self._right:
            return True
        salt, digest = self._hashes[user]
        with self._lock:
            guess = hashlib.scrypt(password, salt=salt, **_SCRYPT)
        if not hmac.compare_digest(guess, digest):
            return False
        self._right.add(seen)
        return True

    def guard(self, app: WSGIApplication) -> WSGIApplication:
        """The application for those who may, 401 for others."""

        def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if self.allows(str(environ.get("HTTP_AUTHORIZATION", ""))):
                return app(environ, start_response)
            start_response(
                "401 Unauthorized",
                [("WWW-Authenticate", 'Basic realm="governor"'), ("Content-Type", "text/plain")],
            )
            return [b"name and password, please\n"]

        return guarded
