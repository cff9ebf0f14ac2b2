"""Addresses that users write."""

from __future__ import annotations

from urllib.parse import urlsplit

from governor.errors import InputError


def check_url(url: str, where: str = "", path: str = "") -> None:
    """Find out at once that a URL cannot be asked.

    Args:
        where: what the message begins with: the option that it came by.
        path: what the example in the message ends in.

    Raises:
        InputError: it is none of http or https, or names no host, or no port where one should be.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"{where}{url!r} is no URL; write http://HOST:PORT{path}")
