"""HTTP boot of one board network, by the decisions that are made for TFTP, told to the same owner in the same words."""

from collections import Counter
from ipaddress import IPv4Address
from typing import Protocol

from netboot.boot_tree import Refused
from netboot.events import FileVia
from netboot.http_answer import Outcome
from netboot.http_server import HttpBootServer, HttpDone, HttpQuestion
from netboot.http_tokens import token_fits
from netboot.tftp_process import Answer, Done, Question, SendError, WorkerRefusal


class FilesForHttp(Protocol):
    """Who decides and hears: `file_desk.FileDesk`."""

    async def decide(self, question: Question) -> Answer: ...
    def refuse(self, question: Question, refused: Refused) -> SendError: ...
    def secrets_at(self, client: str) -> tuple[str, ...]: ...
    def is_known(self, client: str) -> bool: ...
    def done(self, done: Done, by: FileVia) -> None: ...
    def part_done(self, done: Done) -> None: ...
    def worker_refused(self, refusal: WorkerRefusal, by: FileVia) -> None: ...


class HttpBoot:
    """Serves from `start` to `stop`, or nothing where `port` is None. `address6` as in `HttpBootServer`."""

    def __init__(
        self,
        address: IPv4Address,
        port: int | None,
        interface: str,
        files: FilesForHttp,
        *,
        address6: str | None = None,
    ) -> None:
        self.port = port
        self._files = files
        self._server: HttpBootServer | None = None
        if port is not None:
            self._server = HttpBootServer(
                str(address),
                port,
                answer=self._answer,
                on_done=self._done,
                on_refusal=lambda refusal: files.worker_refused(refusal, "http"),
                is_known=files.is_known,
                interface=interface,
                address6=address6,
            )

    async def start(self) -> None:
        """Serve; `port` is then the one that is served.

        Raises:
            HttpStartError: the address or port cannot be used.
        """
        if self._server is not None:
            self.port = await self._server.start()

    async def stop(self) -> None:
        """Stop serving. May be called twice."""
        if self._server is not None:
            await self._server.stop()

    @property
    def counters(self) -> Counter[str]:
        """Counted since the start, by name with `http_` before it."""
        counted = self._server.counters if self._server is not None else Counter[str]()
        return Counter({f"http_{name}": count for name, count in counted.items()})

    async def _answer(self, question: HttpQuestion) -> Answer:
        """By the address, as TFTP; a URL that names a boot has to name one of this address's board."""
        if question.token is not None and not token_fits(question.token, self._files.secrets_at(question.client)):
            return self._files.refuse(question, Refused("the URL is another boot's"))
        return await self._files.decide(question)

    def _done(self, done: HttpDone) -> None:
        told = Done(
            number=done.number,
            ok=done.outcome is Outcome.WHOLE,
            begun=done.outcome is not Outcome.FAULT,
            size_bytes=done.size_bytes,
            seconds=done.seconds,
            reason=done.reason,
        )
        if done.outcome in {Outcome.HEAD, Outcome.PART}:
            self._files.part_done(told)
        else:
            self._files.done(told, "http")
