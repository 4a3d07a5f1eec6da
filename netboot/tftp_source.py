"""Where the blocks of a transfer come from: a file or octets in memory."""

import os

CHUNK_BYTES = 64 * 1024
"""Read ahead of one transfer: one read per some forty blocks, and little memory with many transfers.

Not mmap: a file that is rewritten in place would kill the worker, and every transfer with it, by SIGBUS."""


class FileChangedError(OSError):
    """The file became shorter while it was being sent."""


class BytesSource:
    """Octets that are already here."""

    __slots__ = ("_view", "size")

    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self.size = len(data)

    def block(self, offset: int, length: int) -> memoryview:
        """`length` octets at `offset`."""
        return self._view[offset : offset + length]

    def close(self) -> None:
        """Nothing to give back."""


class FileSource:
    """An open regular file, closed by `close`. Its size is fixed at the start."""

    __slots__ = ("_chunk", "_end", "_fd", "_start", "size")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size
        self._start = self._end = 0
        self._chunk = memoryview(b"")

    def block(self, offset: int, length: int) -> memoryview:
        """`length` octets at `offset`; the view is good until the next call.

        Raises:
            FileChangedError: the file has no longer so many.
            OSError: it cannot be read.
        """
        end = offset + length
        if offset < self._start or end > self._end:
            data = os.pread(self._fd, max(CHUNK_BYTES, length), offset)
            if len(data) < length:
                raise FileChangedError("the file became shorter while it was being sent")
            self._chunk = memoryview(data)
            self._start, self._end = offset, offset + len(data)
        return self._chunk[offset - self._start : end - self._start]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
