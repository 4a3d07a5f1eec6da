"""Who a board is, kept over all its boots: machine-id and SSH host keys. Goes into its view, never into a root.

`identity/BOARD/` holds what was made once, readable by us alone. `layers.lay` makes of it a small tree that lies on top
of the root, so a reset costs nothing and `save` leaves it out.
"""

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from netboot.roots.errors import IdentityError
from wire.names import is_id

RSA_BITS = 3072  # ssh-keygen's default
_MACHINE_ID = re.compile(rb"[0-9a-f]{32}\n")
_KEY_LINE = re.compile(r"[\x20-\x7e]{16,16384}")
MAX_KEPT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of an identity: where it goes in a root, and its mode there."""

    path: str
    mode: int
    content: bytes


def _new_key(kind: str, comment: str) -> tuple[bytes, bytes]:
    """A private key as OpenSSH keeps it, and its public line."""
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind == "ecdsa":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b" " + comment.encode() + b"\n"


KEY_KINDS = ("ed25519", "ecdsa", "rsa")


class IdentityKeeper:
    """Keeps identities below `folder`, which is made for us alone.

    Raises:
        IdentityError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise IdentityError(f"{folder}: cannot keep identities of boards: {error.strerror}") from error

    def files(self, board: str) -> list[KeptFile]:
        """The board's identity, made at the first call (0.3 s for the RSA key) and the same ever after.

        Raises:
            IdentityError: it cannot be read or stored, or was spoilt; the message names the file.
        """
        if not is_id(board):
            raise IdentityError(f"{board!r} is no board's id")
        own = self._folder / board
        try:
            own.mkdir(mode=0o700, exist_ok=True)
            machine_id = self._kept(own / "machine-id", (secrets.token_hex(16) + "\n").encode)
            if _MACHINE_ID.fullmatch(machine_id) is None:
                raise IdentityError(f"{own}/machine-id: is none; delete it, and the board gets a new one")
            found = [
                KeptFile("etc/hostname", 0o644, board.encode() + b"\n"),
                KeptFile("etc/machine-id", 0o444, machine_id),
            ]
            for kind in KEY_KINDS:
                found += self._key(own, kind, board)
        except OSError as error:
            raise IdentityError(f"board {board}: {error.filename or own}: {error.strerror}") from error
        return found

    def forget(self, board: str) -> None:
        """Delete the identity of a board that is retired; a new board of this name is another one.

        Raises:
            IdentityError: it cannot be deleted.
        """
        own = self._folder / board
        if not is_id(board) or not own.is_dir():
            return
        try:
            for file in own.iterdir():
                file.unlink()
            own.rmdir()
        except OSError as error:
            raise IdentityError(f"board {board}: {error.filename}: {error.strerror}") from error

    def _key(self, own: Path, kind: str, board: str) -> list[KeptFile]:
        name = f"ssh_host_{kind}_key"
        made: list[bytes] = []

        def make() -> bytes:
            made[:] = _new_key(kind, f"root@{board}")
            return made[0]

        private = self._kept(own / name, make)
        # The public half is written second: one without the other is made anew from the private one.
        public = self._kept(own / f"{name}.pub", lambda: made[1] if made else _public_line(own / name, private, board))
        return [KeptFile(f"etc/ssh/{name}", 0o600, private), KeptFile(f"etc/ssh/{name}.pub", 0o644, public)]

    def _kept(self, path: Path, make: Callable[[], bytes]) -> bytes:
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise IdentityError(f"{path}: is no file")
                return file.read(MAX_KEPT_BYTES)
        content = make()
        descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            Path(fresh).rename(path)
        finally:
            Path(fresh).unlink(missing_ok=True)
        return content


def _public_line(path: Path, private: bytes, board: str) -> bytes:
    try:
        key = serialization.load_ssh_private_key(private, password=None)
    except ValueError as error:
        raise IdentityError(f"{path}: is no SSH key ({error}); delete it, and the board gets a new one") from error
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public + f" root@{board}\n".encode()


BOOT_PATH = "etc/boardhand/boot"
"""Of one boot: what the board's client reads with `--cmdline-file`, its secret among it."""


def login_files(authorised_keys: Sequence[str]) -> list[KeptFile]:
    """What settings add: who may log in as root.

    Raises:
        IdentityError: a key is not one printable line.
    """
    for key in authorised_keys:
        if _KEY_LINE.fullmatch(key) is None:
            raise IdentityError(f"an authorised key must be one line as in authorized_keys: {key[:40]!r}")
    if not authorised_keys:
        return []
    text = "".join(f"{key}\n" for key in authorised_keys)
    return [KeptFile("root/.ssh/authorized_keys", 0o600, text.encode())]


def boot_file(words: Sequence[str]) -> KeptFile:
    """`boardhand.KEY=VALUE` words of one boot, for boards whose kernel command line does not carry them."""
    return KeptFile(BOOT_PATH, 0o600, "".join(f"{word}\n" for word in words).encode())
