"""Where the disk has a say in what a board gets: what labgrid has staged, and what a profile's folder holds."""

import asyncio
from pathlib import Path

from netboot.boot_tree import MISSING, GeneratedFile, Lookup, Refused, SharedFile, StagedFile
from netboot.safe_open import UnsafePathError
from netboot.staged import StagedTree, resolve


async def on_disk(found: Lookup, tree: StagedTree | None) -> GeneratedFile | SharedFile | Refused:
    """`found`, with the disk asked where it has to be, in a thread. `tree`: labgrid's, where it is served."""
    if isinstance(found, StagedFile) or (isinstance(found, SharedFile) and found.root is not None):
        return await asyncio.to_thread(_asked, found, tree)
    return found


def _asked(found: Lookup, tree: StagedTree | None) -> GeneratedFile | SharedFile | Refused:
    if isinstance(found, StagedFile):
        try:
            staged = None if tree is None else resolve(tree, found.folder, found.name)
        except UnsafePathError as error:
            return Refused(f"labgrid's {error.filename}: {error.strerror}")
        except OSError as error:
            return Refused(f"labgrid's {found.folder}/{found.name}: {error.strerror}")
        if staged is not None:
            return SharedFile(found.client, staged.path, "other", staged.root)
        found = found.otherwise
    if isinstance(found, SharedFile) and found.root is not None and not _is_file(found.path):
        return Refused(MISSING, missing=True)
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be entered
        return False
