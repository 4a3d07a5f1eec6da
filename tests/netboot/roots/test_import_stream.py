"""The reader of tar archives against Python's and GNU tar: what we judge is what they would write."""

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netboot.roots.errors import RootError, UnsafeSourceError
from netboot.roots.images import table
from netboot.roots.path_guard import PathGuard, Rights, clean
from netboot.roots.sources import kind_of
from netboot.roots.tar_stream import Member, TarStream

ALL = Rights(owners=True, devices=True, attributes=True, uid=0, gid=0)
TIMEOUT_S = 60.0
names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]) | st.sampled_from("\udcff\udc80"),
    min_size=1, max_size=60,
).filter(lambda name: name not in {".", ".."})  # fmt: skip
paths = st.lists(names, min_size=1, max_size=5).map("/".join)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])


@st.composite
def members(draw):
    kind = draw(kinds)
    info = tarfile.TarInfo(draw(paths))
    info.type = kind
    info.linkname = draw(paths) if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**31))
    content = draw(st.binary(max_size=1500)) if kind == tarfile.REGTYPE else b""
    info.size = len(content)
    return info, content


def archive(contents, form):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for info, content in contents:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def passed_on(data, *, guard=None):
    """The members as we see them, and what a writer would get."""
    seen, out = [], io.BytesIO()

    def judge(member: Member) -> str:
        path = guard.admit(member) if guard is not None else member.path
        seen.append((member, path))
        return path

    digests = {}
    TarStream(
        io.BytesIO(data), out, judge, digest=lambda path, size, sha256: digests.__setitem__(path, (size, sha256))
    ).run()
    return seen, out.getvalue(), digests


@given(st.lists(members(), min_size=1, max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_python_writes_is_read_as_it_was_meant(contents, form):
    seen, out, digests = passed_on(archive(contents, form))
    assert [(m.path.rstrip("/"), m.mode, m.uid, m.gid, m.size, m.target) for m, _ in seen] == [
        (info.name, info.mode, info.uid, info.gid, info.size, info.linkname) for info, _ in contents
    ]
    with tarfile.open(fileobj=io.BytesIO(out), encoding="utf-8", errors="surrogateescape") as tar:
        again = tar.getmembers()
    assert [(m.name, m.type, m.size) for m in again] == [(info.name, info.type, info.size) for info, _ in contents]
    assert digests.keys() == {info.name for info, _ in contents if info.type == tarfile.REGTYPE}


@st.composite
def damaged(draw):
    """Archives with octets changed, mostly in headers, some with a checksum that fits again."""
    data = bytearray(archive(draw(st.lists(members(), min_size=1, max_size=4)), draw(
        st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))))  # fmt: skip
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.integers(0, min(12, len(data) // 512 - 1))) * 512
        at = block + draw(st.sampled_from([0, 100, 124, 125, 135, 156, 157, 257, 345, 482, 500]) | st.integers(0, 511))
        data[at] = draw(st.sampled_from(b"\0/.0127SxgLKVA5\x80\xff") | st.integers(0, 255))
        if draw(st.booleans()):
            data[block + 148 : block + 156] = b" " * 8
            data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


def listed_by_gnu_tar(data):
    done = subprocess.run(
        ["tar", "--list", "--absolute-names", "--quoting-style=escape", "-f", "-"],
        input=data, capture_output=True, timeout=TIMEOUT_S, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return done.stdout.decode("ascii").splitlines()


def escaped(path):
    out = []
    for octet in os.fsencode(path):
        char = chr(octet)
        special = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\a": "\\a", "\b": "\\b", "\f": "\\f",
                   "\v": "\\v", "\x7f": "\\177"}  # fmt: skip
        out.append(special.get(char) or (char if 32 <= octet < 127 else f"\\{octet:03o}"))
    return "".join(out)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(damaged())
def test_gnu_tar_never_sees_a_member_that_was_not_judged(data):
    """The heart of it: whatever is in an archive, tar gets exactly the names that were admitted."""
    try:
        seen, out, _ = passed_on(data, guard=PathGuard(ALL))
    except RootError:
        return
    assert [name.rstrip("/") for name in listed_by_gnu_tar(out)] == [
        escaped(member.path).rstrip("/") for member, _ in seen
    ]


@settings(max_examples=300)
@given(st.binary(max_size=3000))
def test_no_octets_are_anything_but_an_error_in_words(data):
    kind_of(data)
    with pytest.raises(RootError):
        passed_on(data + b"\x01")


@settings(max_examples=300)
@given(st.binary(min_size=66, max_size=66), st.binary(max_size=2000))
def test_no_partition_table_does_harm(entries, rest):
    image = bytes(446) + entries[:64] + b"\x55\xaa" + rest
    for number, _, _ in table(lambda at, count: image[at : at + count]):
        assert number >= 1


@given(st.lists(st.tuples(paths, st.sampled_from("ldh")), max_size=12), st.lists(paths, max_size=12))
def test_what_is_admitted_stays_inside(contents, targets):
    guard = PathGuard(ALL)
    for index, (path, kind) in enumerate(contents):
        target = targets[index] if index < len(targets) else "../" * index + "x"
        try:
            admitted = guard.admit(Member(path, kind, 0o755, 0, 0, 0, target, (0, 0), ()))
        except UnsafeSourceError:
            continue
        assert clean(admitted) == admitted
        assert not any(
            "/".join(admitted.split("/")[:depth]) in guard.links for depth in range(1, admitted.count("/") + 1)
        )
