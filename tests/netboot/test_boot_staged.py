"""labgrid's TFTPProvider: its links lead into its cache, and nowhere else."""

import os
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from netboot.boot_disk import on_disk
from netboot.boot_tree import BootTree, Refused, SharedFile, StagedFile, TreeClient
from netboot.profile import BootProfile
from netboot.safe_open import UnsafePathError, open_beneath
from netboot.staged import FoundFile, StagedTree, resolve

PROFILE = BootProfile("p", "arm64", Path("/img/Image"))
B1 = TreeClient("b1", ("52:54:00:77:00:01",), IPv4Address("10.77.0.11"), PROFILE, staged="board-23")
B2 = TreeClient("b2", ("52:54:00:77:00:02",), IPv4Address("10.77.0.12"), PROFILE, staged="b2")
TREE = BootTree({client.address: client for client in (B1, B2)}, staging=True)


@pytest.fixture
def lab(tmp_path):
    """As `labgrid` leaves it after two `stage`s."""
    file = tmp_path / "cache/me" / ("ab" * 32) / "zImage"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"kernel")
    internal = tmp_path / "tftp/board-23"
    internal.mkdir(parents=True)
    (internal / "zImage").symlink_to(file)
    (internal / "plain").write_bytes(b"by hand")
    (tmp_path / "secret").write_bytes(b"s")
    return StagedTree(tmp_path / "tftp", (tmp_path / "cache",))


def content(found):
    folder = os.open(found.root, os.O_RDONLY)
    try:
        fd = open_beneath(folder, str(found.path.relative_to(found.root)))
        with os.fdopen(fd, "rb") as file:
            return file.read()
    finally:
        os.close(folder)


def test_what_was_staged(lab):
    found = resolve(lab, "board-23", "zImage")
    assert found.root == lab.caches[0]
    assert content(found) == b"kernel"
    assert resolve(lab, "board-23", "plain") == FoundFile(lab.root / "board-23/plain", lab.root / "board-23")
    assert resolve(lab, "board-23", "none") is None
    assert resolve(lab, "board-24", "zImage") is None
    assert resolve(lab, "board-23", "plain" + "x" * 100) is None


@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "../../cache/../secret", "../../cache", "."])
def test_links_elsewhere_are_refused(lab, target):
    (lab.root / "board-23/bad").symlink_to(target)
    with pytest.raises(UnsafePathError, match="none of labgrid's caches"):
        resolve(lab, "board-23", "bad")


def test_a_relative_link_into_the_cache(lab):
    inside = (lab.root / "board-23/zImage").readlink().relative_to(lab.root.parent)
    (lab.root / "board-23/rel").symlink_to(Path("../..") / inside)
    assert content(resolve(lab, "board-23", "rel")) == b"kernel"


def test_a_link_in_the_cache_does_not_lead_on(lab):
    """Users write there: what they link to elsewhere is refused where it is opened."""
    (lab.caches[0] / "me/out").symlink_to("/etc/passwd")
    (lab.root / "board-23/on").symlink_to(lab.caches[0] / "me/out")
    found = resolve(lab, "board-23", "on")
    with pytest.raises(UnsafePathError):
        content(found)


def test_a_folder_that_is_a_link(lab):
    (lab.root / "b2").symlink_to(lab.root / "board-23")
    with pytest.raises(UnsafePathError, match="must not be a link"):
        resolve(lab, "b2", "zImage")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0"])
def test_only_plain_names(lab, name):
    for pair in ((name, "zImage"), ("board-23", name)):
        with pytest.raises(UnsafePathError):
            resolve(lab, *pair)


def test_paths_are_absolute():
    with pytest.raises(ValueError, match="absolute"):
        StagedTree(Path("tftp"), ())


async def test_a_board_gets_its_own_staged_files(lab):
    async def get(client, path):
        return await on_disk(TREE.look_up(client.address, path), lab)

    staged = await get(B1, "board-23/zImage")
    assert isinstance(staged, SharedFile)
    assert content(staged) == b"kernel"
    assert await get(B1, "board-23/kernel") == SharedFile(B1, Path("/img/Image"), "kernel")  # not staged: the profile's
    assert isinstance(await get(B1, "zImage"), Refused)
    assert (await get(B2, "board-23/zImage")).reason == "these are another board's files"
    assert (await get(B2, "b2/zImage")).missing
    (lab.root / "board-23/bad").symlink_to("/etc/passwd")
    refused = await get(B1, "board-23/bad")
    assert isinstance(refused, Refused)
    assert not refused.missing
    assert "caches" in refused.reason
    assert await on_disk(StagedFile(B1, "board-23", "zImage", Refused("no", missing=True)), None) == Refused(
        "no", missing=True
    )


async def test_a_profiles_folder_is_looked_at(tmp_path):
    (tmp_path / "fixup4.dat").write_bytes(b"x")
    client = replace(B1, profile=replace(PROFILE, folder=tmp_path))
    tree = BootTree({client.address: client})
    held = await on_disk(tree.look_up(client.address, "fixup4.dat"), None)
    assert held == SharedFile(client, tmp_path / "fixup4.dat", "other", tmp_path)
    for path in ("start4.elf", "fixup4.dat/x", "x" * 127 + "/" + "y" * 127 + "/z"):
        assert (await on_disk(tree.look_up(client.address, path), None)).missing
