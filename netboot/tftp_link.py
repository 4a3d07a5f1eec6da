"""The worker's end of its parent: one JSON object per line on stdin and stdout, never blocking."""

import json
import os
from collections.abc import Iterator

MAX_LINE_BYTES = 4 << 20  # a generated file in base64 and to spare
_READ_BYTES = 64 * 1024
MAX_OUTBOX_BYTES = 256 * 1024
"""What waits for a parent that does not read; beyond, lines are dropped and counted: clients ask again."""

Line = dict[str, object]


class ParentLink:
    """Lines in and out. `closed` is set when the parent is gone, and the worker then has no reason to live."""

    def __init__(self, in_fd: int, out_fd: int) -> None:
        self.in_fd = in_fd
        self.out_fd = out_fd
        self.closed = False
        self.dropped = 0
        self._inbox = b""
        self._outbox = b""
        os.set_blocking(in_fd, False)
        os.set_blocking(out_fd, False)

    @property
    def wants_to_write(self) -> bool:
        """Whether lines wait for `flush`."""
        return bool(self._outbox)

    def receive(self) -> Iterator[Line]:
        """What has arrived. A line that is no JSON object ends the link: parent and worker are of one version."""
        try:
            data = os.read(self.in_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        if len(self._inbox) > MAX_LINE_BYTES:
            self.closed = True
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if not isinstance(value, dict):
                self.closed = True
                return
            yield value

    def send(self, **line: object) -> bool:
        """Queue a line; False when the outbox is full and it was dropped."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if len(self._outbox) + len(data) > MAX_OUTBOX_BYTES:
            self.dropped += 1
            return False
        self._outbox += data
        self.flush()
        return True

    def flush(self) -> None:
        """Write what the pipe takes."""
        try:
            while self._outbox:
                self._outbox = self._outbox[os.write(self.out_fd, self._outbox) :]
        except BlockingIOError:
            return
        except OSError:
            self.closed = True
