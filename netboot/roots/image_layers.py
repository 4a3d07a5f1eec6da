"""Puts the layers of an OCI image upon each other: what a layer removes goes first, then it is unpacked."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from netboot.roots import sources
from netboot.roots.errors import SourceError
from netboot.roots.oci import LayerPlan, OciImage
from netboot.roots.path_guard import PathGuard
from netboot.roots.sources import SourceKind
from netboot.roots.tar_stream import Reader, TarStream

Unpack = Callable[[Reader, str, Callable[[], int], int], None]
"""Takes a layer's stream, what it is called, how far it is, and how far it goes."""


def apply(image: OciImage, source: Path, arch: str | None, tree: Path, guard: PathGuard, unpack: Unpack) -> None:
    """Unpack all layers of the image for `arch` into `tree`.

    Raises:
        SourceError: the image or a layer of it is damaged, or no layer is for `arch`.
        UnsafeSourceError: a layer removes or writes something outside.
        OSError: the tree cannot be changed.
    """
    layers = image.layers(arch)
    for number, layer in enumerate(layers):
        what = f"import {source.name}, layer {number + 1} of {len(layers)}"
        if number:
            # Twice over the layer: a removal may stand behind what it makes way for.
            plan = LayerPlan()
            with _stream(image.open(layer), source) as stream:
                TarStream(stream, None, plan.see).run()
            if _make_way(plan, tree, guard):
                guard.keep_links(lambda path: (tree / path).is_symlink())
        blob = image.open(layer, checked=number > 0)
        size = blob.seek(0, os.SEEK_END)
        blob.seek(0)
        with _stream(blob, source) as stream:
            unpack(stream, what, blob.tell, size)


@contextmanager
def _stream(blob: IO[bytes], source: Path) -> Iterator[Reader]:
    head = blob.read(sources.SNIFFED_BYTES)
    kind = sources.kind_of(head)
    blob.seek(0)
    if kind is SourceKind.TAR or not any(head):  # a layer without files is all zeros
        yield blob
    elif kind is not None and kind.packed:
        with sources.unpacked_part(kind, blob, source) as stream:
            yield stream
    else:
        raise SourceError(f"{source}: a layer is no tar archive, or is packed or encrypted in an unknown way")


def _make_way(plan: LayerPlan, tree: Path, guard: PathGuard) -> bool:
    """Remove what the layer wants gone. Whether there was anything."""
    gone = False
    for path in plan.emptied:
        folder = tree / guard.resolve(path) if path else tree
        if folder.is_dir() and not folder.is_symlink():
            for entry in list(folder.iterdir()):
                gone |= _take_away(entry)
    for path in plan.removed:
        gone |= _take_away(tree / guard.resolve(path))
    for path in plan.replaced:
        place = tree / guard.resolve(path)
        if place.is_dir() and not place.is_symlink():
            gone |= _take_away(place)
    return gone


def _take_away(place: Path) -> bool:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
        return True
    if not os.path.lexists(place):
        return False
    place.unlink()
    return True
