"""Where packages come from: apt's own sources, and an archive of ours that the real apt reads, or refuses."""

import os
import time

import pytest

from firmware_tools.debian_packages import PackageError
from firmware_tools.image import apt_sources, packages
from firmware_tools.image.recipe import Recipe
from tests.firmware_tools.image_debs import archive, deb, key, served, some

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://one.example/debian
Suites: toy toy-updates other
Components: main contrib
Signed-By: /usr/share/keyrings/x.gpg

Types: deb-src
URIs: http://two.example/debian
Suites: toy
Components: main

Enabled: no
Types: deb
URIs: http://three.example/debian
Suites: toy
Components: main
"""
ONE_LINE = """\
# deb http://four.example/debian toy main
deb [arch=amd64 signed-by=/x.gpg] http://five.example/debian toy-security main non-free # why
deb-src http://six.example/debian toy main
"""


def recipe(**more):
    wanted = {"name": "toy", "arch": "arm64", "suite": "toy", "base": ["served", "systemd"], "client": False, **more}
    return Recipe(**wanted)


def quiet(*_):
    """A `Progress` for those who do not care."""


def test_this_machines_sources_of_the_suite_alone(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/a.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/b.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d/c.list.off").write_text(ONE_LINE)
    text = apt_sources.text_of(recipe(), apt_sources.own(tmp_path), None)
    first, second = text.split("\n\n")
    assert first == (
        "Types: deb\nURIs: http://one.example/debian\nSigned-By: /usr/share/keyrings/x.gpg\nSuites: toy toy-updates\n"
        "Components: main\nArchitectures: arm64"
    )
    assert second == (
        "Types: deb\nURIs: http://five.example/debian\nSigned-By: /x.gpg\nSuites: toy-security\nComponents: main\n"
        "Architectures: arm64\n"
    )
    with pytest.raises(PackageError, match=r"no sources of sid main: name one of Debian's servers by mirror"):
        apt_sources.text_of(recipe(suite="sid"), apt_sources.own(tmp_path), None)
    assert apt_sources.text_of(recipe(suite=None), [], None) is None


def test_a_mirror_at_a_day_of_the_past(tmp_path):
    (tmp_path / "k.gpg").touch()
    wanted = recipe(mirror="http://x/debian", security_mirror="http://x/s", snapshot="2025-06-01T02:00:00+02:00")
    text = apt_sources.text_of(wanted, [], tmp_path / "k.gpg")
    assert "URIs: http://x/debian/20250601T000000Z\nSuites: toy\n" in text
    assert "URIs: http://x/s/20250601T000000Z\nSuites: toy-security\n" in text
    assert text.count("Check-Valid-Until: no") == text.count(f"Signed-By: {tmp_path}/k.gpg") == 2
    with pytest.raises(PackageError, match="install debian-archive-keyring"):
        apt_sources.text_of(wanted, [], tmp_path / "none.gpg")


def test_a_signed_archive_is_fetched_once_and_a_strangers_never(tmp_path):
    mine, other = key(tmp_path / "mine"), key(tmp_path / "other")
    debs = tmp_path / "debs"
    debs.mkdir()
    archive(tmp_path / "www", some(debs), key_home=tmp_path / "mine")
    with served(tmp_path / "www") as address:
        wanted = recipe(mirror=address)
        with pytest.raises(PackageError, match=r"not signed|public key"):
            packages.fetch(wanted, packages.place(wanted, tmp_path / "cache", other), quiet)
        where = packages.place(wanted, tmp_path / "cache", mine)
        with pytest.raises(PackageError, match="no package nothing-like-it for arm64"):
            packages.fetch(recipe(mirror=address, packages=["nothing-like-it"]), where, quiet)
        first = packages.fetch(wanted, where, quiet)
        # A newer version is for those who ask for it.
        (tmp_path / "www").rename(tmp_path / "old")
        newer = [*sorted(debs.glob("*.deb"))[:2], deb(debs, "systemd", {"usr/lib/new": "1"}, version="2.0")]
        archive(tmp_path / "www", newer, key_home=tmp_path / "mine")
        for path in (tmp_path / "www").rglob("*"):
            os.utime(path, (time.time() + 60,) * 2)  # HTTP tells of whole seconds only
        assert packages.fetch(wanted, where, quiet) == first
        updated = packages.fetch(wanted, where, quiet, update=True)
    assert [path.name for path in updated.files][2] == "systemd_2.0_all.deb"
    names = [path.name for path in first.files]
    assert names == ["base-files_1.0_all.deb", "served_1.0_all.deb", "systemd_1.0_all.deb"]  # a dependency among them
    # Without the server: the same from the cache. One that was changed on the disk is not taken, and cannot be had.
    assert packages.fetch(wanted, where, quiet) == updated
    first.files[1].write_bytes(first.files[1].read_bytes()[:-1] + b"x")
    with pytest.raises(PackageError, match="update"):
        packages.fetch(wanted, where, quiet)
    with served(tmp_path / "www") as address:
        again = recipe(mirror=address)
        assert packages.fetch(again, packages.place(again, tmp_path / "cache", mine), quiet).sha256 == updated.sha256


def test_an_unsigned_archive_and_a_package_that_is_not_what_is_listed(tmp_path):
    debs = tmp_path / "debs"
    debs.mkdir()
    made = some(debs)
    archive(tmp_path / "unsigned", made)
    mine = key(tmp_path / "mine")
    archive(tmp_path / "www", made, key_home=tmp_path / "mine")
    changed = tmp_path / "www/pool" / made[1].name
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    for folder, words in (("unsigned", "not signed"), ("www", "(?i)hash sum mismatch|unexpected size")):
        with served(tmp_path / folder) as address:
            wanted = recipe(mirror=address)
            where = packages.place(wanted, tmp_path / "cache", mine)
            with pytest.raises(PackageError, match=words):
                packages.fetch(wanted, where, quiet)


def test_a_server_that_is_not_there(tmp_path):
    mine = key(tmp_path / "mine")
    with served(tmp_path) as address:
        pass
    wanted = recipe(mirror=address)
    with pytest.raises(PackageError, match=r"Could not connect|Failed to fetch|Some index files"):
        packages.fetch(wanted, packages.place(wanted, tmp_path / "cache", mine), quiet)


def test_a_download_goes_on_where_it_was_cut(tmp_path):
    """As after a power cut in the middle of a large package: what is there is not fetched again."""
    mine = key(tmp_path / "mine")
    (tmp_path / "debs").mkdir()
    large = deb(tmp_path / "debs", "large", {"usr/lib/large": os.urandom(1 << 20).hex()})
    archive(tmp_path / "www", [large], key_home=tmp_path / "mine")
    log = []
    with served(tmp_path / "www", log) as address:
        wanted = recipe(mirror=address, base=["large"])
        where = packages.place(wanted, tmp_path / "cache", mine)
        partial = where.folder / "cache/archives/partial"
        partial.mkdir(parents=True)
        data = large.read_bytes()
        (partial / large.name).write_bytes(data[: len(data) // 2])
        when = (tmp_path / "www/pool" / large.name).stat().st_mtime
        os.utime(partial / large.name, (when, when))
        packages.fetch(wanted, where, quiet)
    asked = [header for path, header in log if path.endswith(large.name)]
    assert asked == [f"bytes={len(data) // 2}-"]
