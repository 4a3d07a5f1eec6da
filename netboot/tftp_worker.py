"""The TFTP data plane: `python -m netboot.tftp_worker`, a process of its own with one epoll loop.

It knows no boards. The parent sends `{"config": {...}, "first": n}`, where n numbers the first question, and is
answered `{"ready": port}` or `{"fatal": text}`.

For each read request the worker sends `{"ask": n, "client": ip, "port": p, "path": name}` and gets one of
`{"answer": n, "root": directory, "file": relative path}`, `{"answer": n, "data": base64}` or
`{"answer": n, "error": code, "message": text}`. The first two may carry `max_window`, `max_block` and `rollover` (-1:
the client cannot count beyond 65535) for this transfer, and `requests_per_s` for this client. Every answered question
ends in `{"done": n, "ok": ..., "bytes": ..., "seconds": ..., "resent": ..., "why": ..., "counters": {...}}`; what is
refused without a question is told as `{"refused": reason, "client": ip, "path": name}`, and a file that is too long for
its client's block numbers as `{"too_long": blocks, "block": octets, "client": ip, "path": name}`. It ends when stdin
closes.
"""

import gc
import os
import resource
import select
import socket
import sys
import time
from collections import Counter

from netboot.safe_open import UnsafePathError
from netboot.tftp_cache import PacketCache
from netboot.tftp_limits import RequestLimits
from netboot.tftp_link import Line, ParentLink
from netboot.tftp_listener import open_listeners, receive
from netboot.tftp_packet import (
    ERROR_ACCESS,
    ERROR_ILLEGAL,
    ERROR_NOT_FOUND,
    ERROR_UNDEFINED,
    IP_UDP_TFTP_BYTES,
    MAX_BLOCK_NUMBER,
    WRITE,
    PacketError,
    Request,
    parse_request,
)
from netboot.tftp_pump import Pump, PumpMissingError, make_waiting
from netboot.tftp_session import Asked, Session
from netboot.tftp_sessions import Sessions
from netboot.tftp_settings import WorkerSettings
from netboot.tftp_socket import Peer, agreed, open_peer_socket, send_error
from netboot.tftp_source import Opener, Source
from netboot.tftp_timing import MIN_GAP_S, MIN_RTO_S

PUMP_PATH = os.path.join(os.path.dirname(__file__), "native", "pump.so")  # noqa: PTH118, PTH120  # pathlib costs 1 MB
_BATCH = 64  # requests of one turn
MAX_WAITING = 1024  # requests beyond the transfer limit
ASK_TIMEOUT_S = 10.0  # a parent that is silent for longer has forgotten; the client has asked again long since
REPEAT_S = 2.0
"""A request that comes twice within this time from one port, while its transfer lives, is a copy of the first."""
ERRORS_PER_SECOND = 500  # refusals beyond are silent, so that forged requests make us no reflector
SCAN_S = 0.01  # timers are looked at no more often


