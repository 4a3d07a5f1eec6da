"""The TFTP data plane: `python -m netboot.tftp_worker`, a process of its own with one epoll loop.

It knows no boards. The parent sends `{"config": {...}, "first": n}`, where n numbers the first question, and is
answered `{"ready": port}` or `{"fatal": text}`.

For each read request the worker sends `{"ask": n, "client": ip, "port": p, "path": name}` and gets one of
`{"answer": n, "root": directory, "file": relative path}`, `{"answer": n, "data": base64}` or
`{"answer": n, "error": code, "message": text}`. Every answered question ends in `{"done": n, "ok": ..., "bytes": ...,
"seconds": ..., "resent": ..., "why": ..., "counters": {...}}`; what is refused without a question is told as
`{"refused": reason, "client": ip, "path": name}`. It ends when stdin closes.
"""

import binascii
import gc
import os
import select
import socket
import struct
import sys
import time
from collections import Counter

from netboot.safe_open import UnsafePathError, open_beneath
from netboot.tftp_link import Line, ParentLink
from netboot.tftp_packet import (
    ERROR_ACCESS,
    ERROR_ILLEGAL,
    ERROR_NOT_FOUND,
    ERROR_UNDEFINED,
    MAX_REQUEST_BYTES,
    WRITE,
    PacketError,
    Request,
    netascii,
    parse_request,
)
from netboot.tftp_session import Asked, Peer, Session, agreed, open_peer_socket, send_error
from netboot.tftp_settings import WorkerSettings
from netboot.tftp_source import BytesSource, FileSource
from netboot.tftp_transfer import MIN_RTO_S

_IP_PKTINFO = 8  # linux/in.h
_PKTINFO_BYTES = 12
_BATCH = 64
_RECEIVE_BUFFER_BYTES = 1 << 20  # requests beyond the transfer limit wait here
ASK_TIMEOUT_S = 10.0  # a parent that is silent for longer has forgotten; the client has asked again long since
REPEAT_S = 2.0
"""A request that comes twice within this time from one port, while its transfer lives, is a copy of the first."""
MAX_NETASCII_BYTES = 4 << 20  # converted in memory; text files are small
ERRORS_PER_SECOND = 50  # refusals beyond are silent, so that forged requests make us no reflector
SCAN_S = 0.01  # timers are looked at no more often


