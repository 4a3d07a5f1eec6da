"""OCI and docker images (`skopeo copy ... oci-archive:`, `docker save`): which layers one has, and whiteouts.

An image is an archive of files, or a folder with the same files (`skopeo copy ... oci:`, umoci). OCI Image Format 1.1,
"Image Layout" and "Image Layer Filesystem Changeset"; docker's own older layout beside it.
"""

import hashlib
import json
import re
import tarfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from netboot.roots.errors import SourceError, UnsafeSourceError
from netboot.roots.path_guard import clean
from netboot.roots.tar_stream import CHUNK_BYTES, Member, Reader, TarStream

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_FIRST_NAMES = re.compile(
    r"(blobs(/.*)?|index\.json|oci-layout|manifest\.json|repositories|[0-9a-f]{64}(/.*|\.json|\.tar)?/?)"
)
MAX_INDEXES = 4
"""An index in an index happens; a ring of them is an attack."""
_DEBIAN_NAMES = {"armhf": "arm", "armel": "arm", "i386": "386", "ppc64el": "ppc64le"}
_INDEXES = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}


class _DecidedError(Exception):
    """Ends the reading of an archive whose first name has been seen."""


def may_be_image(stream: Reader) -> bool:
    """Whether the archive in `stream` begins as an image's does; a root never begins so."""

    def judge(member: Member) -> None:
        name = member.path.removeprefix("./")
        if name not in {"", "."}:
            raise _DecidedError(_FIRST_NAMES.fullmatch(name) is not None)

    try:
        TarStream(stream, None, judge).run()
    except _DecidedError as decided:
        return bool(decided.args[0])
    except SourceError:  # the import meets it again, and says it
        return False
    return False


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's place in the archive. `sha256` is of the blob as it stands there, None where the archive says none."""

    name: str
    sha256: str | None


class Files(Protocol):
    """The files of an image by name."""

    def names(self) -> Collection[str]:
        """What there is."""

    def open(self, name: str) -> IO[bytes] | None:
        """A file's octets; None: it is no file, or leads elsewhere. Raises KeyError or OSError: it is not there."""


