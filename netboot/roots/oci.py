"""OCI and docker archives (`skopeo copy ... oci-archive:`, `docker save`): which layers an image has, and whiteouts.

OCI Image Format 1.1, "Image Layout" and "Image Layer Filesystem Changeset"; docker's own older layout beside it.
"""

import hashlib
import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from netboot.roots.errors import SourceError
from netboot.roots.path_guard import clean
from netboot.roots.tar_stream import CHUNK_BYTES, Member

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
_FIRST_NAMES = re.compile(
    r"(\./)?(blobs(/.*)?|index\.json|oci-layout|manifest\.json|repositories|[0-9a-f]{64}(/.*|\.json|\.tar)?/?)"
)
_INDEXES = {"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}


def may_be_oci(head: bytes) -> bool:
    """Whether a tar archive with this first block could be such an archive; a root never begins so."""
    return _FIRST_NAMES.fullmatch(head[:100].partition(b"\0")[0].decode("utf-8", "replace")) is not None


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer's place in the archive. `sha256` is of the blob as it stands there, None where the archive says none."""

    name: str
    sha256: str | None


class OciArchive:
    """An archive, opened. Close it by leaving the `with` block.

    Raises:
        SourceError: it is no tar archive.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # only read, and `file` is its owner's
            self._names = {name.removeprefix("./"): name for name in self._tar.getnames()}
        except tarfile.TarError as error:
            raise SourceError(f"{path}: {error}") from error

    @property
    def is_image(self) -> bool:
        """Whether it says which layers it has."""
        return "manifest.json" in self._names or {"index.json", "oci-layout"} <= self._names.keys()

    def layers(self, platform: str | None = None) -> list[Layer]:
        """The layers of the one image in it, lowest first. `platform` chooses, as `linux/arm64`, where there are more.

        Raises:
            SourceError: there is not exactly one, or a document of it cannot be used.
        """
        try:
            if {"index.json", "oci-layout"} <= self._names.keys():
                return self._oci_layers(platform)
            images = self._document("manifest.json")
            if len(images) != 1:
                tags = ", ".join(str((image.get("RepoTags") or ["?"])[0]) for image in images)
                raise SourceError(f"{self._path}: holds {len(images)} images ({tags}): save one alone")
            return [Layer(str(name), None) for name in images[0]["Layers"]]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SourceError(f"{self._path}: its image manifest cannot be used: {error!r}") from error

    def open(self, layer: Layer) -> IO[bytes]:
        """A layer's octets.

        Raises:
            SourceError: it is not in the archive, or is not what the manifest says.
        """
        blob = self._blob(layer.name)
        if layer.sha256 is not None:
            hashed = hashlib.sha256()
            while data := blob.read(CHUNK_BYTES):
                hashed.update(data)
            if hashed.hexdigest() != layer.sha256:
                raise SourceError(f"{self._path}: layer {layer.name} is not what its manifest says: get it again")
            blob.seek(0)
        return blob

    def _oci_layers(self, platform: str | None) -> list[Layer]:
        manifest = self._document("index.json")
        while manifest.get("mediaType") in _INDEXES or "manifests" in manifest:
            manifest = self._document(_blob_name(self._chosen(manifest["manifests"], platform)["digest"]))
        found = []
        for layer in manifest["layers"]:
            name = _blob_name(layer["digest"])
            found.append(Layer(name, name.rpartition("/")[2]))
        return found

    def _chosen(self, manifests: list[dict[str, Any]], platform: str | None) -> dict[str, Any]:
        def named(entry: dict[str, Any]) -> str:
            what = entry.get("platform", {})
            return f"{what.get('os', '?')}/{what.get('architecture', '?')}"

        # Attestations of docker's builder stand beside the images, for a platform that does not exist.
        real = [entry for entry in manifests if named(entry) != "unknown/unknown"]
        fitting = [entry for entry in real if platform is None or named(entry) in {platform, "?/?"}]
        if len(fitting) != 1:
            there = ", ".join(named(entry) for entry in real) or "none"
            raise SourceError(f"{self._path}: say with --platform which image of these: {there}")
        return fitting[0]

    def _document(self, name: str) -> Any:
        document = json.loads(self._blob(name).read(MAX_DOCUMENT_BYTES))
        if not isinstance(document, dict | list):
            raise TypeError(f"{name} is no object")
        return document

    def _blob(self, name: str) -> IO[bytes]:
        try:
            blob = self._tar.extractfile(self._names[name])
        except KeyError:
            raise SourceError(f"{self._path}: {name} is not in the archive: it is cut or not whole") from None
        except tarfile.TarError as error:
            raise SourceError(f"{self._path}: {name}: {error}") from error
        if blob is None:
            raise SourceError(f"{self._path}: {name} is no file")
        return blob


def _blob_name(digest: object) -> str:
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", str(digest))
    if found is None:
        raise SourceError(f"the digest {str(digest)[:80]!r} is none of SHA-256")
    return f"blobs/sha256/{found[1]}"


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
        elif name.startswith(WHITEOUT):
            self.removed.append(clean(f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/")))
        elif member.kind != "d":
            self.replaced.append(f"{folder}/{name}".lstrip("/"))