class Worker:
    """The loop. `run` returns when the parent is gone."""

    def __init__(self, link: ParentLink, settings: WorkerSettings) -> None:
        self._link = link
        self._settings = settings
        self._epoll = select.epoll()
        self._listener = self._open_listener()
        self._listening = False
        self._sessions: dict[int, Session] = {}
        self._by_peer: dict[Peer, Session] = {}
        self._asked: dict[Peer, Asked] = {}
        self._asked_by_number: dict[int, Asked] = {}
        self._per_client: Counter[str] = Counter()
        self._counters: Counter[str] = Counter()
        self._next_number = settings.first_number
        self._next_scan = float("inf")
        self._error_budget = (0.0, ERRORS_PER_SECOND)
        self._roots: dict[str, int] = {}
        self._writing = False

    def _open_listener(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        if self._settings.interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._settings.interface.encode() + b"\0")
        sock.bind((self._settings.address, self._settings.port))
        return sock

    def run(self) -> None:
        """Serve until the parent closes its end."""
        link = self._link
        self._epoll.register(link.in_fd, select.EPOLLIN)
        self._link.send(ready=self._listener.getsockname()[1])
        listener_fd, clock = self._listener.fileno(), time.monotonic
        while not link.closed:
            self._update_interest()
            wait_s = -1.0 if self._next_scan == float("inf") else max(0.0, self._next_scan - clock())
            events = self._epoll.poll(wait_s, _BATCH)
            now = clock()
            for fd, _ in events:
                session = self._sessions.get(fd)
                if session is not None:
                    session.readable(now)
                    if session.transfer.outcome is not None:
                        self._end(session, now)
                elif fd == listener_fd:
                    self._requests(now)
                elif fd == link.in_fd:
                    for line in link.receive():
                        self._answer(line, now)
                elif fd == link.out_fd:
                    link.flush()
            if now >= self._next_scan:
                self._scan(now)

    def _update_interest(self) -> None:
        """Listen only while a transfer may begin; further requests wait in the socket. Write only what waits."""
        listen = len(self._sessions) + len(self._asked) < self._settings.max_transfers
        if listen != self._listening:
            self._listening = listen
            if listen:
                self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            else:
                self._epoll.unregister(self._listener.fileno())
        if self._link.wants_to_write != self._writing:
            self._writing = self._link.wants_to_write
            if self._writing:
                self._epoll.register(self._link.out_fd, select.EPOLLOUT)
            else:
                self._epoll.unregister(self._link.out_fd)

    # --- requests ---

    def _requests(self, now: float) -> None:
        room = self._settings.max_transfers - len(self._sessions) - len(self._asked)
        for _ in range(min(room, _BATCH)):
            try:
                data, ancillary, flags, peer = self._listener.recvmsg(MAX_REQUEST_BYTES + 1, 64)
            except BlockingIOError:
                return
            except OSError:
                self._counters["receive_errors"] += 1
                return
            local = _asked_address(ancillary)
            if flags & socket.MSG_TRUNC or local is None:
                self._counters["ignored"] += 1  # too long, or sent to a broadcast address (RFC 1123 section 4.2.3.5)
                continue
            self._request(data, (str(peer[0]), int(peer[1])), local, now)

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
        session = self._by_peer.get(peer)
        if session is None:
            return False
        if session.request == request and (not session.transfer.heard or now - session.started < REPEAT_S):
            session.repeat_start(now)
            self._counters["repeated_requests"] += 1
            return True
        session.abandon()  # U-Boot uses a port again for its next file
        self._end(session, now)
        return False

    def _ask(self, request: Request, peer: Peer, local: str, now: float) -> None:
        if self._per_client[peer[0]] >= self._settings.max_per_client:
            self._counters["over_client_limit"] += 1  # silent: the client asks again when others are done
            return
        number = self._next_number
        if not self._link.send(ask=number, client=peer[0], port=peer[1], path=request.path):
            return
        self._next_number += 1
        asked = Asked(number, request, peer, local, now)
        self._asked[peer] = asked
        self._asked_by_number[number] = asked
        self._per_client[peer[0]] += 1
        self._next_scan = min(self._next_scan, now + ASK_TIMEOUT_S)

    def _forget(self, asked: Asked) -> None:
        if self._asked.get(asked.peer) is asked:
            del self._asked[asked.peer]
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
        code = line.get("error")
        if isinstance(code, int):
            self._fail(asked, code, str(line.get("message", "")), now)
            return
        try:
            self._begin(asked, self._source(asked.request, line), now)
        except UnsafePathError as error:
            self._counters["unsafe_paths"] += 1
            self._fail(asked, ERROR_ACCESS, f"{line.get('file')}: {error.strerror}", now)
        except (OSError, ValueError) as error:
            code = ERROR_NOT_FOUND if isinstance(error, FileNotFoundError) else ERROR_UNDEFINED
            self._fail(asked, code, f"{line.get('file', '')}: {getattr(error, 'strerror', None) or error}", now)

    def _fail(self, asked: Asked, code: int, reason: str, now: float) -> None:
        self._error(asked.peer, asked.local, code, reason, now)
        self._done(asked.number, why=reason, ok=False)

    def _source(self, request: Request, line: Line) -> BytesSource | FileSource:
        data = line.get("data")
        source: BytesSource | FileSource
        if isinstance(data, str):
            source = BytesSource(binascii.a2b_base64(data))
        else:
            source = FileSource(open_beneath(self._root(str(line.get("root"))), str(line.get("file"))))
        if request.mode == "octet":
            return source
        try:
            if source.size > MAX_NETASCII_BYTES:
                raise ValueError(f"more than {MAX_NETASCII_BYTES} octets are not sent as netascii, use octet")
            return BytesSource(netascii(bytes(source.block(0, source.size))))
        finally:
            source.close()

    def _root(self, path: str) -> int:
        """A descriptor of the directory, opened anew when its name means another directory than before."""
        fd = self._roots.get(path)
        if fd is not None and os.path.samestat(os.stat(path), os.fstat(fd)):  # noqa: PTH116  # pathlib costs 1 MB
            return fd
        new = os.open(path, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        if fd is not None:
            os.close(fd)
        self._roots[path] = new
        return new

    def _begin(self, asked: Asked, source: BytesSource | FileSource, now: float) -> None:
        settings = self._settings
        try:
            sock = open_peer_socket(asked.local, asked.peer, settings.interface)
        except OSError:
            source.close()
            raise
        session = Session(
            number=asked.number,
            request=asked.request,
            peer=asked.peer,
            sock=sock,
            source=source,
            negotiated=agreed(asked.request, source.size, sock, settings.mtu_bytes, settings.max_window),
            now=now,
        )
        self._sessions[sock.fileno()] = session
        self._by_peer[asked.peer] = session
        self._per_client[asked.peer[0]] += 1
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        session.start(now)
        self._next_scan = min(self._next_scan, max(session.transfer.deadline, now + SCAN_S))
        if session.ended:
            self._end(session, now)

    # --- the end ---

    def _end(self, session: Session, now: float) -> None:
        fd = session.sock.fileno()
        self._epoll.unregister(fd)
        del self._sessions[fd]
        if self._by_peer.get(session.peer) is session:
            del self._by_peer[session.peer]
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

    def _done(self, number: int, **details: object) -> None:
        self._link.send(done=number, **details, counters=dict(self._counters))

    def _scan(self, now: float) -> None:
        """Run the timers that are due and find the next one."""
        for asked in [asked for asked in self._asked.values() if now - asked.at >= ASK_TIMEOUT_S]:
            self._forget(asked)
            self._counters["unanswered_questions"] += 1
        for session in [s for s in self._sessions.values() if s.transfer.deadline <= now]:
            session.timer(now)
            if session.ended:
                self._end(session, now)
        times = [session.transfer.deadline for session in self._sessions.values()]
        times += [asked.at + ASK_TIMEOUT_S for asked in self._asked.values()]
        if self._sessions:
            times.append(now + MIN_RTO_S)  # an ACK may have brought a deadline nearer since
        self._next_scan = max(min(times, default=float("inf")), now + SCAN_S)


def _asked_address(ancillary: list[tuple[int, int, bytes]]) -> str | None:
    """The local address that a request was sent to; None for broadcast and multicast."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= _PKTINFO_BYTES:
            _, local, destination = struct.unpack_from("=I4s4s", data)
            return socket.inet_ntoa(local) if local == destination else None
    return None


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
    try:
        worker = Worker(link, settings)
    except OSError as error:
        where = f"{settings.address} port {settings.port}" + (f" on {settings.interface}" if settings.interface else "")
        link.send(fatal=f"cannot serve TFTP on {where}: {error.strerror or error}")
        return 2
    # Nothing here makes reference cycles; collections would only stall every transfer at once.
    gc.collect()
    gc.freeze()
    gc.disable()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
