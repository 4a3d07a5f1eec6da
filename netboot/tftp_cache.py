"""Files as packets that are ready to leave, shared by all transfers of one file with one block size.

A chunk holds some hundred kilobytes of packets, header and block after block, so that one packet is one slice and one
`send`, and a window of them is one slice as well (UDP_SEGMENT). Chunks are made when they are wanted: making all of a
large file at once would stall every transfer. The least recently used ones go when the bound is reached.

A cached file is known by device, inode, size and both times of change. A chunk is only taken in when size and time of
modification are still those at which the file was opened, so a transfer never sends a mixture of old and new: it gets
what it opened, from the cache if need be, or ends with an error.

Not mmap: a file that is rewritten in place would kill the worker, and every transfer with it, by SIGBUS.
"""

import os
import time
from collections import OrderedDict

from netboot.tftp_packet import DATA

HEAD_BYTES = 4
CHUNK_BYTES = 512 * 1024  # 320 blocks of 1468, made in some 0.2 ms
_ALIGN_BLOCKS = 64  # windows of 2, 4, ... 64 blocks then never lie across two chunks
_MAX_BLOCKS = 1024  # IOV_MAX of Linux: a chunk is read by one preadv
_READ_AHEAD_BYTES = 2 << 20
_YOUNG_S = 2.0
"""A file that was changed so recently is not shared with later transfers: a further change may bear the same time."""

_Key = tuple[int, int, int, int, int, int, int]


class FileChangedError(OSError):
    """The file was changed while it was being sent."""


class PacketFile:
    """Packets of one file. `size` is fixed when it is opened; `stride` is a packet's octets, header included. `fd` is
    the open file of all its transfers together, which the cache closes after the last one; -1 for none."""

    __slots__ = ("_data", "_key", "_mtime_ns", "block_bytes", "chunk_blocks", "chunks", "fd", "rollover", "size",
                 "stride", "users")  # fmt: skip

    def __init__(
        self, size: int, block_bytes: int, rollover: int, *, key: _Key | None, mtime_ns: int, data: bytes | None = None
    ) -> None:
        self.size = size
        self.stride = HEAD_BYTES + block_bytes
        self.users = 0
        self.fd = -1
        self.chunks: dict[int, memoryview] = {}
        blocks = CHUNK_BYTES // self.stride
        self.chunk_blocks = min(blocks - blocks % _ALIGN_BLOCKS, _MAX_BLOCKS) if blocks >= _ALIGN_BLOCKS else 8
        self.block_bytes = block_bytes
        self.rollover = rollover
        self._key = key
        self._mtime_ns = mtime_ns
        self._data = data

    @property
    def key(self) -> _Key | None:
        """Under which it is shared, if it is."""
        return self._key

    def build(self, index: int, fd: int) -> memoryview:
        """Chunk `index`, made anew: blocks from 1 + index * chunk_blocks on. `fd` is the open file.

        Raises:
            FileChangedError: the file is not as it was when it was opened.
            OSError: it cannot be read.
        """
        block, stride = self.block_bytes, self.stride
        total = self.size // block + 1
        before = index * self.chunk_blocks
        count = min(self.chunk_blocks, total - before)
        offset = before * block
        length = min(count * block, self.size - offset)
        packets = memoryview(bytearray(HEAD_BYTES * count + length))
        self._write_heads(packets, before + 1, count)
        if length:
            ends = range(stride, stride * count + 1, stride)
            views = [packets[end - block : end] for end in ends]
            if self._data is not None:
                for number, view in enumerate(views):
                    start = offset + number * block
                    view[:] = self._data[start : start + len(view)]
            else:
                self._read(fd, views, offset, length)
        return packets

    def _write_heads(self, packets: memoryview, first: int, count: int) -> None:
        """All heads by four strided copies: a loop over blocks would cost as much as sending them."""
        numbers = range(first, first + count)
        if self.rollover and first + count > 65536:
            wired = [n if n < 65536 else (n - 1) % 65535 + 1 for n in numbers]
        else:
            wired = [n & 0xFFFF for n in numbers]
        stride = self.stride
        packets[0::stride][:count] = bytes(count)
        packets[1::stride][:count] = bytes((DATA,)) * count
        packets[2::stride][:count] = bytes([n >> 8 for n in wired])
        packets[3::stride][:count] = bytes([n & 0xFF for n in wired])

    def _read(self, fd: int, views: list[memoryview], offset: int, length: int) -> None:
        os.posix_fadvise(fd, offset, _READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
        count = os.preadv(fd, views, offset)
        now = os.fstat(fd)
        if count != length or now.st_size != self.size or now.st_mtime_ns != self._mtime_ns:
            raise FileChangedError("the file was changed while it was being sent")


class PacketCache:
    """All packets of a worker, at most `max_bytes` of them beside the chunks that transfers are just sending."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.built = 0
        self._files: dict[_Key, PacketFile] = {}
        self._recent: OrderedDict[tuple[PacketFile, int], int] = OrderedDict()

    def open_file(self, fd: int, block_bytes: int, rollover: int = 0) -> PacketFile:
        """The packets of the open regular file `fd`; give it back with `release`."""
        info = os.fstat(fd)
        key = (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size, block_bytes, rollover)
        found = self._files.get(key)
        if found is None:
            young = abs(time.time() - info.st_mtime) < _YOUNG_S
            found = PacketFile(
                info.st_size, block_bytes, rollover, key=None if young else key, mtime_ns=info.st_mtime_ns
            )
            if not young:
                self._files[key] = found
        found.users += 1
        return found

    def open_bytes(self, data: bytes, block_bytes: int, rollover: int = 0) -> PacketFile:
        """The packets of octets in memory, for one transfer."""
        found = PacketFile(len(data), block_bytes, rollover, key=None, mtime_ns=0, data=data)
        found.users += 1
        return found

    def chunk(self, file: PacketFile, index: int, fd: int) -> memoryview:
        """Chunk `index` of `file`.

        Raises:
            FileChangedError: it is not here, and can no longer be read as it was.
            OSError: it cannot be read.
        """
        found = file.chunks.get(index)
        if found is not None:
            self._recent.move_to_end((file, index))
            return found
        try:
            found = file.build(index, fd)
        except FileChangedError:
            self._unlist(file)
            raise
        self.built += 1
        file.chunks[index] = found
        self._recent[file, index] = len(found)
        self.used_bytes += len(found)
        self._shrink()
        return found

    def release(self, file: PacketFile) -> None:
        """A transfer of `file` has ended. What others may want again stays until its turn to go."""
        file.users -= 1
        if file.users:
            return
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1
        if file.key is None or self._files.get(file.key) is not file:
            for index in file.chunks:
                self.used_bytes -= self._recent.pop((file, index))
            file.chunks.clear()
        elif not file.chunks:
            self._unlist(file)

    def _shrink(self) -> None:
        while self.used_bytes > self.max_bytes and self._recent:
            (file, index), size = self._recent.popitem(last=False)
            self.used_bytes -= size
            del file.chunks[index]
            if not file.chunks and not file.users:
                self._unlist(file)

    def _unlist(self, file: PacketFile) -> None:
        if file.key is not None and self._files.get(file.key) is file:
            del self._files[file.key]
