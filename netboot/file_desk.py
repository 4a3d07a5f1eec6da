"""Which file who gets, by TFTP and by HTTP: decides, and tells the owner what came of it."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from netboot.board_addresses import known_as
from netboot.boot_disk import on_disk
from netboot.boot_files import BootIdentity, content
from netboot.boot_tree import BootTree, GeneratedFile, Refused, TreeClient
from netboot.boot_words import client_words
from netboot.errors import SecretsNotSavedError
from netboot.events import FileFailed, FilePart, FileRefused, FileRequested, FileSent, FileVia, NetbootEvent, Role
from netboot.roots.errors import RootError
from netboot.secret_keeper import SecretKeeper
from netboot.server_settings import NetbootConfig
from netboot.tftp_packet import ERROR_ACCESS, ERROR_NOT_FOUND, ERROR_UNDEFINED
from netboot.tftp_process import Answer, Done, Question, SendBytes, SendError, SendFile, WorkerRefusal

log = logging.getLogger(__name__)

RootWords = Callable[[str, str, Sequence[str]], Awaitable[tuple[str, ...]]]
"""Has a board's root ready for the boot that begins now: takes its id, the name of its profile and what its client
needs to register, and gives the words for its kernel; none without a root. Raises RootError where it cannot."""


async def no_root(_board: str, _profile: str, _words: Sequence[str]) -> tuple[str, ...]:
    """The `RootWords` of a network without roots."""
    return ()


MAX_LOGGED_SOURCES = 1024
"""Each source of refused requests is logged once; beyond so many, all are only counted."""


@dataclass(frozen=True, slots=True)
class _Asked:
    board: str | None
    client: str
    path: str
    role: Role


class FileDesk:
    """Answers questions of both servers. `joining` gives the client behind an address of the pool while joining is
    open. A question of HTTP has a number below 0.

    Attributes:
        tree: what is served to whom; replaced when the boards change.
        ipv6: the boards' IPv4 addresses by the IPv6 ones that mean them (`board_addresses.by_ipv6`); as `tree`.
        counts: since the start, by name.
        config: the network's; replaced when what boards are told changes.
        root_words: who has boards' roots ready; nobody, unless the owner says so.
    """

    def __init__(
        self,
        config: NetbootConfig,
        secrets: SecretKeeper,
        *,
        joining: Callable[[IPv4Address], TreeClient | None],
        on_event: Callable[[NetbootEvent], None],
    ) -> None:
        self.tree = BootTree({})
        self.ipv6: Mapping[IPv6Address, IPv4Address] = {}
        counted = ("files_sent", "transfers_failed", "refused", "missing")
        self.counts = {f"{by}_{what}": 0 for by in ("tftp", "http") for what in counted}
        self.config = config
        self._secrets = secrets
        self._joining = joining
        self._on_event = on_event
        self.root_words: RootWords = no_root
        self._asked: dict[int, _Asked] = {}
        self._logged_sources: set[str] = set()

    @property
    def waiting(self) -> int:
        """Questions that were answered with a file, and whose end was not told yet."""
        return len(self._asked)

    def secrets_at(self, client: str) -> tuple[str, ...]:
        """The secrets that are good for the board with this address."""
        known = self._known(client)
        return () if known is None or known.board is None else self._secrets.good(known.board)

    def is_known(self, client: str) -> bool:
        """Whether a board has this address."""
        return self._known(client) is not None

    def _known(self, client: str) -> TreeClient | None:
        address = known_as(client, self.ipv6)
        return None if address is None else self.tree.board_at(address)

    async def decide(self, question: Question) -> Answer:
        """What is sent for `question`."""
        address = known_as(question.client, self.ipv6)
        if address is None:
            return self.refuse(question, Refused("no board has this address"))
        named = self.tree.look_up(address, question.path, joining=self._joining(address))
        found = await on_disk(named, self.config.staged)
        if isinstance(found, Refused):
            return self.refuse(question, found)
        board = found.client.board
        answer: Answer
        if isinstance(found, GeneratedFile):
            role: Role = "config"
            try:
                answer = SendBytes(await self._generate(found), found.client.profile.tftp_limits)
            except SecretsNotSavedError:
                log.exception("board %s gets no boot file now", board)
                return SendError(ERROR_UNDEFINED, "try again")
            except RootError:  # the owner knows why, and has told
                return self.refuse(question, Refused("its root cannot be had now"))
        else:
            role, answer = found.role, SendFile(found.path, found.client.profile.tftp_limits, found.root)
        self._asked[question.number] = _Asked(board, question.client, question.path, role)
        self._on_event(FileRequested(board, question.client, question.path, role, _via(question), question.number))
        return answer

    async def _generate(self, wanted: GeneratedFile) -> bytes:
        client, config = wanted.client, self.config
        secret = None
        if wanted.carries_secret and client.board is not None:
            secret = await self._secrets.fetch(client.board)
        here = str(config.server_address)
        who = BootIdentity(config.agent, config.mqtt_for_boards, config.prefix, client.board, secret, here)
        if wanted.carries_secret and client.board is not None:
            who = replace(who, root=await self.root_words(client.board, client.profile.name, client_words(who)))
        return content(wanted, who)

    def refuse(self, question: Question, refused: Refused) -> SendError:
        """Answer no, and say so."""
        known = self._known(question.client)
        self._report(
            FileRefused(
                client=question.client,
                path=question.path,
                reason=refused.reason,
                board=known.board if known is not None else None,
                missing=refused.missing,
                via=_via(question),
            )
        )
        return SendError(ERROR_NOT_FOUND if refused.missing else ERROR_ACCESS, refused.reason)

    def worker_refused(self, refusal: WorkerRefusal, by: FileVia = "tftp") -> None:
        """A server said no by itself: to a request that is none, or one too many."""
        self._report(FileRefused(refusal.client, refusal.path, refusal.reason, via=by))

    def _report(self, event: FileRefused) -> None:
        self.counts[f"{event.via}_missing" if event.missing else f"{event.via}_refused"] += 1
        sources = self._logged_sources
        if not event.missing and event.client not in sources and len(sources) < MAX_LOGGED_SOURCES:
            sources.add(event.client)
            told = (event.via.upper(), event.path, event.client, event.reason)
            log.warning("%s: refused %r to %s: %s (further ones are only counted)", *told)
        self._on_event(event)

    def part_done(self, done: Done) -> None:
        """A HEAD, or part of a file: it tells nothing of how far a boot is."""
        asked = self._asked.pop(done.number, None)
        if asked is not None:
            part = FilePart(asked.board, asked.client, asked.path, asked.role, done.size_bytes, done.seconds)
            self._on_event(replace(part, number=done.number))

    def done(self, done: Done, by: FileVia = "tftp") -> None:
        """A file's transfer has ended."""
        asked = self._asked.pop(done.number, None)
        if asked is None:
            return  # it was refused, and told so then
        who = (asked.board, asked.client, asked.path, asked.role)
        if done.ok:
            self.counts[f"{by}_files_sent"] += 1
            self._on_event(FileSent(*who, done.size_bytes, done.seconds, done.resent, by, done.number))
        elif done.begun:
            self.counts[f"{by}_transfers_failed"] += 1
            log.debug("%s: %s to %s ended: %s", by.upper(), asked.path, asked.client, done.reason)
            self._on_event(FileFailed(*who, done.reason, done.size_bytes, done.seconds, done.resent, by, done.number))
        else:
            # The file itself is at fault: missing, a link that leads out, not readable.
            log.error("%s: cannot send %s to %s: %s", by.upper(), asked.path, asked.client, done.reason)
            self.counts[f"{by}_refused"] += 1
            self._on_event(FileRefused(asked.client, asked.path, done.reason, asked.board, False, by, done.number))


def _via(question: Question) -> FileVia:
    return "http" if question.number < 0 else "tftp"
