"""RFC 9110 sections 13 and 14 as a table, and by hypothesis against slices."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.http_ranges import (
    MAX_RANGES,
    ByteRange,
    RangeNotSatisfiableError,
    Validators,
    http_date,
    multipart,
    precondition,
    wanted_ranges,
)

AT = 1_700_000_000
NOW = formatdate(AT, usegmt=True)
OLDER, NEWER = formatdate(AT - 1, usegmt=True), formatdate(AT + 1, usegmt=True)
VERSION = Validators('"v1"', AT)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-9999", [(0, 100)]),
        ("bytes=99-", [(99, 1)]),
        ("bytes=-1", [(99, 1)]),
        ("bytes=-1000", [(0, 100)]),
        ("BYTES = 0-4", [(0, 5)]),
        ("bytes=0-0, 50-59 ,,-1", [(0, 1), (50, 10), (99, 1)]),
        ("bytes=200-, 5-6", [(5, 2)]),
        ("bytes=0-99,0-99", None),  # overlapping: the whole costs less
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(MAX_RANGES + 1)), None),
        ("bytes=" + "1" * 2000, None),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=a-b", None),
        ("bytes=1-2-3", None),
        ("bytes=+1-2", None),
        ("bytes=\u0661-\u0662", None),
        ("bytes=0x1-2", None),
        ("lines=1-2", None),
        ("bytes 0-5", None),
        ("", None),
    ],
)
def test_ranges(header, found):
    ranges = wanted_ranges({"Range": header}, VERSION, 100)
    assert ranges == (None if found is None else [ByteRange(*pair) for pair in found])


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=100-200,300-", 100), ("bytes=-0", 100), ("bytes=0-", 0)]
)
def test_ranges_that_do_not_exist(header, size):
    with pytest.raises(RangeNotSatisfiableError):
        wanted_ranges({"Range": header}, VERSION, size)


@pytest.mark.parametrize(
    ("if_range", "holds"),
    [
        ('"v1"', True),
        (' "v1" ', True),
        ('"v2"', False),
        ('W/"v1"', False),
        (NOW, True),
        (OLDER, False),
        (NEWER, False),
        ("junk", False),
        ("", False),
    ],
)
def test_if_range(if_range, holds):
    found = wanted_ranges({"Range": "bytes=1-2", "If-Range": if_range}, VERSION, 100)
    assert found == ([ByteRange(1, 2)] if holds else None)


@pytest.mark.parametrize(
    ("headers", "judged"),
    [
        ({}, "go-on"),
        ({"If-None-Match": '"v1"'}, "not-modified"),
        ({"If-None-Match": 'W/"v1"'}, "not-modified"),
        ({"If-None-Match": '"v0", "v1"'}, "not-modified"),
        ({"If-None-Match": "*"}, "not-modified"),
        ({"If-None-Match": '"v2"'}, "go-on"),
        ({"If-None-Match": '"v2"', "If-Modified-Since": NEWER}, "go-on"),
        ({"If-Modified-Since": NOW}, "not-modified"),
        ({"If-Modified-Since": OLDER}, "go-on"),
        ({"If-Modified-Since": "junk"}, "go-on"),
        ({"If-Match": '"v1"'}, "go-on"),
        ({"If-Match": "*"}, "go-on"),
        ({"If-Match": 'W/"v1"'}, "failed"),
        ({"If-Match": '"v2"'}, "failed"),
        ({"If-Match": '"v1"', "If-Unmodified-Since": OLDER}, "go-on"),
        ({"If-Unmodified-Since": NOW}, "go-on"),
        ({"If-Unmodified-Since": OLDER}, "failed"),
        ({"If-Match": '"v1"', "If-None-Match": '"v1"'}, "not-modified"),
    ],
)
def test_preconditions(headers, judged):
    assert precondition(headers, VERSION) == judged


def test_octets_without_a_date():
    undated = Validators('"v1"')
    assert undated.last_modified is None
    assert precondition({"If-Modified-Since": NEWER, "If-Unmodified-Since": OLDER}, undated) == "go-on"
    assert wanted_ranges({"Range": "bytes=1-2", "If-Range": NOW}, undated, 100) is None


@given(st.text())
def test_any_text_is_a_date_or_none(text):
    assert http_date(text) is None or isinstance(http_date(text), int)


@given(st.text(), st.text(), st.integers(0, 2**40))
def test_any_header_gives_ranges_inside_or_a_refusal(text, other, size):
    headers = {"Range": f"bytes={text}", "If-Range": other, "If-None-Match": text, "If-Modified-Since": other}
    precondition(headers, VERSION)
    for header in (headers, {"Range": f"bytes={text}"}):
        try:
            found = wanted_ranges(header, VERSION, size)
        except RangeNotSatisfiableError:
            continue
        assert found is None or all(0 <= r.offset < r.offset + r.count <= size for r in found)


_spec = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.integers(0, 60).map("{}-".format),
    st.integers(0, 60).map("-{}".format),
)


@given(st.lists(_spec, min_size=1, max_size=5), st.binary(max_size=50))
def test_ranges_are_what_slices_are(specs, data):
    expected = []
    for spec in specs:
        first, last = spec.split("-")
        if not first:
            piece = data[-int(last) :] if int(last) else b""
        else:
            piece = data[int(first) : int(last) + 1 if last else None]
        if piece:
            expected.append(piece)
    try:
        found = wanted_ranges({"Range": "bytes=" + ",".join(specs)}, VERSION, len(data))
    except RangeNotSatisfiableError:
        assert expected == []
        return
    if found is None:
        assert len(expected) > 1
        assert sum(map(len, expected)) > len(data)
    else:
        assert [data[r.offset : r.offset + r.count] for r in found] == expected


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 50)), min_size=2, max_size=8))
def test_a_multipart_body_is_as_long_as_it_says(pairs):
    parts, length = multipart([ByteRange(*pair) for pair in pairs], 1000, "application/efi", "x" * 32)
    assert sum(len(part.text) + (part.span.count if part.span else 0) for part in parts) == length
    assert sum(part.span is not None for part in parts) == len(pairs)