class ArchivedFiles:
    """Files in a tar archive that is not packed.

    Raises:
        SourceError: it is no tar archive.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # only read, and `file` is its owner's
            self._names = {name.removeprefix("./"): name for name in self._tar.getnames()}
        except tarfile.TarError as error:
            raise SourceError(f"{path}: {error}") from error

    def names(self) -> Collection[str]:
        return self._names.keys()

    def open(self, name: str) -> IO[bytes] | None:
        return self._tar.extractfile(self._names[name])


class FolderFiles:
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> Collection[str]:
        return {entry.name for entry in self._folder.iterdir()}

    def open(self, name: str) -> IO[bytes] | None:
        path = self._folder / name
        if not path.resolve().is_relative_to(self._folder.resolve()):
            return None
        return path.open("rb")


class OciImage:
    """An image in `files`; `path` is what messages call it. `is_image`: it says which layers it has."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files
        names = files.names()
        self._is_oci = "index.json" in names and "oci-layout" in names
        self.is_image = self._is_oci or "manifest.json" in names

    def layers(self, arch: str | None = None) -> list[Layer]:
        """The layers of the one image in it, lowest first. `arch` chooses where there are more: `arm64`, `armhf`,
        `amd64`, `riscv64`, or as the image calls it, `arm/v7`.

        Raises:
            SourceError: there is not exactly one for `arch`, or a document of it cannot be used.
        """
        try:
            if self._is_oci:
                return self._oci_layers(arch)
            images = self._document("manifest.json")
            if len(images) != 1:
                tags = ", ".join(str((image.get("RepoTags") or ["?"])[0]) for image in images)
                raise SourceError(f"{self._path}: holds {len(images)} images ({tags}): save one alone")
            self._must_be(arch, str(images[0]["Config"]), None)
            return [Layer(str(name), None) for name in images[0]["Layers"]]
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise SourceError(f"{self._path}: its image manifest cannot be used: {error!r}") from error

    def open(self, layer: Layer, *, checked: bool = False) -> IO[bytes]:
        """A layer's octets. `checked`: its checksum was seen to be right before.

        Raises:
            SourceError: it is not there, or is not what the manifest says.
        """
        blob = self._blob(layer.name)
        if layer.sha256 is not None and not checked:
            hashed = hashlib.sha256()
            while data := blob.read(CHUNK_BYTES):
                hashed.update(data)
            if hashed.hexdigest() != layer.sha256:
                raise self._not_the_same(layer.name)
            blob.seek(0)
        return blob

    def _oci_layers(self, arch: str | None) -> list[Layer]:
        manifest = self._document("index.json")
        for _ in range(MAX_INDEXES):
            if manifest.get("mediaType") not in _INDEXES and "manifests" not in manifest:
                break
            manifest = self._document(*_named(self._chosen(manifest["manifests"], arch)["digest"]))
        self._must_be(arch, *_named(manifest["config"]["digest"]))
        return [Layer(*_named(layer["digest"])) for layer in manifest["layers"]]

    def _chosen(self, manifests: list[dict[str, Any]], arch: str | None) -> dict[str, Any]:
        # Attestations of docker's builder stand beside the images, for a platform that does not exist. An image with
        # several names stands there several times.
        real = {entry["digest"]: entry for entry in manifests if _platform(entry.get("platform")) != "unknown"}
        fitting = [
            entry
            for entry in real.values()
            if arch is None or not entry.get("platform") or _fits(_platform(entry["platform"]), arch)
        ]
        if len(fitting) != 1:
            there = ", ".join(sorted({_platform(entry.get("platform")) for entry in real.values()})) or "none"
            ask = "say with --arch which" if arch is None or fitting else f"there is none for {arch}"
            raise SourceError(f"{self._path}: has {len(real)} images, for {there}: {ask}")
        return fitting[0]

    def _must_be(self, arch: str | None, name: str, sha256: str | None) -> None:
        """Refuse an image of another architecture: it would be found out on the board, after a boot in vain."""
        if arch is None:
            return
        config = self._document(name, sha256)
        if config.get("architecture") and not _fits(_platform(config), arch):
            raise SourceError(f"{self._path}: the image is for {_platform(config)}, not for {arch}")

    def _document(self, name: str, sha256: str | None = None) -> Any:
        data = self._blob(name).read(MAX_DOCUMENT_BYTES)
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise self._not_the_same(name)
        document = json.loads(data)
        if not isinstance(document, dict | list):
            raise TypeError(f"{name} is no object")
        return document

    def _blob(self, name: str) -> IO[bytes]:
        try:
            blob = self._files.open(name)
        except (KeyError, OSError):
            raise SourceError(f"{self._path}: {name} is not in it: it is cut or not whole") from None
        except tarfile.TarError as error:
            raise SourceError(f"{self._path}: {name}: {error}") from error
        if blob is None:
            raise SourceError(f"{self._path}: {name} is no file")
        return blob

    def _not_the_same(self, name: str) -> SourceError:
        return SourceError(f"{self._path}: {name} is not what the manifest says: get the image again")


def _platform(said: Any) -> str:
    """A platform as `arm64` or `arm/v7`; `?` where nothing is said."""
    parts = [(said or {}).get("architecture", "?"), (said or {}).get("variant")]
    return "/".join(str(part) for part in parts if part)


def _fits(platform: str, arch: str) -> bool:
    wanted = _DEBIAN_NAMES.get(arch, arch).removeprefix("linux/")
    return platform == wanted or platform.startswith(wanted + "/")


def _named(digest: object) -> tuple[str, str]:
    """Where a blob is, and its SHA-256."""
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", str(digest))
    if found is None:
        raise SourceError(f"the digest {str(digest)[:80]!r} is none of SHA-256")
    return f"blobs/sha256/{found[1]}", found[1]


@dataclass(slots=True)
class LayerPlan:
    """What has to go from the layers below before a layer is unpacked. Filled by `see`, one call per member."""

    removed: list[str] = field(default_factory=list)
    """Files and folders."""
    emptied: list[str] = field(default_factory=list)
    """Folders whose earlier content goes."""
    replaced: list[str] = field(default_factory=list)
    """What is no folder in this layer: a folder in its place must go."""

    def see(self, member: Member) -> None:
        """Note what `member` does to the layers below.

        Raises:
            UnsafeSourceError: its path leads out.
        """
        folder, _, name = clean(member.path).rpartition("/")
        if name == OPAQUE:
            self.emptied.append(folder)
        elif name.startswith(WHITEOUT + WHITEOUT):
            pass  # other marks of AUFS: nothing that is left of it today
        elif name.startswith(WHITEOUT):
            gone = name.removeprefix(WHITEOUT)
            if gone in {"", ".", ".."}:
                raise UnsafeSourceError(f"{member.path}: removes what is no file of its folder")
            self.removed.append(f"{folder}/{gone}".lstrip("/"))
        elif member.kind != "d":
            self.replaced.append(f"{folder}/{name}".lstrip("/"))
