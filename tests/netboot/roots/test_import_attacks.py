"""Archives that mean harm: refused before anything of it is written, and nothing is left."""

import gzip
import io
import os
import tarfile

import pytest

from netboot.roots.errors import RootError, SourceError, UnsafeSourceError
from netboot.roots.import_errors import SourceTooLargeError
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.path_guard import PathGuard, Rights
from netboot.roots.store import RootStore
from netboot.roots.tar_stream import Member

ALL = Rights(owners=True, devices=True, attributes=True, uid=0, gid=0)
MAY_LOSE = ImportOptions(lossy=os.geteuid() != 0)
"""Without root, the owner that these archives name cannot be kept, and that is not what these tests are about."""
KINDS = {"f": tarfile.REGTYPE, "d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "c": tarfile.CHRTYPE}


@pytest.fixture
def store(tmp_path):
    return RootStore(tmp_path / "store")


def member(name, kind="f", target="", content=b"x", device=(0, 0), **pax):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = KINDS[kind], target, pax
    info.devmajor, info.devminor = device
    info.mode = 0o755
    info.size = len(content) if kind == "f" else 0
    return info.tobuf(tarfile.PAX_FORMAT) + (content + bytes(-len(content) % 512) if kind == "f" else b"")


def patched(block, at, data):
    """A header with other octets in it and a checksum that fits."""
    changed = bytearray(block)
    changed[at : at + len(data)] = data
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


def pax_block(kind, *records):
    body = b""
    for key, value in records:
        record = b" " + key + b"=" + value + b"\n"
        length = len(record)
        while len(str(length)) + len(record) != length:
            length = len(str(length)) + len(record)
        body += str(length).encode() + record
    info = tarfile.TarInfo("pax")
    info.type, info.size = kind, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)


END = bytes(1024)
FILE = member("inside")
HIDDEN = member("../out")
UNSAFE = {
    "upwards": [member("../out")],
    "upwards-inside": [member("a/../../out")],
    "absolute": [member("/out")],
    "absolute-by-pax": [pax_block(b"x", (b"path", b"/out")), FILE],
    "absolute-by-gnu": [patched(member("n", content=b"/out" + bytes(8)), 156, b"L"), FILE],
    "through-an-absolute-link": [member("link", "l", "/tmp"), member("link/out")],  # noqa: S108
    "through-a-relative-link": [member("link", "l", "../.."), member("link/out")],
    "through-a-chain": [member("a", "l", "b"), member("b", "l", ".."), member("a/out")],
    "through-a-ring": [member("a", "l", "b"), member("b", "l", "a"), member("a/out")],
    "through-a-hard-link-to-a-link": [
        member("a", "l", "/tmp"), member("b", "h", "a"), member("b/out"),  # noqa: S108
    ],
    "a-folder-through-a-link": [member("link", "l", ".."), member("link/out", "d")],
    "hard-link-upwards": [member("a", "h", "../../../../etc/passwd")],
    "hard-link-absolute": [member("a", "h", "/etc/passwd")],
    "hard-link-through-a-link": [member("etc", "l", "/etc"), member("a", "h", "etc/passwd")],
    "hard-link-to-nothing": [member("a", "h", ".")],
    "the-root-as-a-link": [member(".", "l", "/tmp")],  # noqa: S108
    "the-root-as-a-file": [member("./")[:0] + patched(member("."), 0, b".\0")],
    "a-whiteout-device": [member("a", "c", device=(0, 0))],
    "an-overlays-attribute": [member("a", **{"SCHILY.xattr.trusted.overlay.redirect": "/etc"})],
    "a-name-too-long": [member("n" * 300)],
    "a-path-too-long": [member("/".join(["n" * 200] * 30))],
    "a-nul-by-pax": [pax_block(b"x", (b"path", b"inside\0/../../out")), FILE],
}  # fmt: skip
DAMAGED = {
    "a-negative-size": [pax_block(b"x", (b"size", b"-512")), FILE],
    "a-size-with-an-underscore": [pax_block(b"x", (b"size", b"0_0")), FILE],
    "a-negative-number-of-gnu": [patched(member("a"), 124, b"\xff" * 12)],
    "no-number": [patched(member("a"), 124, b"zzzzzzzzzzz\0")],
    "a-size-beyond-the-end": [patched(member("a"), 124, b"77777777777\0")],
    "a-huge-header": [patched(member("n"), 124, b"00077777777\0")[:512].replace(b"0ustar", b"xustar")],
    "two-extended-headers": [pax_block(b"x", (b"path", b"a")), pax_block(b"x", (b"path", b"b")), FILE],
    "two-long-names": [patched(member("n", content=b"a\0"), 156, b"L")] * 2 + [FILE],
    "a-long-name-without-an-end": [
        patched(patched(member("n", content=b"abc/x"), 156, b"L"), 124, b"00000000003\0"),
        FILE,
    ],
    "a-global-path": [pax_block(b"g", (b"path", b"../out")), FILE],
    "headers-without-end": [pax_block(b"g", (b"comment", b"x"))] * 600 + [FILE],
    "keys-without-end": [pax_block(b"g", *((b"k%d" % n, b"x") for n in range(1100))), FILE],
    "zeros-behind-the-end": [END, bytes(65 << 20)],
    "an-empty-path": [pax_block(b"x", (b"path", b"")), FILE],
    "a-record-too-long": [pax_block(b"x", (b"path", b"a")).replace(b"9 path", b"99 path"), FILE],
    "a-record-without-an-end": [pax_block(b"x", (b"path", b"ab\n")).replace(b"ab\n\n", b"ab\nX"), FILE],
    "octets-behind-a-link": [patched(member("a", "l", "b"), 124, b"00000001000\0"), bytes(512)[:-1] + b"x"],
    "a-link-with-a-size-by-pax": [pax_block(b"x", (b"size", b"512")), member("a", "l", "b"), HIDDEN],
    "an-unknown-kind": [patched(member("a"), 156, b"M")],
    "a-sparse-file-of-the-wrong-form": [patched(member("a"), 156, b"S")],
    "a-wrong-checksum": [FILE[:148] + b"000000\0 " + FILE[156:]],
    "no-end": [FILE[:-512]],
}


