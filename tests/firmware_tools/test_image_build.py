"""A whole image from packages of our own, each form of it judged by the program that others would read it with."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import tarfile

import pytest

from firmware_tools.image.accounts import AccountError
from firmware_tools.image.build import Inputs, build
from firmware_tools.image.packages import Fetched
from firmware_tools.image.recipe import Recipe
from firmware_tools.image.services import ServiceError
from firmware_tools.image.tar_output import OutputError
from tests.firmware_tools.image_debs import deb, some

HASH = "$6$salt$hash"
HOMES = "/home"
FILES = {"lab.hash": f"{HASH}\n".encode(), "lab.pub": b"ssh-ed25519 AAAA lab\n", "bad.hash": b"secret\n"}


def quiet(*_):
    """A `Progress` for those who do not care."""


def run(*command):
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "DEBUGFS_PAGER": "cat"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def make(tmp_path):
    debs = some(tmp_path)

    def made(folder="out", more=(), **recipe):
        files = sorted([*debs, *more])
        sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        wanted = Recipe(**{"name": "toy", "arch": "arm64", "outputs": ("tar",), "size": "32M", **recipe})
        inputs = Inputs(wanted, Fetched(tuple(files), sums), FILES.__getitem__, b"print('client')\n")
        return build(inputs, tmp_path / folder, quiet), tmp_path / folder

    return made


@pytest.fixture
def root(make):
    """The tar of an image with a user and a file."""
    _, folder = make(
        user=[{"name": "lab", "groups": ["dialout"], "password_file": "lab.hash", "ssh_keys": "lab.pub"}],
        file=[{"path": "/etc/motd", "text": "hello\n", "owner": "1000:20", "mode": "0640"}],
    )  # fmt: skip
    with tarfile.open(folder / "toy.tar") as tar:
        yield tar


def text(root, path):
    return root.extractfile(path).read().decode()


def test_the_root_is_a_usr_merged_one_with_links_as_they_were(root):
    names = root.getnames()
    assert len(names) == len(set(names))
    assert root.getmember("bin").linkname == "usr/bin"
    assert {"usr/bin/served", "usr/bin/also"} < set(names)
    assert sorted(root.getmember(f"usr/bin/{name}").linkname for name in ("also", "served")) in (
        ["", "usr/bin/also"], ["", "usr/bin/served"])  # fmt: skip
    assert text(root, "usr/bin/also") == "1"
    seen = set()
    for member in root:
        assert member.name.rpartition("/")[0] in {"", *seen}
        seen.add(member.name)


def test_nothing_in_it_tells_boards_apart(root):
    names = set(root.getnames())
    assert not {"etc/hostname", "var/lib/dbus/machine-id", "var/lib/systemd/random-seed"} & names
    assert not [name for name in names if re.match(r"etc/ssh/ssh_host_", name)]
    assert root.getmember("etc/machine-id").size == 0


def test_manuals_stay_away_and_the_client_starts(root):
    assert "usr/share/doc/served" not in root.getnames()
    assert text(root, "usr/lib/boardhand/client.py") == "print('client')\n"
    wants = "etc/systemd/system/multi-user.target.wants"
    assert root.getmember(f"{wants}/boardhand-client.service").linkname.endswith("/boardhand-client.service")


def test_units_are_on_as_their_scripts_would_have_it(root):
    wants = "etc/systemd/system/multi-user.target.wants"
    assert root.getmember(f"{wants}/served.service").linkname == "/usr/lib/systemd/system/served.service"
    assert root.getmember("etc/systemd/system/also.service").issym()
    assert f"{wants}/served.socket" not in root.getnames()


def test_accounts(root):
    users = {line.split(":")[0]: line.split(":") for line in text(root, "etc/passwd").splitlines()}
    shadow = dict(line.split(":")[:2] for line in text(root, "etc/shadow").splitlines())
    assert users["lab"][2:] == ["1000", "1000", "", f"{HOMES}/lab", "/bin/bash"]
    assert (shadow["lab"], shadow["root"]) == (HASH, "*")
    assert users["_served"][4:6] == ["Served", "/var/lib/served"]
    assert int(users["_served"][2]) < 1000
    assert "dialout:x:20:lab" in text(root, "etc/group").splitlines()
    assert "adm:x:4:_served" in text(root, "etc/group").splitlines()
    assert (root.getmember("etc/shadow").mode, root.getmember("etc/shadow").gid) == (0o640, 42)
    keys = root.getmember("home/lab/.ssh/authorized_keys")
    assert (keys.mode, keys.uid, keys.gid) == (0o600, 1000, 1000)
    motd = root.getmember("etc/motd")
    assert (motd.mode, motd.uid, motd.gid, text(root, "etc/motd")) == (0o640, 1000, 20, "hello\n")


def test_dpkg_and_update_alternatives_go_on_from_there(root, tmp_path):
    root.extractall(tmp_path / "r", filter="tar")
    admin = tmp_path / "r/var/lib/dpkg"
    listed = run("dpkg-query", f"--admindir={admin}", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
    assert listed.splitlines() == ["base-files 1.0 unpacked", "served 1.0 installed", "systemd 1.0 installed"]
    assert "/bin/served" in run("dpkg-query", f"--admindir={admin}", "-L", "served").splitlines()
    conffiles = run("dpkg-query", f"--admindir={admin}", "-W", "-f", "${Conffiles}", "served")
    assert conffiles.strip() == "/etc/served.conf 3253b41059cac6e987c5a5e9233ea5d0"
    assert "served: /etc/served.conf" in run("dpkg-query", f"--admindir={admin}", "-S", "/etc/served.conf")
    audit = run("dpkg", f"--admindir={admin}", "--audit").split("\n\n")[0]
    assert "unpacked but not yet configured" in audit
    assert "base-files" in audit
    assert "served" not in audit
    shown = run(
        "update-alternatives",
        "--admindir",
        admin / "alternatives",
        "--altdir",
        tmp_path / "r/etc/alternatives",
        "--query",
        "editor",
    )
    assert "Value: /usr/bin/small" in shown
    assert root.getmember("etc/alternatives/editor").linkname == "/usr/bin/small"
    assert root.getmember("usr/bin/editor").linkname == "/etc/alternatives/editor"


def test_two_builds_are_the_same_to_the_last_bit(make, monkeypatch):
    outputs = ("tar", "tar.gz", "tar.xz", "tar.zst", "cpio.gz", "ext4", "disk")
    one, _ = make("one", outputs=outputs)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        two, folder = make("two", outputs=outputs)
    finally:
        os.umask(before)
    assert [(path.name, sha) for path, sha in one.files] == [(path.name, sha) for path, sha in two.files]
    assert len(one.files) == len(outputs) + 2
    assert one.source_date_s == 1_700_000_000
    for path, sha in two.files:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha
    assert {path.name for path in folder.iterdir()} == {path.name for path, _ in two.files}


def test_all_forms_of_tar_hold_the_same(make):
    _, folder = make(outputs=("tar", "tar.gz", "tar.xz", "tar.zst"))
    plain = (folder / "toy.tar").read_bytes()
    for program, suffix in (("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")):
        done = subprocess.run(
            [program, "-dc", folder / f"toy.tar.{suffix}"], capture_output=True, check=True, timeout=60
        )
        assert done.stdout == plain
    assert " usr/bin/also link to usr/bin/served" in run(
        "tar", "tvf", folder / "toy.tar"
    ) or " usr/bin/served link to usr/bin/also" in run("tar", "tvf", folder / "toy.tar")


def test_an_initramfs_that_a_foreign_cpio_reads(make, tmp_path):
    _, folder = make(outputs=("cpio.gz",))
    listed = subprocess.run(["busybox", "cpio", "-tv"], input=gzip.decompress((folder / "toy.cpio.gz").read_bytes()),
                            capture_output=True, check=True, timeout=60).stdout.decode()  # fmt: skip
    assert "init -> sbin/init" in listed
    assert "usr/bin/also" in listed
    assert "etc/systemd/network/80-boardhand.network" in listed


def test_a_file_system_that_e2fsprogs_finds_whole(make):
    _, folder = make(
        outputs=("ext4",), file=[{"path": "/etc/with space", "text": "x", "owner": "1000:70000", "mode": "0640"}]
    )
    image = folder / "toy.ext4"
    assert "modified" not in run("e2fsck", "-fn", image).lower()
    told = run("debugfs", "-R", 'stat "/etc/with space"', image)
    assert re.search(r"Mode:\s+0640", told), told
    assert re.search(r"User:\s+1000\s+Group:\s+70000", told), told
    assert re.search(r"mtime: 0x6553f100", told), told
    assert re.search(r"Links: 2", run("debugfs", "-R", "stat /usr/bin/also", image))
    assert run("debugfs", "-R", "cat /usr/bin/also", image).startswith("1")
    assert image.stat().st_blocks * 512 < image.stat().st_size / 4


def test_a_disk_that_sfdisk_and_bmaptool_read(make, tmp_path):
    _, folder = make(outputs=("disk", "ext4"))
    table = json.loads(run("sfdisk", "--json", folder / "toy.img"))["partitiontable"]
    part = table["partitions"][0]
    assert (table["label"], part["type"], part["bootable"], part["start"] * 512) == ("dos", "83", True, 16 << 20)
    with (folder / "toy.img").open("rb") as image:
        image.seek(16 << 20)
        assert image.read() == (folder / "toy.ext4").read_bytes()
    # bmaptool compares the map's own checksum and that of each range with what it reads.
    run("bmaptool", "copy", folder / "toy.img", tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == (folder / "toy.img").read_bytes()
    image = bytearray((folder / "toy.img").read_bytes())
    image[20] ^= 1
    (folder / "toy.img").write_bytes(image)
    with pytest.raises(AssertionError, match="checksum"):
        run("bmaptool", "copy", folder / "toy.img", tmp_path / "disk")


def test_the_manifest(make):
    built, folder = make()
    about = json.loads((folder / "toy.manifest.json").read_text())
    assert [package["name"] for package in about["packages"]] == ["base-files", "served", "systemd"]
    assert about["packages"][1]["purl"] == "pkg:deb/debian/served@1.0?arch=all"
    assert about["scripts_left_to_the_board"] == ["base-files"] == list(built.left_to_the_board)
    assert (about["source_date_epoch"], built.packages) == (1_700_000_000, 3)


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        ({"services_on": ["none.service"]}, ServiceError, "none.service: no package"),
        ({"services_off": ["none.service"]}, ServiceError, "none.service: no package"),
        ({"services_on": ["multi-user.target"]}, ServiceError, "no \\[Install\\]"),
        ({"user": [{"name": "lab", "groups": ["wheel"]}]}, AccountError, "no group wheel; known: _served, adm"),
        ({"user": [{"name": "nobody"}]}, AccountError, "a package has a user"),
        ({"user": [{"name": "a", "uid": 1000}, {"name": "b", "uid": 1000}]}, AccountError, "another user's"),
        ({"user": [{"name": "lab", "password_file": "bad.hash"}]}, AccountError, "no hash of a password"),
        ({"file": [{"path": "/usr/bin", "text": ""}]}, ValueError, "is a folder already"),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_have(make, tmp_path, recipe, error, words):
    with pytest.raises(error, match=words):
        make("out", **recipe)
    assert not list((tmp_path / "out").iterdir())


def test_a_root_that_does_not_fit_is_named(make, tmp_path):
    big = deb(tmp_path, "big", {"usr/lib/big": os.urandom(12 << 20).hex()})
    with pytest.raises(OutputError, match="does not fit: raise size"):
        make(outputs=("ext4",), size="16M", more=[big])


def test_a_masked_unit_and_one_that_is_switched_on(make):
    _, folder = make(services_off=["served.service"], services_on=["served.socket"])
    with tarfile.open(folder / "toy.tar") as tar:
        assert tar.getmember("etc/systemd/system/served.service").linkname == "/dev/null"
        assert "etc/systemd/system/multi-user.target.wants/served.socket" in tar.getnames()