class Worker:
    """The loop. `run` returns when the parent is gone."""

    def __init__(self, link: ParentLink, settings: WorkerSettings) -> None:
        self._link = link
        self._settings = settings
        self._epoll = select.epoll()
        self._events, self._pump_why = make_waiting(settings.pump, self._epoll, PUMP_PATH)
        self._pump = self._events if isinstance(self._events, Pump) else None
        self._listeners = {sock.fileno(): sock for sock in open_listeners(settings)}
        cache = PacketCache(settings.cache_bytes)
        self._opener = Opener(cache)
        self._limits = RequestLimits(settings.requests_per_s)
        self._sessions = Sessions(cache, self._pump)
        self._asked: dict[Peer, Asked] = {}
        self._asked_by_number: dict[int, Asked] = {}
        self._waiting: dict[Peer, Asked] = {}
        self._per_client: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()
        self._next_number = settings.first_number
        self._next_scan = float("inf")
        self._error_budget = (0.0, ERRORS_PER_SECOND)
        self._writing = False

    def run(self) -> None:
        """Serve until the parent closes its end."""
        link = self._link
        for fd in (link.in_fd, *self._listeners):
            self._epoll.register(fd, select.EPOLLIN)
        port = next(iter(self._listeners.values())).getsockname()[1]
        link.send(ready=port, pump=self._events.name, pump_why=self._pump_why)
        wait, awake, clock = self._events.run, self._sessions.awake, time.monotonic
        while not link.closed:
            if link.wants_to_write != self._writing:
                self._watch_link()
            events = wait(self._next_scan)
            now = clock()
            for fd, report in events:
                session = awake.get(fd) or self._woken(fd, now)
                if session is None:
                    self._other(fd, now)
                elif session.readable(now) if report is None else session.handed_up(report, now):
                    self._attend(session, now)
            if now >= self._next_scan:
                self._scan(now)

    def _woken(self, fd: int, now: float) -> Session | None:
        session = self._sessions.wake(fd)
        if session is not None:
            self._next_scan = min(self._next_scan, now + MIN_RTO_S)
        return session

    def _attend(self, session: Session, now: float) -> None:
        if session.ended:
            self._end(session, now)
        else:
            self._next_scan = min(self._next_scan, session.transfer.deadline)

    def _other(self, fd: int, now: float) -> None:
        if fd in self._listeners:
            self._requests(self._listeners[fd], now)
        elif fd == self._link.in_fd:
            for line in self._link.receive():
                self._answer(line, now)
        elif fd == self._link.out_fd:
            self._link.flush()

    def _watch_link(self) -> None:
        """Be woken when the parent reads, but only while something waits for it."""
        self._writing = self._link.wants_to_write
        if self._writing:
            self._epoll.register(self._link.out_fd, select.EPOLLOUT)
        else:
            self._epoll.unregister(self._link.out_fd)

    # --- requests ---

    def _requests(self, listener: socket.socket, now: float) -> None:
        for _ in range(_BATCH):
            try:
                arrived = receive(listener)
            except OSError:
                self._counters["receive_errors"] += 1
                return
            if arrived is None:
                return
            data, peer, local = arrived
            if local is None:
                self._counters["ignored"] += 1
            elif self._limits.admit(peer[0], now):
                self._request(data, peer, local, now)
            else:
                self._counters["over_rate_limit"] += 1

    def _request(self, data: bytes, peer: Peer, local: str, now: float) -> None:
        try:
            request = parse_request(data)
        except PacketError:
            self._counters["ignored"] += 1  # never an ERROR: it might answer one (CVE-2024-2169)
            return
        if request.opcode == WRITE:
            self._refuse(request, peer, local, ERROR_ACCESS, "this server takes no files", now)
        elif request.mode not in {"octet", "netascii"}:
            self._refuse(request, peer, local, ERROR_ILLEGAL, "the mode must be octet or netascii", now)
        elif not self._is_repeated(request, peer, now):
            self._ask(request, peer, local, now)

    def _is_repeated(self, request: Request, peer: Peer, now: float) -> bool:
        asked = self._asked.get(peer)
        if asked is not None:
            if asked.request == request:
                return True
            self._forget(asked)
        session = self._sessions.of(peer)
        if session is None:
            return False
        if session.request_hash == hash(request) & 0xFFFFFFFF and (
            not session.transfer.heard or now - session.started < REPEAT_S
        ):
            session.repeat_start(now)
            self._settle(session, now)
            self._counters["repeated_requests"] += 1
            return True
        session.abandon()  # U-Boot uses a port again for its next file
        self._end(session, now)
        return False

    def _ask(self, request: Request, peer: Peer, local: str, now: float) -> None:
        if self._per_client[peer[0]] >= self._settings.max_per_client:
            self._counters["over_client_limit"] += 1  # silent: the client asks again when others are done
            return
        if len(self._waiting) >= MAX_WAITING:
            self._counters["over_queue_limit"] += 1
            return
        asked = Asked(0, request, peer, local, now)
        self._asked[peer] = self._waiting[peer] = asked
        self._per_client[peer[0]] += 1
        self._next_scan = min(self._next_scan, now + ASK_TIMEOUT_S)
        self._ask_parent()

    def _ask_parent(self) -> None:
        """Pass on what waits, the oldest first, while a transfer may begin."""
        while self._waiting and len(self._sessions) + len(self._asked_by_number) < self._settings.max_transfers:
            asked = self._waiting.pop(next(iter(self._waiting)))
            number, peer = self._next_number, asked.peer
            if not self._link.send(ask=number, client=peer[0], port=peer[1], path=asked.request.path):
                self._forget(asked)
                return
            self._next_number += 1
            asked.number = number
            self._asked_by_number[number] = asked

    def _forget(self, asked: Asked) -> None:
        if self._asked.get(asked.peer) is asked:
            del self._asked[asked.peer]
        self._waiting.pop(asked.peer, None)
        self._asked_by_number.pop(asked.number, None)
        self._release(asked.peer[0])

    def _release(self, client: str) -> None:
        self._per_client[client] -= 1
        if self._per_client[client] <= 0:
            del self._per_client[client]

    def _refuse(self, request: Request, peer: Peer, local: str, code: int, reason: str, now: float) -> None:
        self._counters["refused"] += 1
        self._link.send(refused=reason, client=peer[0], path=request.path)
        self._error(peer, local, code, reason, now)

    def _error(self, peer: Peer, local: str, code: int, message: str, now: float) -> None:
        since, left = self._error_budget
        if now - since >= 1.0:
            since, left = now, ERRORS_PER_SECOND
        if left > 0:
            send_error(local, peer, self._settings.interface, code, message)
        self._error_budget = (since, left - 1)

    # --- answers ---

    def _answer(self, line: Line, now: float) -> None:
        number = line.get("answer")
        asked = self._asked_by_number.get(number) if isinstance(number, int) else None
        if asked is None:
            if isinstance(number, int):
                self._link.send(done=number, ok=False, why="the client asked for something else meanwhile")
            return
        self._forget(asked)
        self._obey(asked, line, now)
        self._ask_parent()

    def _obey(self, asked: Asked, line: Line, now: float) -> None:
        code = line.get("error")
        if isinstance(code, int):
            self._fail(asked, code, str(line.get("message", "")), now)
            return
        try:
            self._begin(asked, self._opener.open(asked.request, line), line, now)
        except UnsafePathError as error:
            self._counters["unsafe_paths"] += 1
            self._fail(asked, ERROR_ACCESS, f"{line.get('file')}: {error.strerror}", now)
        except (OSError, ValueError) as error:
            code = ERROR_NOT_FOUND if isinstance(error, FileNotFoundError) else ERROR_UNDEFINED
            self._fail(asked, code, f"{line.get('file', '')}: {getattr(error, 'strerror', None) or error}", now)

    def _fail(self, asked: Asked, code: int, reason: str, now: float) -> None:
        self._error(asked.peer, asked.local, code, reason, now)
        self._done(asked.number, why=reason, ok=False)

    def _begin(self, asked: Asked, source: Source, line: Line, now: float) -> None:
        settings = self._settings

        def limit(key: str, default: int) -> int:
            value = line.get(key)
            return min(value, default) if isinstance(value, int) and value > 0 else default

        rate = line.get("requests_per_s")
        self._limits.set_rate(asked.peer[0], rate if isinstance(rate, int) else settings.requests_per_s)
        rollover = line.get("rollover")
        mtu = limit("max_block", settings.mtu_bytes - IP_UDP_TFTP_BYTES) + IP_UDP_TFTP_BYTES
        sock = None
        try:
            sock = open_peer_socket(asked.local, asked.peer, settings.interface)
            session = Session.begin(
                asked=asked,
                sock=sock,
                source=source,
                negotiated=agreed(asked.request, source.size, sock, mtu, limit("max_window", settings.max_window)),
                now=now,
                rollover=1 if rollover == 1 else 0,
                pump=self._pump,
            )
        except OSError:
            source.close()
            if sock is not None:
                sock.close()
            raise
        if rollover == -1 and session.transfer.total > MAX_BLOCK_NUMBER:
            size = session.transfer.block_bytes
            told = {"block": size, "client": asked.peer[0], "path": asked.request.path}
            self._link.send(too_long=session.transfer.total, **told)
        self._sessions.add(session)
        self._per_client[asked.peer[0]] += 1
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        session.start(now)
        self._counters["begun"] += 1
        self._settle(session, now)

    def _settle(self, session: Session, now: float) -> None:
        """After its first packets or its timer."""
        self._next_scan = min(self._next_scan, max(session.transfer.deadline, now + SCAN_S))
        if session.ended:
            self._end(session, now)
        else:
            self._sessions.settle(session, now)

    # --- the end ---

    def _end(self, session: Session, now: float) -> None:
        self._epoll.unregister(session.sock.fileno())
        self._sessions.remove(session)
        self._release(session.peer[0])
        transfer = session.transfer
        self._counters["resent_blocks"] += transfer.resent
        self._counters["ignored_packets"] += transfer.ignored
        self._done(
            session.number,
            ok=session.complete,
            bytes=transfer.size,
            seconds=round(now - session.started, 6),
            resent=transfer.resent,
            why="" if session.complete else session.reason(),
            begun=True,
        )
        session.close()
        self._ask_parent()

    def _done(self, number: int, **details: object) -> None:
        self._link.send(done=number, **details, counters=dict(self._counters))

    def _scan(self, now: float) -> None:
        """Run the timers that are due and find the next one."""
        for asked in [asked for asked in self._asked.values() if now - asked.at >= ASK_TIMEOUT_S]:
            self._forget(asked)
            self._counters["unanswered_questions"] += 1
        for session in self._sessions.due(now):
            session.timer(now)
            self._settle(session, now)
        self._sessions.settle_unheard(now)
        times = self._sessions.deadlines()
        times += [asked.at + ASK_TIMEOUT_S for asked in self._asked.values()]
        if self._sessions.awake:
            times.append(now + MIN_RTO_S)  # an ACK may have brought a deadline nearer since
        step_s = MIN_GAP_S if any(session.transfer.pacing for session in self._sessions.awake.values()) else SCAN_S
        self._next_scan = max(min(times, default=float("inf")), now + step_s)


def _first_line(link: ParentLink) -> Line | None:
    while not link.closed:
        select.select([link.in_fd], [], [])
        for line in link.receive():
            return line
    return None


def main() -> int:
    """Serve until stdin closes: 0 then, 2 when the port cannot be served."""
    link = ParentLink(sys.stdin.fileno(), sys.stdout.fileno())
    first = _first_line(link)
    if first is None:
        return 0
    settings = WorkerSettings(first)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each transfer has a socket, each file a descriptor
    try:
        worker = Worker(link, settings)
    except OSError as error:
        where = f"{settings.address} port {settings.port}" + (f" on {settings.interface}" if settings.interface else "")
        link.send(fatal=f"cannot serve TFTP on {where}: {error.strerror or error}")
        return 2
    except PumpMissingError as error:
        link.send(fatal=f"no native TFTP pump: {error}")
        return 2
    # Nothing here makes reference cycles; collections would only stall every transfer at once.
    gc.collect()
    gc.freeze()
    gc.disable()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