@pytest.mark.parametrize(
    ("error", "blocks"),
    [pytest.param(UnsafeSourceError, blocks, id=name) for name, blocks in UNSAFE.items()]
    + [pytest.param(SourceError, blocks, id=name) for name, blocks in DAMAGED.items()],
)
def test_what_leads_out_or_can_be_read_in_two_ways_is_refused(store, tmp_path, error, blocks):
    path = tmp_path / "evil.tar"
    path.write_bytes(member("first") + b"".join(blocks) + (b"" if blocks == DAMAGED["no-end"] else END))
    with pytest.raises(error):
        RootImport(store, MAY_LOSE).run("evil", path)
    assert store.names() == []
    assert list((store.folder / "incoming").iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.rglob("out*")) == []


def test_a_size_where_no_octets_follow_is_put_right(store, tmp_path):
    """Some old archives state it. GNU tar would skip as many octets, we would not: so it gets a zero."""
    path = tmp_path / "old.tar"
    path.write_bytes(patched(member("link", "l", "there"), 124, b"00000001000\0") + member("there") + END)
    RootImport(store, MAY_LOSE).run("old", path)
    assert (store.tree("old") / "link").read_text() == "x"


def test_links_that_lead_out_are_kept_where_nothing_is_written_through_them(store, tmp_path):
    path = tmp_path / "root.tar"
    path.write_bytes(member("run", "l", "/var/run") + member("up", "l", "../../etc/passwd") + END)
    RootImport(store, MAY_LOSE).run("root", path)
    assert str((store.tree("root") / "run").readlink()) == "/var/run"
    assert str((store.tree("root") / "up").readlink()) == "../../etc/passwd"


def test_a_link_may_be_written_through_where_it_stays_inside(store, tmp_path):
    path = tmp_path / "root.tar"
    path.write_bytes(
        member("usr", "d") + member("usr/lib", "d") + member("lib", "l", "./usr/lib") + member("lib/a") + END
    )
    RootImport(store, MAY_LOSE).run("root", path)
    assert (store.tree("root") / "usr/lib/a").read_bytes() == b"x"
    assert store.verify("root") == []


def sparse(name, length):
    size = str(length).encode()
    header = pax_block(
        b"x",
        *((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")),
        *((b"GNU.sparse.name", name), (b"GNU.sparse.realsize", size)),
    )
    return header + member("GNUSparseFile.0/x", content=b"0\n")


@pytest.mark.parametrize(
    "content",
    [member("zeros", content=bytes(2_000_000)), sparse(b"hole", 10**12), sparse(b"a", 600_000) + sparse(b"b", 600_000)],
    ids=["a-file", "a-hole", "holes-together"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bomb_is_refused_by_what_it_would_become(store, tmp_path, content, packed):
    path = tmp_path / "bomb.tar"
    path.write_bytes(gzip.compress(content + END) if packed else content + END)
    with pytest.raises(SourceTooLargeError, match="--max-size"):
        RootImport(store, ImportOptions(max_bytes=1_000_000, lossy=MAY_LOSE.lossy)).run("bomb", path)
    assert store.names() == []


def test_more_files_than_any_root_has_are_refused():
    guard = PathGuard(ALL, max_entries=1000)
    for number in range(1000):
        guard.admit(Member(f"f{number}", "f", 0o644, 0, 0, 0, "", (0, 0), ()))
    with pytest.raises(SourceTooLargeError, match="more than 1000 files"):
        guard.admit(Member("one-more", "f", 0o644, 0, 0, 0, "", (0, 0), ()))


def test_names_are_data(store, tmp_path):
    """Whatever octets a name has but '/' and NUL: not a shell's, not an option, not a line."""
    names = [
        "-rf",
        "--checkpoint-action=exec=touch x",
        "a\nb",
        "$(touch x)",
        "\udcff\udcfe",
        "é",
        "e\u0301",
        "A",
        "a",
        " ",
    ]
    path = tmp_path / "names.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    RootImport(store, MAY_LOSE).run("names", path)
    assert {entry.name for entry in store.tree("names").iterdir()} == set(names)
    assert store.verify("names") == []


def test_what_is_no_root_is_refused_in_words(store, tmp_path):
    for name, content in {"empty.tar": END * 10, "junk": b"no archive" * 500, "none": b""}.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SourceError, match=name):
            RootImport(store, MAY_LOSE).run("junk", path)
    with pytest.raises(SourceError, match="No such file"):
        RootImport(store, MAY_LOSE).run("junk", tmp_path / "missing")
    with pytest.raises(RootError, match="no name of a root"):
        RootImport(store, MAY_LOSE).run("../x", tmp_path)
