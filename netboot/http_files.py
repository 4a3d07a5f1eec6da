"""A file as HTTP serves it: opened once, told by its validators, and never half of one version and half of another."""

import os
from pathlib import Path

from netboot.http_ranges import Validators
from netboot.safe_open import open_beneath

_PE_OFFSET_AT = 0x3C  # PE format, "MS-DOS stub": where the offset of the PE signature stands
_PE_SIGNATURE = b"PE\0\0"
_TYPES = {
    # UEFI specification 2.10 section 24.7.3.1; firmware refuses a boot file of another type without such an ending.
    ".efi": "application/efi",
    ".iso": "application/vnd.efi-iso",
    ".img": "application/vnd.efi-img",
    ".ipxe": "text/plain; charset=utf-8",
    ".cfg": "text/plain; charset=utf-8",
    ".conf": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".json": "application/json",
}
OCTETS = "application/octet-stream"


class FileChangedError(OSError):
    """The file was written or cut while it was being sent: end the connection, so that the client asks again."""


def content_type(name: str) -> str:
    """The type of a file by its name."""
    return _TYPES.get(os.path.splitext(name)[1].lower(), OCTETS)  # noqa: PTH122  # a URL's path is no Path


class OpenFile:
    """A regular file, open for reading. Size and validators are those of the moment of opening. Links in its path are
    followed only below `root`, its own folder where that is None.

    Its methods call the file system: not for the event loop. `close` comes after the last of them.

    Raises:
        UnsafePathError: the file is a link that leads out of its folder, or no regular file.
        OSError: it is missing or may not be read.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        beneath = root or path.parent
        folder = os.open(beneath, os.O_DIRECTORY | os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.fd = open_beneath(folder, str(path.relative_to(beneath)))
        finally:
            os.close(folder)
        status = os.fstat(self.fd)
        self.size_bytes = status.st_size
        self._version = (status.st_mtime_ns, status.st_size)
        # The inode too: a file that takes another's place may be as old and as long.
        etag = f'"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}"'
        self.validators = Validators(etag, int(status.st_mtime))

    def is_efi_program(self) -> bool:
        """Whether it is a PE image, as EFI applications and kernels with an EFI stub are, whatever their name."""
        head = os.pread(self.fd, 64, 0)
        if len(head) < 64 or not head.startswith(b"MZ"):
            return False
        at = int.from_bytes(head[_PE_OFFSET_AT : _PE_OFFSET_AT + 4], "little")
        return os.pread(self.fd, len(_PE_SIGNATURE), at) == _PE_SIGNATURE

    def read(self, offset: int, count: int) -> bytes:
        """Octets of the version that was opened.

        Raises:
            FileChangedError: it is another version now.
            OSError: it cannot be read.
        """
        pieces = []
        while count > 0:
            piece = os.pread(self.fd, count, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            count -= len(piece)
        self.check()
        return b"".join(pieces)

    def check(self) -> None:
        """Do nothing, if the file is what was opened. A rename or removal does not change it.

        Raises:
            FileChangedError: it is not.
        """
        status = os.fstat(self.fd)
        if (status.st_mtime_ns, status.st_size) != self._version:
            raise FileChangedError("the file was changed while it was being sent")

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
