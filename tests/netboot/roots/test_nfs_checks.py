"""The doctor's findings, each from what a host says of itself."""

from pathlib import Path

import pytest

from netboot.roots import nfs_checks

MOUNTS = """\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /run rw - tmpfs tmpfs rw
23 21 254:16 / /srv/boards\\040here rw - xfs /dev/vdb rw
24 21 0:44 / /var/lib/docker/merged rw - overlay overlay rw,lowerdir=/a
25 21 254:32 / /var/lib/boardhand rw - ext4 /dev/vdc rw
26 21 0:50 / /export rw - nfs4 server:/export rw
"""
ALL = "CapEff:\t000001ffffffffff\n"
WHOLE = "         0          0 4294967295\n"


@pytest.mark.parametrize(
    ("store", "secrets", "ok", "words"),
    [
        ("/srv/boards here/roots", "/var/lib/boardhand", True, "is on xfs"),
        ("/var/lib/boardhand/roots", "/var/lib/boardhand", False, "shares its file system with /var/lib/boardhand"),
        ("/roots", None, False, "with the rest of the system"),
        ("/run/roots", None, False, "gone with the next start"),
        ("/var/lib/docker/merged/roots", None, False, "overlay, which takes no view"),
        ("/export/roots", None, False, "nfs4, which takes no view"),
    ],
)
def test_where_a_store_may_lie(store, secrets, ok, words):
    findings = nfs_checks.folder(Path(store), None if secrets is None else Path(secrets), MOUNTS)
    assert all(finding.ok for finding in findings) == ok
    assert words in findings[-1].what
    assert ok or findings[-1].advice


@pytest.mark.parametrize(
    ("release", "systems", "ok"),
    [
        ("6.1.0-56-amd64", b"nodev\toverlay\n", True),
        ("4.16.0", b"nodev\toverlay\n", True),
        ("4.15.18", b"nodev\toverlay\n", False),
        ("odd", b"nodev\toverlay\n", False),
        ("6.1.0", b"\text4\n", False),
    ],
)
def test_which_kernel_can_export_an_overlay(release, systems, ok):
    assert nfs_checks.kernel(release, systems).ok == ok


@pytest.mark.parametrize(
    ("status", "ids", "ok", "words"),
    [
        (ALL, WHOLE, True, "may mount"),
        ("CapEff:\t0000000000000000\n", WHOLE, False, "CAP_DAC_READ_SEARCH"),
        ("CapEff:\t000001ffffdfffff\n", WHOLE, False, "CAP_SYS_ADMIN"),
        (ALL, "0 1000 1\n", False, "user namespace"),
        ("", WHOLE, False, "lacks"),
    ],
)
def test_which_rights_are_needed(status, ids, ok, words):
    (finding,) = nfs_checks.capabilities(status, ids)
    assert finding.ok == ok
    assert words in finding.what


def test_nfs_3_needs_rpcbind(tmp_path):
    found = nfs_checks.ganesha_installed("no-ganesha-here", v3=True, rpcbind=tmp_path / "none")
    assert not found[0].ok
    assert "rpcbind" in found[-1].what


def test_whose_mounts_the_kernel_s_server_sees(tmp_path):
    link = tmp_path / "mnt"
    link.symlink_to("mnt:[1]")
    assert "mounts of its own" in nfs_checks.same_mounts(link).what
    assert nfs_checks.same_mounts(Path("/proc/self/ns/mnt")).ok
    assert not nfs_checks.same_mounts(tmp_path / "none").ok
