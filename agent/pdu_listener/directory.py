"""Which board or outlet a client means by pdudaemon's names. No I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.pdu_listener.words import Asked
from agent.power.feed import OutletRef
from agent.power.settings import BoardFeed, ControllerBase

_PLAIN_OUTLET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:/-]*(\.[A-Za-z0-9_:/-]+)*")
"""What a stranger may call an outlet that the settings do not name: it ends up in command lines and URLs, so nothing
that begins as an option, and no `..`."""


class UnknownNameError(LookupError):
    """Nothing has this name, or several things have it. Its text is one line that says what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Target:
    """What is switched: a whole board where one hangs on the outlet, otherwise the outlet alone.

    Attributes:
        ref: the outlet that was named; of a board that was named, the first of its feed.
    """

    ref: OutletRef
    board: str | None = None

    def __str__(self) -> str:
        return str(self.ref) if self.board is None else f"board {self.board}"


class Directory:
    """Names of the agent's outlets as pdudaemon's clients have them.

    `hostname` is a controller's name in the settings, or the `host` it is reached at, so that a LAVA device dictionary
    which names the PDU's DNS name stays as it is. `alias` is one of the settings, or a board's name.
    """

    def __init__(
        self,
        controllers: Mapping[str, ControllerBase],
        feeds: Mapping[str, BoardFeed],
        aliases: Mapping[str, str],
    ) -> None:
        self._controllers: dict[str, list[str]] = {}
        for name, settings in controllers.items():
            host = getattr(settings, "host", None)
            if isinstance(host, str) and host:
                self._controllers.setdefault(_folded(host), []).append(name)
        # A controller's own name beats another's host.
        self._controllers.update({name: [name] for name in controllers})
        self._feeds = {board: feed.refs for board, feed in feeds.items()}
        self._boards: dict[OutletRef, list[str]] = {}
        for board, refs in self._feeds.items():
            for ref in refs:
                self._boards.setdefault(ref, []).append(board)
        self._aliases = dict(aliases)

    def find(self, asked: Asked) -> Target:
        """What `asked` is about.

        Raises:
            UnknownNameError: nothing, or more than one thing, has the name.
        """
        if asked.alias:
            return self._alias(asked.alias)
        names = self._controllers.get(_folded(asked.hostname), [])
        if not names:
            raise UnknownNameError(
                f"no controller is named {asked.hostname!r} or has it as its host; known are: "
                + (", ".join(sorted(self._controllers)) or "none")
            )
        if len(names) > 1:
            raise UnknownNameError(
                f"{asked.hostname!r} is the host of {', '.join(names)}: say one of these as hostname"
            )
        target = self._outlet(OutletRef(names[0], asked.port))
        if target.board is None and _PLAIN_OUTLET.fullmatch(target.ref.outlet) is None:
            raise UnknownNameError(f"port {asked.port[:64]!r} is no plain outlet name; if it is one, give it an alias")
        return target

    def _alias(self, alias: str) -> Target:
        place = self._aliases.get(alias, alias)
        if place in self._feeds:
            return Target(self._feeds[place][0], place)
        if alias not in self._aliases:
            raise UnknownNameError(f"no alias and no board is named {alias!r}; add it to aliases of [pdu_listener]")
        try:
            return self._outlet(OutletRef.parse(place))
        except ValueError as error:
            raise UnknownNameError(f"alias {alias!r}: {error}") from None

    def _outlet(self, ref: OutletRef) -> Target:
        boards = self._boards.get(ref, [])
        plain = ref.outlet.lstrip("0")
        if not boards and plain != ref.outlet and plain.isascii() and plain.isdigit():
            # pduclient's own help says `--port 04`; over TCP pdudaemon takes it as a number.
            ref = OutletRef(ref.controller, plain)
            boards = self._boards.get(ref, [])
        if len(boards) > 1:
            raise UnknownNameError(f"{ref} feeds {', '.join(boards)}: name the board you mean as alias")
        return Target(ref, boards[0] if boards else None)


def _folded(host: str) -> str:
    """DNS names do not differ by case (RFC 4343), nor by the root's dot."""
    return host.lower().removesuffix(".")
