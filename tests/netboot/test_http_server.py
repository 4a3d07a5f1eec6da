"""The HTTP boot server over real sockets: what is sent, what is refused, and what junk does."""

import asyncio
import email
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netboot.http_answer import Outcome
from netboot.http_tokens import split_token, token_fits, url_prefix, url_token
from netboot.tftp_process import SendError, SendFile
from tests.netboot.http_boot_bench import Boot

BIG = os.urandom(5_000_000)
SECRET, OTHER_SECRET = "a" * 64, "b" * 64


@pytest.fixture
async def make_boot(tmp_path):
    boots = []

    async def make(**limits):
        boots.append(Boot(tmp_path, **limits))
        boots[-1].port = await boots[-1].server.start()
        return boots[-1]

    yield make
    for boot in boots:
        await boot.server.stop()


@pytest.fixture
async def boot(make_boot):
    return await make_boot()


# --- what is sent ---


async def test_a_file_and_its_headers(boot):
    path = boot.add("kernel", BIG)
    status, headers, body = await boot.get("/kernel")
    assert (status, body) == (200, BIG)
    assert headers["Content-Length"] == str(len(BIG))
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Content-Type"] == "application/octet-stream"
    done = await boot.outcome()
    assert (done.outcome, done.size_bytes, done.number) == (Outcome.WHOLE, len(BIG), boot.asked[0].number)
    assert boot.asked[0].client == "127.0.0.1"
    status, again, body = await boot.get("/kernel", method="HEAD")
    assert (status, body, again["ETag"], again["Content-Length"]) == (200, b"", headers["ETag"], str(len(BIG)))
    assert (await boot.outcome()).outcome is Outcome.HEAD
    status, _, body = await boot.get("/kernel", f"If-None-Match: {headers['ETag']}")
    assert (status, body) == (304, b"")
    assert (await boot.outcome()).outcome is Outcome.HEAD
    status, _, body = await boot.get("/kernel", f"If-Modified-Since: {headers['Last-Modified']}")
    assert (status, body) == (304, b"")
    replacement = path.with_name("new")
    replacement.write_bytes(BIG)
    os.utime(replacement, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    replacement.rename(path)
    _, new, _ = await boot.get("/kernel", method="HEAD")
    assert new["ETag"] != headers["ETag"]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 128 * 1024, 128 * 1024 + 1, 3_000_001])
async def test_sizes(boot, size):
    boot.add("f", BIG[:size])
    status, headers, body = await boot.get("/f")
    assert (status, headers["Content-Length"]) == (200, str(size))
    assert body == BIG[:size]
    assert (await boot.outcome()).outcome is Outcome.WHOLE


async def test_octets_are_for_nobody_s_cache(boot):
    boot.files["/boot.ipxe"] = b"#!ipxe\nboot\n"
    status, headers, body = await boot.get("/boot.ipxe")
    assert (status, body, headers["Cache-Control"]) == (200, b"#!ipxe\nboot\n", "no-store")
    assert headers["Content-Type"].startswith("text/plain")
    status, headers, body = await boot.get("/boot.ipxe", "Range: bytes=2-5")
    assert (status, body, headers["Content-Range"]) == (206, b"ipxe", "bytes 2-5/12")


async def test_types_that_uefi_wants(boot):
    def pe(name, stub=b"MZ"):
        boot.add(name, stub + bytes(58) + (128).to_bytes(4, "little") + bytes(64) + b"PE\0\0" + bytes(100))

    pe("kernel")
    pe("not-a-program", b"XX")
    boot.add("bootx64.efi", b"x")
    boot.add("disk.IMG", b"x")
    types = {}
    for name in ("kernel", "not-a-program", "bootx64.efi", "disk.IMG"):
        types[name] = (await boot.get(f"/{name}", method="HEAD"))[1]["Content-Type"]
    assert types == {
        "kernel": "application/efi",
        "not-a-program": "application/octet-stream",
        "bootx64.efi": "application/efi",
        "disk.IMG": "application/vnd.efi-img",
    }


@pytest.mark.parametrize("span", [(0, 0), (10, 1_999_999), (4_999_999, 4_999_999), (1_000_000, 4_999_999)])
async def test_one_range(boot, span):
    boot.add("f", BIG)
    status, headers, body = await boot.get("/f", f"Range: bytes={span[0]}-{span[1]}")
    assert (status, headers["Content-Range"]) == (206, f"bytes {span[0]}-{span[1]}/{len(BIG)}")
    assert body == BIG[span[0] : span[1] + 1]
    assert (await boot.outcome()).outcome is (Outcome.WHOLE if span[1] == 4_999_999 else Outcome.PART)


async def test_several_ranges(boot):
    boot.add("f", BIG)
    status, headers, body = await boot.get("/f", "Range: bytes=5-6,1000000-1999999,-1")
    assert status == 206
    assert int(headers["Content-Length"]) == len(body)
    whole = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body
    parts = email.message_from_bytes(whole).get_payload()
    assert [part["Content-Range"].split("/")[0] for part in parts] == [
        "bytes 5-6", "bytes 1000000-1999999", "bytes 4999999-4999999",
    ]  # fmt: skip
    assert BIG[1_000_000:2_000_000] in body


async def test_a_range_that_does_not_exist_and_a_failed_precondition(boot):
    boot.add("f", b"12345")
    status, headers, body = await boot.get("/f", "Range: bytes=5-")
    assert (status, headers["Content-Range"], body) == (416, "bytes */5", b"")
    status, _, body = await boot.get("/f", 'If-Match: "other"')
    assert (status, body) == (412, b"")
    status, _, body = await boot.get("/f", "Range: bytes=1-2", 'If-Range: "other"')
    assert (status, body) == (200, b"12345")


