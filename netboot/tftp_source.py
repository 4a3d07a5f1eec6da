"""Where the packets of one transfer come from: the cache, by an open file or by octets in memory."""

import binascii
import os

from netboot.safe_open import open_beneath
from netboot.tftp_cache import FileChangedError, PacketCache, PacketFile
from netboot.tftp_link import Line
from netboot.tftp_packet import Request, netascii

MAX_NETASCII_BYTES = 4 << 20  # converted in memory; text files are small


class Source:
    """A file for one transfer, given back by `close`. `size` is known at once, packets after `open`, when the block
    size is agreed upon; or it was opened before, for the same transfer, as `packets`."""

    __slots__ = ("_cache", "_data", "_fd", "packets", "size")

    def __init__(
        self, cache: PacketCache, *, fd: int = -1, data: bytes | None = None, packets: PacketFile | None = None
    ) -> None:
        self._cache = cache
        self._fd = fd
        self._data = data
        self.packets = packets
        if packets is not None:
            self.size = packets.size
        else:
            self.size = os.fstat(fd).st_size if data is None else len(data)

    def open(self, block_bytes: int, rollover: int) -> PacketFile:
        """The packets for this block size.

        Raises:
            FileChangedError: the file has another size by now.
        """
        if self._data is not None:
            self.packets = self._cache.open_bytes(self._data, block_bytes, rollover)
        else:
            self.packets = self._cache.open_file(self._fd, block_bytes, rollover)
            if self.packets.fd < 0:
                self.packets.fd = self._fd
            else:
                os.close(self._fd)  # it is the same file
            self._fd = -1
        if self.packets.size != self.size:
            raise FileChangedError("the file was changed while it was being opened")
        return self.packets

    def chunk(self, packets: PacketFile, index: int) -> memoryview:
        """Chunk `index` of `packets`.

        Raises:
            FileChangedError: the file is no longer the one that was opened.
            OSError: it cannot be read.
        """
        return self._cache.chunk(packets, index, packets.fd)

    def read(self) -> bytes:
        """All of it, for a conversion.

        Raises:
            OSError: it cannot be read.
        """
        return self._data if self._data is not None else os.pread(self._fd, self.size, 0)

    def close(self) -> None:
        """Give the file back."""
        if self.packets is not None:
            self._cache.release(self.packets)
            self.packets = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Opener:
    """Opens what the parent names. Directories stay open, each is one descriptor."""

    def __init__(self, cache: PacketCache) -> None:
        self._cache = cache
        self._roots: dict[str, int] = {}

    def open(self, request: Request, line: Line) -> Source:
        """The file or the octets that the answer `line` gives for `request`, converted for mode netascii.

        Raises:
            UnsafePathError: a link leads out, or it is no regular file.
            OSError: it cannot be opened or read.
            ValueError: it is too long to be converted, or the answer holds no octets.
        """
        data = line.get("data")
        if isinstance(data, str):
            source = Source(self._cache, data=binascii.a2b_base64(data))
        else:
            fd = open_beneath(self._root(str(line.get("root"))), str(line.get("file")))
            source = Source(self._cache, fd=fd)
        if request.mode == "octet":
            return source
        try:
            if source.size > MAX_NETASCII_BYTES:
                raise ValueError(f"more than {MAX_NETASCII_BYTES} octets are not sent as netascii, use octet")
            return Source(self._cache, data=netascii(source.read()))
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
