"""Where the packets of one transfer come from: the cache, by an open file or by octets in memory."""

import os

from netboot.tftp_cache import FileChangedError, PacketCache, PacketFile


class Source:
    """A file for one transfer, closed by `close`. `size` is known at once, packets after `open`, when the block size
    is agreed upon."""

    __slots__ = ("_cache", "_data", "_fd", "packets", "size")

    def __init__(self, cache: PacketCache, *, fd: int = -1, data: bytes | None = None) -> None:
        self._cache = cache
        self._fd = fd
        self._data = data
        self.size = os.fstat(fd).st_size if data is None else len(data)
        self.packets: PacketFile | None = None

    def open(self, block_bytes: int, rollover: int) -> PacketFile:
        """The packets for this block size.

        Raises:
            FileChangedError: the file has another size by now.
        """
        if self._data is not None:
            self.packets = self._cache.open_bytes(self._data, block_bytes, rollover)
        else:
            self.packets = self._cache.open_file(self._fd, block_bytes, rollover)
        if self.packets.size != self.size:
            raise FileChangedError("the file was changed while it was being opened")
        return self.packets

    def chunk(self, packets: PacketFile, index: int) -> memoryview:
        """Chunk `index` of `packets`.

        Raises:
            FileChangedError: the file is no longer the one that was opened.
            OSError: it cannot be read.
        """
        return self._cache.chunk(packets, index, self._fd)

    def read(self) -> bytes:
        """All of it, for a conversion.

        Raises:
            OSError: it cannot be read.
        """
        return self._data if self._data is not None else os.pread(self._fd, self.size, 0)

    def close(self) -> None:
        """Close the file."""
        if self.packets is not None:
            self._cache.release(self.packets)
            self.packets = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
