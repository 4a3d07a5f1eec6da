"""Where the broker's store is: `[broker] store`."""

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator

SCHEMES = ("postgresql", "postgres")


def check_store_url(url: str) -> str:
    """The URL of a PostgreSQL database, which may be shown to anybody.

    Raises:
        ValueError: it is none, or holds a password.
    """
    try:
        parts = urlsplit(url)
        password = parts.password
        if "," not in parts.netloc:  # libpq takes several hosts, each with a port
            _ = parts.port
    except ValueError as error:
        raise ValueError(f"is no URL: {error}") from None
    if parts.scheme not in SCHEMES or "://" not in url:
        raise ValueError("must be postgresql://USER@HOST/DATABASE; without it the store is SQLite in state_dir")
    if password is not None or any(key.lower() == "password" for key, _ in parse_qsl(parts.query)):
        raise ValueError("must not hold the password: put it into store_password_file, or into ~/.pgpass")
    if any(ord(letter) <= ord(" ") for letter in url):
        raise ValueError("must not hold blanks or control characters")
    return url


StoreUrl = Annotated[str, AfterValidator(check_store_url)]
