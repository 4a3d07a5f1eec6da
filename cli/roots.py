"""`boardhand root import|list|show|verify|remove`: work on a store of roots on this machine."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cli.exits import CliError, Exit
from cli.plain_text import shown
from cli.root_progress import bar
from cli.target import check_id
from netboot.roots.errors import LossError, NoSuchRootError, RootError, RootInUseError
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.store import RootInfo, RootStore

MAX_DIFFERENCES = 50
"""Printed of one root; all are in the JSON."""
_EXITS: tuple[tuple[type[RootError], Exit], ...] = (
    (NoSuchRootError, Exit.NO_ANSWER),
    (RootInUseError, Exit.NOT_ALLOWED),
    (LossError, Exit.NOT_ALLOWED),
)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RootError as error:
        code = next((code for kind, code in _EXITS if isinstance(error, kind)), Exit.FAILED)
        raise CliError(code, shown(error, 1000)) from error


def _words(info: RootInfo) -> str:
    return f"{info.files} files, {info.size_bytes / 1e6:.1f} MB"


def _lost(info: RootInfo) -> str:
    return ", ".join(f"{what} ({times})" for what, times in sorted(info.lost.items()))


def bring(folder: Path, name: str, source: str, options: ImportOptions, *, as_json: bool) -> int:
    """Import `source` as the root `name`.

    Raises:
        CliError: it cannot be imported, or the store cannot take it.
    """
    check_id("root", name)
    began = time.monotonic()
    with _told(), bar(hidden=as_json) as progress:
        store = RootStore(folder)
        if source.startswith(("http://", "https://")):
            from netboot.roots.remote import import_url

            info = import_url(store, options, name, source, progress)
        else:
            info = RootImport(store, options, progress=progress).run(name, Path(source))
    if as_json:
        print(json.dumps({"root": asdict(info)}))
        return Exit.OK
    print(f"{name}: {_words(info)}, in {time.monotonic() - began:.1f} s; sha256 {info.sha256}")
    if info.lost:
        print(f"{name}: lost: {_lost(info)}")
    return Exit.OK


def show_all(folder: Path, *, as_json: bool) -> int:
    """List the roots of a store.

    Raises:
        CliError: the store cannot be read.
    """
    with _told():
        store = RootStore(folder)
        found = [(store.info(name), store.users(name)) for name in store.names()]
        free = store.free_bytes()
    if as_json:
        roots = [{**asdict(info), "users": users} for info, users in found]
        print(json.dumps({"store": str(store.folder), "free_bytes": free, "roots": roots}))
        return Exit.OK
    rows = [("ROOT", "SIZE", "FILES", "IMPORTED", "USED BY")]
    rows += [
        (info.name, f"{info.size_bytes / 1e6:.1f} MB", str(info.files), info.imported_at[:10], ", ".join(users) or "-")
        for info, users in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if found else []:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{store.folder}: {len(found) or 'no'} roots, {free / 1e9:.1f} GB free")
    return Exit.OK


def _profiles(settings: Path | None, name: str) -> list[str] | None:
    if settings is None:
        return None
    from cli.root_settings import profiles_with

    return profiles_with(settings, name)


def show(folder: Path, name: str, settings: Path | None, *, as_json: bool) -> int:
    """Show one root.

    Raises:
        CliError: there is none of that name, or the settings are wrong.
    """
    check_id("root", name)
    with _told():
        store = RootStore(folder)
        info, users = store.info(name), store.users(name)
    profiles = _profiles(settings, name)
    if as_json:
        print(json.dumps({"root": asdict(info), "users": users, "profiles": profiles}))
        return Exit.OK
    print(f"{name}: {_words(info)}")
    print(f"  sha256    {info.sha256}")
    print(f"  imported  {info.imported_at} from {shown(info.source)}")
    print(f"  used by   {', '.join(users) or 'no board'}")
    if profiles is not None:
        print(f"  profiles  {', '.join(profiles) or 'none'}")
    if info.lost:
        print(f"  lost      {_lost(info)}")
    return Exit.OK


def verify(folder: Path, name: str, *, as_json: bool) -> int:
    """Read a root whole and compare it with what was imported.

    Raises:
        CliError: there is none of that name, or it cannot be read.
    """
    check_id("root", name)
    with _told(), bar(hidden=as_json) as progress:
        store = RootStore(folder)
        info = store.info(name)
        found = store.verify(name, lambda read: progress(f"verify {name}", read, info.size_bytes))
    if as_json:
        print(json.dumps({"name": name, "ok": not found, "differences": found}))
    else:
        for line in found[:MAX_DIFFERENCES]:
            print(shown(line))
        more = f", of which {MAX_DIFFERENCES} are shown" if len(found) > MAX_DIFFERENCES else ""
        print(f"{name}: {len(found)} differences{more}" if found else f"{name}: as it was imported, {_words(info)}")
    return Exit.FAILED if found else Exit.OK


def remove(folder: Path, name: str, settings: Path | None, *, as_json: bool) -> int:
    """Remove a root that nobody uses, and give its space back.

    Raises:
        CliError: there is none of that name, or a board or profile uses it.
    """
    check_id("root", name)
    profiles = _profiles(settings, name)
    if profiles:
        raise CliError(Exit.NOT_ALLOWED, f"root {name} is what profile {', '.join(profiles)} boots",
                       "give the profile another root first")  # fmt: skip
    with _told():
        store = RootStore(folder)
        store.remove(name)
        store.empty_trash()
        free = store.free_bytes()
    print(
        json.dumps({"removed": name, "free_bytes": free}) if as_json else f"{name}: removed, {free / 1e9:.1f} GB free"
    )
    return Exit.OK
