"""The page of `boardhand up`: its port, and a token for whoever started it."""

import contextlib
import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from broker.web.access import Person, Role, digest, new_token
from cli import private_mosquitto
from cli.tokens import tokens_text

PORT = 8070
"""As the broker's default; another farm on this machine may have it."""
HOST = "127.0.0.1"
OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Page:
    """Where the page will be, and how to log in."""

    port: int
    tokens: Path
    """What the broker reads: digests."""
    token: Path
    """The token itself, for its owner alone."""
    claim: socket.socket | None = None
    """Held as long as the farm runs, where the port is the default one."""

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/"

    def table(self) -> str:
        """`[web]` of the broker's settings. Everybody on this machine may look."""
        return f'[web]\naddress = "{HOST}"\nport = {self.port}\nanonymous = true\ntokens = {_toml(self.tokens)}\n'


def _toml(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def prepare(folder: Path, port: int | None) -> Page:
    """Choose a port, and make the owner's token anew: the one of the last run is good for nothing then.

    Raises:
        OSError: the files cannot be written.
    """
    claim = None
    if port is None:
        claim = _claimed()
        port = private_mosquitto.free_port() if claim is None or private_mosquitto.is_taken(PORT) else PORT
    page = Page(port, folder / "tokens.toml", folder / "page-token", claim)
    token = new_token()
    for path, text in (
        (page.tokens, tokens_text({digest(token): Person(OWNER, Role.ADMIN)})),
        (page.token, token + "\n"),
    ):
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    return page


def _claimed() -> socket.socket | None:
    """A mark that the default port is to be ours, or None: another farm has just been started and will listen there."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError):
        # A name without a file (unix(7), abstract): it goes with its process, however that ends.
        claim.bind(f"\0boardhand-page-{PORT}")
        return claim
    claim.close()
    return None
