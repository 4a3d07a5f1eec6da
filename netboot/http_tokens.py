"""A boot's token in a URL: `/boot_<token>/kernel` says which boot asks, where an address alone does not (behind a relay
or a router), and a board that was switched on anew does not fetch by the URLs of the boot before.

The token is made from the boot's secret and tells nothing about it, so a URL in a proxy's log registers nobody. It is
still what lets files be fetched: it stands in no log, event or error of ours.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable

TOKEN_CHARACTERS = 32
"""128 bits in hexadecimal."""
_FOLDER = re.compile(r"/+boot_([0-9A-Fa-f]+)(/.*|)", re.DOTALL)
"""No board's id has an underscore, so no board's folder is taken for a token."""
_PURPOSE = b"boardhand HTTP boot URL"
_NO_SECRET = "0" * 64  # compared with where there is none, so that all refusals take the same time


def url_token(secret: str) -> str:
    """The token of the boot that has this secret."""
    return hmac.new(secret.encode(), _PURPOSE, hashlib.sha256).hexdigest()[:TOKEN_CHARACTERS]


def url_prefix(secret: str) -> str:
    """What stands before the names of files in this boot's URLs, with a slash at both ends."""
    return f"/boot_{url_token(secret)}/"


def split_token(path: str) -> tuple[str | None, str]:
    """The token of a URL's path, and the path without it. None: the path carries none. One of a wrong length or in
    capitals is given back too; it fits no boot."""
    found = _FOLDER.fullmatch(path)
    return (None, path) if found is None else (found[1], found[2] or "/")


def token_fits(token: str, secrets: Iterable[str]) -> bool:
    """Whether the token belongs to one of these secrets, compared in constant time."""
    shown = token.encode("utf-8", "surrogatepass")
    fits = False
    for secret in (_NO_SECRET, *secrets):
        fits |= hmac.compare_digest(url_token(secret).encode(), shown) and secret != _NO_SECRET
    return fits
