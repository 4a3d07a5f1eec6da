"""What an NFS server has to do for us, whichever it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from netboot.roots.errors import EngineError

_UNUSABLE = frozenset('"\\\n\0 \t#')
MAX_EXPORTS = 60_000
"""ganesha's Export_Id has 16 bits, and 0 is its own."""


Trouble = Callable[[str | None], None]
"""Is told what is wrong with the server, in a sentence, and None when it is well again. Runs in the event loop."""


def say_nothing(_trouble: str | None) -> None:
    """A `Trouble` for those who do not care."""


@dataclass(frozen=True, slots=True)
class Export:
    """A folder for named clients alone. `name` is unique: `boards/b1`, `roots/debian`, the path that NFSv4 clients see.

    Raises:
        EngineError: a field cannot stand in a server's configuration.
    """

    name: str
    path: Path
    clients: tuple[IPv4Address | IPv6Address, ...]
    writable: bool

    def __post_init__(self) -> None:
        if not self.clients:
            raise EngineError(f"export {self.name}: nobody may use it: an export without clients is for everybody")
        for text in (self.name, str(self.path)):
            if not text or _UNUSABLE & set(text):
                raise EngineError(f"export {self.name!r}: {text!r} cannot stand in an NFS server's configuration")
        if not self.path.is_absolute() or self.name.startswith("/"):
            raise EngineError(f"export {self.name}: needs an absolute path, and a name without '/' before it")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a doctor's check. `advice` is empty where all is well."""

    ok: bool
    what: str
    advice: str = ""


class Engine(Protocol):
    """An NFS server.

    `start` once, then `apply` whenever the set of exports changes, `stop` at the end. A failed `apply` may be repeated:
    it tells the server everything again.
    """

    async def start(self, exports: Sequence[Export] = ()) -> None:
        """Have the server ready, with these exports: a board that runs must not find its own missing for a moment.

        Raises:
            EngineError: it does not come up.
        """

    async def apply(self, exports: Sequence[Export]) -> None:
        """Export these and nothing else; on return boards can mount them, and what is gone is refused.

        Raises:
            RefusedExportError: the server refuses some; the others are exported.
            EngineError: the server does not answer.
        """

    async def stop(self) -> None:
        """End what we have started. Boards that run wait for the next start, or go on."""

    async def check(self) -> list[Finding]:
        """What stands between us and a board that runs from here."""

    def path_for_boards(self, export: Export) -> str:
        """The path that a board mounts, after the server's address and a colon."""