async def test_one_connection_serves_many_requests(boot):
    boot.add("f", BIG)
    boot.files["/s"] = b"small"
    last = b"GET /s HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n"
    got = await boot.raw(b"GET /f HTTP/1.1\r\nHost: b\r\n\r\nGET /s HTTP/1.1\r\nHost: b\r\n\r\n" + last)
    assert BIG in got
    assert got.count(b"small") == 2
    assert [done.outcome for done in boot.done] == [Outcome.WHOLE] * 3


# --- refusals ---


@pytest.mark.parametrize(("code", "status"), [(1, 404), (2, 403), (0, 503)])
async def test_refusals_by_the_owner(boot, code, status):
    boot.files["/f"] = SendError(code, "for a reason")
    found, headers, body = await boot.get("/f")
    assert (found, body) == (status, b"for a reason\n")
    assert (headers["Retry-After"] is not None) == (status == 503)
    assert not boot.done


async def test_a_fault_of_the_owner_is_no_end(boot, caplog):
    boot.files["/f"] = ValueError("oops")
    assert (await boot.get("/f"))[0] == 503
    assert "cannot decide" in caplog.text


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "BREW"]
)
async def test_nothing_can_be_written(boot, method):
    path = boot.add("f", b"old")
    got = await boot.raw(f"{method} /f HTTP/1.1\r\nHost: b\r\nContent-Length: 3\r\n\r\nnew".encode())
    assert got.split(b" ")[1] in {b"405", b"400"}
    assert path.read_bytes() == b"old"
    assert not boot.asked


async def test_files_that_cannot_be_sent(boot, tmp_path):
    outside = tmp_path.parent / "outside"
    outside.write_bytes(b"secret")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    expected = {"link": 403, "folder": 403, "fifo": 403, "gone": 404}
    for name, status in expected.items():
        boot.files[f"/{name}"] = SendFile(tmp_path / name)
        found, _, body = await boot.get(f"/{name}")
        assert (found, b"secret" in body) == (status, False)
        done = await boot.outcome()
        assert (done.outcome, done.size_bytes) == (Outcome.FAULT, 0)
        assert done.reason


# --- junk ---

JUNK = [
    b"\r\n\r\n\r\n",
    b"\0" * 1000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET /%ff%fe%zz HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET http://[bad/x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET //etc//passwd HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: -5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" + b"\x81\x05hello",
    b"GET / HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: b\r\nRange: bytes=" + b"9" * 500 + b"-\r\nConnection: close\r\n\r\n",
]


async def test_junk_is_survived_and_fills_no_log(make_boot, caplog):
    boot = await make_boot(idle_s=0.3)
    boot.files["/s"] = b"small"
    for junk in JUNK:
        got = await boot.raw(junk)
        assert b" 200 " not in got[:20], junk
        assert b"root:" not in got
    assert (await boot.get("/s"))[2] == b"small"
    assert caplog.text == ""


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(JUNK), st.sampled_from([b"GET ", b"\r\n", b"/s"]))))
def test_any_octets_are_survived(tmp_path, pieces):
    async def try_them():
        boot = Boot(tmp_path, idle_s=0.1)
        boot.files["/s"] = b"small"
        boot.port = await boot.server.start()
        try:
            await boot.raw(b"".join(pieces))
            assert (await boot.get("/s"))[2] == b"small"
        finally:
            await boot.server.stop()

    asyncio.run(try_them())


# --- tokens ---


async def test_a_boot_s_token_is_taken_out_of_the_path_and_stands_nowhere(boot, caplog):
    caplog.set_level(0)
    token = url_token(SECRET)
    boot.files["/kernel"] = b"it"
    status, _, body = await boot.get(f"{url_prefix(SECRET)}kernel")
    assert (status, body) == (200, b"it")
    question = boot.asked[0]
    assert (question.path, question.token) == ("/kernel", token)
    boot.files["/kernel"] = ValueError("oops")
    await boot.get(f"/boot_{token}/kernel")
    await boot.get(f"/boot_{token}/kernel", method="DELETE")
    await boot.raw(f"GET /boot_{token}/kernel HTTP/1.1\r\nHost: b\r\nbad header\r\n\r\n".encode())
    said = caplog.text + repr(boot.asked) + repr(boot.done) + repr(boot.refused) + json.dumps(boot.server.counters)
    assert token not in said
    assert "/kernel" in said


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("/kernel", (None, "/kernel")),
        ("/", (None, "/")),
        ("/boot_", (None, "/boot_")),
        ("/boot_/kernel", (None, "/boot_/kernel")),
        ("/boot_a", ("a", "/")),
        ("/boot_a/", ("a", "/")),
        ("/boot_AB/k", ("AB", "/k")),
        ("//boot_ab12/y/z", ("ab12", "/y/z")),
        ("/boot_a/\n", ("a", "/\n")),
        ("/boot_ab.scr", (None, "/boot_ab.scr")),
        ("/x/boot_ab/y", (None, "/x/boot_ab/y")),
    ],
)
def test_split_token(path, split):
    assert split_token(path) == split


def test_tokens_fit_their_boot_alone():
    assert token_fits(url_token(SECRET), [OTHER_SECRET, SECRET])
    right = url_token(SECRET)
    for wrong in (
        "",
        "x",
        "\udcff",
        "é",
        url_token(OTHER_SECRET),
        SECRET,
        right[:-1],
        right.upper(),
        url_token("0" * 64),
    ):
        assert not token_fits(wrong, [SECRET])
    assert not token_fits(url_token("0" * 64), [])
    assert SECRET not in url_prefix(SECRET)
