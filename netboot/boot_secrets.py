"""Secrets of boots: who fetched the command line can prove it, once.

A board has at most one pending secret (handed out, not used) and one redeemed secret (used by one boot id).

| event | pending | redeemed |
|---|---|---|
| fetch, nothing pending | minted | stays |
| fetch, one pending | the same again | stays |
| new_boot | void | stays, until the next boot proves itself |
| proof with the pending secret | becomes redeemed, by that boot id | replaced |
| proof with the redeemed secret, same boot id | stays | good again |
| proof with the redeemed secret, another boot id | stays | refused |

The redeemed secret outlives new_boot, so that a board that never lost power (a lying hub) may register again after an
MQTT reconnect, and a stray fetch shuts nobody out.
"""

import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

SECRET_BYTES = 32
STATE_VERSION = 1
_HEX_DIGITS = frozenset("0123456789abcdef")
_NO_KEY = "0" * (2 * SECRET_BYTES)  # compared with where there is no secret, so that all refusals take the same time


class Verdict(StrEnum):
    """What became of a proof."""

    OK = "ok"
    """First registration of this boot."""
    AGAIN = "again"
    """The same boot registers again."""
    UNKNOWN_BOARD = "unknown-board"
    WRONG_MAC = "wrong-mac"
    """The MAC address is not one of the board's."""
    NO_SECRET = "no-secret"  # noqa: S105  # the name of a verdict
    """No boot of this board has fetched a command line."""
    WRONG_PROOF = "wrong-proof"
    """Not made with a secret that is good; a boot before the last power-on proves so, too."""
    OTHER_BOOT = "other-boot"
    """Made with a secret that another boot has used."""

    @property
    def accepted(self) -> bool:
        """Whether the registration is good."""
        return self in {Verdict.OK, Verdict.AGAIN}


class SecretsStateError(ValueError):
    """The stored state cannot be read; the message names the board and key. Delete the state: boards then boot anew."""


@dataclass(slots=True)
class _Board:
    pending: str | None = None
    redeemed: str | None = None
    boot_id: str | None = None


def _secret_or_none(board: str, key: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) == 2 * SECRET_BYTES and set(value) <= _HEX_DIGITS:
        return value
    raise SecretsStateError(f"boot secrets of board {board}: {key} is no secret")


class BootSecrets:
    """All boards' secrets. `state` goes in and out as plain JSON values; `mint` is replaced in tests.

    Raises:
        SecretsStateError: at construction, when the state is of another shape.
    """

    def __init__(
        self, state: Mapping[str, object] | None = None, *, mint: Callable[[int], str] = secrets.token_hex
    ) -> None:
        self._mint = mint
        self._boards: dict[str, _Board] = {}
        if not state:
            return
        boards = state.get("boards")
        if state.get("version") != STATE_VERSION or not isinstance(boards, dict):
            raise SecretsStateError("boot secrets: the stored state is of another version")
        for name, entry in boards.items():
            if not isinstance(name, str) or not isinstance(entry, dict):
                raise SecretsStateError(f"boot secrets of board {name}: not an object")
            boot_id = entry.get("boot_id")
            if boot_id is not None and not isinstance(boot_id, str):
                raise SecretsStateError(f"boot secrets of board {name}: boot_id is no text")
            self._boards[name] = _Board(
                pending=_secret_or_none(name, "pending", entry.get("pending")),
                redeemed=_secret_or_none(name, "redeemed", entry.get("redeemed")),
                boot_id=boot_id,
            )

    def state(self) -> dict[str, object]:
        """What a new object needs to go on. It holds secrets: keep it in a file of mode 0600."""
        return {
            "version": STATE_VERSION,
            "boards": {
                name: {"pending": entry.pending, "redeemed": entry.redeemed, "boot_id": entry.boot_id}
                for name, entry in self._boards.items()
            },
        }

    def fetch(self, board: str) -> tuple[str, bool]:
        """The secret for a command line, and whether the state changed and must be stored before it leaves."""
        entry = self._boards.setdefault(board, _Board())
        if entry.pending is not None:
            return entry.pending, False
        entry.pending = self._mint(SECRET_BYTES)
        return entry.pending, True

    def good(self, board: str) -> tuple[str, ...]:
        """The secrets that prove this board's boot now: pending, and redeemed."""
        entry = self._boards.get(board, _Board())
        return tuple(secret for secret in (entry.pending, entry.redeemed) if secret is not None)

    def new_boot(self, board: str) -> bool:
        """Power was switched on: what is pending is void. True when the state changed."""
        entry = self._boards.get(board)
        if entry is None or entry.pending is None:
            return False
        entry.pending = None
        return True

    def keep_only(self, boards: set[str]) -> None:
        """Forget boards that are no longer known."""
        self._boards = {name: entry for name, entry in self._boards.items() if name in boards}

    def verify(self, board: str, boot_id: str, proof: str, message: bytes) -> Verdict:
        """Judge a proof; see the table above. Only `Verdict.OK` changes the state."""
        entry = self._boards.get(board, _Board())
        given = proof.lower().encode("utf-8", "replace")
        by_pending = self._matches(entry.pending, given, message)
        by_redeemed = self._matches(entry.redeemed, given, message)
        if by_pending:
            entry.redeemed, entry.boot_id, entry.pending = entry.pending, boot_id, None
            return Verdict.OK
        if by_redeemed:
            return Verdict.AGAIN if boot_id == entry.boot_id else Verdict.OTHER_BOOT
        return Verdict.NO_SECRET if entry.pending is None and entry.redeemed is None else Verdict.WRONG_PROOF

    @staticmethod
    def _matches(secret: str | None, given: bytes, message: bytes) -> bool:
        # The key is the hexadecimal text, as the board reads it from its command line.
        right = hmac.new((secret or _NO_KEY).encode(), message, "sha256").hexdigest().encode()
        return hmac.compare_digest(right, given) and secret is not None
