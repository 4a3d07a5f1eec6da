"""Fetching by URL against a real origin on loopback that is slow, cut, wrong or gone."""

import asyncio
import contextlib
import hashlib
import os
import re

import pytest

from netboot.fetch_download import FetchLimits
from netboot.fetch_errors import (
    FetchChecksumError,
    FetchNoRoomError,
    FetchRefusedError,
    FetchTooLargeError,
    FetchUnreachableError,
    FetchUrlError,
)
from netboot.file_cache import DISK_RESERVE_BYTES, PART_PREFIX, FileCache
from tests.netboot.http_origin import BIG, Origin

QUICK = FetchLimits(connect_s=2, read_s=0.4, total_s=20, tries=4, pause_s=0.01, max_pause_s=0.02, max_redirects=3)


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
async def origin():
    served = Origin()
    await served.start()
    yield served
    served.gate.set()
    served.server.close()


@pytest.fixture
async def make_cache(tmp_path):
    caches = []

    async def make(limit_bytes=1 << 30, limits=QUICK):
        caches.append(FileCache(tmp_path / "cache", limit_bytes, limits=limits))
        await caches[-1].start()
        return caches[-1]

    yield make
    for cache in caches:
        await cache.stop()


@pytest.fixture
async def cache(make_cache):
    return await make_cache()


def names(tmp_path):
    return {entry.name for entry in (tmp_path / "cache").iterdir()}


async def until(true, deadline_s=60.0):
    async with asyncio.timeout(deadline_s):
        while not true():  # noqa: ASYNC110  # the folder and the origin's list tell nobody
            await asyncio.sleep(0.005)


async def test_a_file_is_fetched_once_and_then_kept_also_over_a_restart(cache, make_cache, origin, tmp_path):
    seen = []
    path = await cache.fetch(origin.url(), sha(BIG), on_progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BIG
    assert names(tmp_path) == {sha(BIG)}
    assert seen[-1] == (len(BIG), len(BIG))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert await cache.fetch(origin.url(), sha(BIG).upper()) == path
    await cache.stop()
    again = await make_cache()
    assert await again.fetch(origin.url(), sha(BIG)) == path
    assert len(origin.requests) == 1


async def test_many_who_ask_cause_one_download(cache, origin):
    origin.script = [origin.waits]
    asking = [asyncio.create_task(cache.fetch(origin.url(), sha(BIG))) for _ in range(20)]
    await until(lambda: origin.requests)
    origin.gate.set()
    paths = await asyncio.gather(*asking)
    assert len(set(paths)) == 1
    assert len(origin.requests) == 1


async def test_an_asker_who_leaves_disturbs_nobody_and_the_last_one_ends_the_download(make_cache, origin, tmp_path):
    cache = await make_cache(limits=FetchLimits(read_s=60))
    origin.script = [origin.waits]
    first, second = (asyncio.create_task(cache.fetch(origin.url(), sha(BIG))) for _ in range(2))
    await until(lambda: origin.requests)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    origin.gate.set()
    assert (await second).read_bytes() == BIG
    other = os.urandom(1000)
    origin.gate.clear()
    third = asyncio.create_task(cache.fetch(origin.url("/other"), sha(other)))
    await until(lambda: len(origin.requests) == 2)
    third.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await third
    await until(lambda: names(tmp_path) == {sha(BIG)}, deadline_s=5)
    assert cache.size_bytes == len(BIG)


async def test_a_cut_download_goes_on_where_it_was(cache, origin):
    origin.script = [origin.cut, origin.cut, origin.whole]
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG
    offsets = [origin.offset(head) for head in origin.requests]
    assert offsets == sorted(set(offsets))
    assert len(offsets) == 3
    assert 'If-Range: "v1"' in origin.requests[1]


async def test_an_origin_without_ranges_sends_all_again(cache, origin):
    async def again(_head, writer):
        await origin.whole("", writer)

    origin.script = [origin.cut, again]
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG


async def test_a_file_that_changed_between_two_tries_is_fetched_afresh(cache, origin):
    new = bytes(reversed(BIG))

    async def changed(head, writer):
        origin.data = new
        await origin.whole(head, writer)

    origin.script = [origin.cut, changed, origin.whole]
    assert (await cache.fetch(origin.url(), sha(new))).read_bytes() == new
    first, second, third = (origin.offset(head) for head in origin.requests)
    assert first == third == 0
    assert second > 0


@pytest.mark.parametrize("fault", ["cut_without_length", "silent", "500", "429", "416", "foreign-range"])
async def test_a_fault_that_passes_is_tried_again(cache, origin, fault, tmp_path):
    faults = {
        "cut_without_length": origin.cut_without_length,
        "silent": origin.silent,
        "500": origin.status("500 Oh no"),
        "429": origin.status("429 Slowly"),
        "416": origin.status("416 No"),
        "foreign-range": origin.status("206 Partial", "Content-Range: bytes 5-9/10"),
    }
    origin.script = [faults[fault], origin.whole]
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG
    origin.script = [faults[fault]]
    with pytest.raises(FetchUnreachableError, match="4 times"):
        await cache.fetch(origin.url("/2"), sha(b"2"))
    assert names(tmp_path) == {sha(BIG)}


async def test_an_origin_that_is_not_there(cache, origin, tmp_path):
    url = origin.url()
    origin.server.close()
    with pytest.raises(FetchUnreachableError):
        await cache.fetch(url, sha(BIG))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "401 Unauthorized", "410 Gone", "204 None"])
async def test_a_refusal_is_not_repeated(cache, origin, status, tmp_path):
    origin.script = [origin.status(status)]
    with pytest.raises(FetchRefusedError, match=status[:3]):
        await cache.fetch(origin.url(), sha(BIG))
    assert len(origin.requests) == 1
    assert names(tmp_path) == set()


async def test_a_wrong_checksum_is_an_error_at_once_and_leaves_nothing(cache, origin, tmp_path):
    with pytest.raises(FetchChecksumError, match=sha(BIG)):
        await cache.fetch(origin.url(), sha(b"another"))
    assert len(origin.requests) == 1
    assert names(tmp_path) == set()
    assert cache.size_bytes == 0


async def test_redirects_are_followed_and_bounded(cache, origin):
    origin.script = [
        origin.status("302 Found", "Location: /there"),
        origin.status("307 x", "Location: /on"),
        origin.whole,
    ]
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG
    assert "GET /there " in origin.requests[1]
    origin.script = [origin.status("301 Moved", "Location: /file")]
    with pytest.raises(FetchRefusedError, match="redirected more than 3"):
        await cache.fetch(origin.url("/loop"), sha(b"loop"))


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "", "http://[bad"])
async def test_a_redirect_to_elsewhere_than_http_is_refused(cache, origin, place):
    origin.script = [origin.status("302 Found", f"Location: {place}"), *[origin.status("302 Found", "Location: ")] * 5]
    with pytest.raises(FetchRefusedError, match="redirected"):
        await cache.fetch(origin.url(), sha(BIG))


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/x", "/etc/passwd", "http:///x", "http://[bad", "data:,x", "unix:///x", ""]
)
async def test_other_urls_are_refused(cache, url):
    with pytest.raises(FetchUrlError):
        await cache.fetch(url, sha(b""))


@pytest.mark.parametrize("checksum", ["", "0" * 63, "g" * 64, "../" + "0" * 61, "md5:" + "0" * 32])
async def test_a_checksum_is_needed(cache, origin, checksum):
    with pytest.raises(FetchUrlError, match="SHA-256"):
        await cache.fetch(origin.url(), checksum)
    assert not origin.requests


async def test_password_and_query_are_in_no_message(cache, origin):
    origin.script = [origin.status("404 Not Found")]
    url = origin.url("/file?key=hush-hush").replace("http://", "http://me:pass-word@")
    with pytest.raises(FetchRefusedError) as caught:
        await cache.fetch(url, sha(BIG))
    assert "Authorization: Basic" in origin.requests[0]
    assert "hush" not in str(caught.value)
    assert "pass-word" not in str(caught.value)


async def test_what_was_used_least_goes_first_and_what_is_held_stays(make_cache, origin, tmp_path):
    cache = await make_cache(limit_bytes=2500)
    files = [os.urandom(1000) for _ in range(4)]

    async def get(number, **more):
        origin.data = files[number]
        return await cache.fetch(origin.url(f"/{number}"), sha(files[number]), **more)

    await get(0)
    await get(1)
    await get(0)  # used again
    await get(2)
    assert names(tmp_path) == {sha(files[0]), sha(files[2])}
    await get(0, holder="boot-1")
    await get(2, holder="boot-1")
    with pytest.raises(FetchNoRoomError, match="boots under way"):
        await get(3)
    cache.release("boot-1")
    await get(3)
    assert names(tmp_path) == {sha(files[2]), sha(files[3])}
    assert cache.size_bytes == 2000


async def test_larger_than_the_cache_or_than_allowed(make_cache, origin, tmp_path):
    small = await make_cache(limit_bytes=1_000_000)
    with pytest.raises(FetchTooLargeError, match="1000000"):
        await small.fetch(origin.url(), sha(BIG))
    await small.stop()
    bounded = await make_cache(limits=FetchLimits(max_file_bytes=2_000_000))

    async def endless(_head, writer):
        origin.say(writer, "200 OK")
        while True:
            writer.write(bytes(100_000))
            await writer.drain()

    origin.script = [endless]
    with pytest.raises(FetchTooLargeError, match="2000000"):
        await bounded.fetch(origin.url(), sha(BIG))
    assert names(tmp_path) == set()


async def test_a_full_disk_is_told_with_sizes(make_cache, origin, tmp_path):
    cache = await make_cache(limit_bytes=1 << 62, limits=FetchLimits(max_file_bytes=1 << 62))
    more_than_any_disk = 1 << 55
    origin.script = [origin.status("200 OK")]

    async def huge(_head, writer):
        origin.say(writer, "200 OK", f"Content-Length: {more_than_any_disk}")
        writer.write(bytes(1000))

    origin.script = [huge]
    with pytest.raises(FetchNoRoomError, match=f"{more_than_any_disk} octets in .* are free.*{DISK_RESERVE_BYTES}"):
        await cache.fetch(origin.url(), sha(BIG))
    assert names(tmp_path) == set()


async def test_a_folder_that_cannot_be_written_is_an_error_of_ours(cache, origin, tmp_path):
    (tmp_path / "cache").rmdir()
    with pytest.raises(FetchNoRoomError):
        await cache.fetch(origin.url(), sha(BIG))


async def test_parts_of_a_killed_agent_are_removed_and_damaged_files_fetched_anew(make_cache, origin, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / f"{PART_PREFIX}7").write_bytes(b"half")
    (folder / sha(BIG)).write_bytes(b"damaged")
    cache = await make_cache()
    assert names(tmp_path) == {sha(BIG)}
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG
    assert names(tmp_path) == {sha(BIG)}


async def test_a_file_that_somebody_removed_is_fetched_again(cache, origin):
    path = await cache.fetch(origin.url(), sha(BIG))
    path.unlink()
    assert (await cache.fetch(origin.url(), sha(BIG))).read_bytes() == BIG
    assert len(origin.requests) == 2


async def test_a_bad_url_of_one_asker_does_not_fail_another(cache, origin):
    origin.script = [origin.waits]

    async def refuse(head, writer):
        await origin.gate.wait()
        if "/bad" in head:
            await origin.status("404 Not Found")(head, writer)
        else:
            await origin.whole(head, writer)

    origin.script = [refuse]
    bad = asyncio.create_task(cache.fetch(origin.url("/bad"), sha(BIG)))
    await until(lambda: origin.requests)
    good = asyncio.create_task(cache.fetch(origin.url("/good"), sha(BIG)))
    await asyncio.sleep(0)
    origin.gate.set()
    assert (await good).read_bytes() == BIG
    with pytest.raises(FetchRefusedError):
        await bad


async def test_stop_ends_what_is_under_way_and_says_so(cache, origin, tmp_path):
    origin.script = [origin.waits]
    asking = asyncio.create_task(cache.fetch(origin.url(), sha(BIG)))
    await until(lambda: origin.requests)
    await cache.stop()
    with pytest.raises(FetchUnreachableError, match="stopped"):
        await asking
    assert names(tmp_path) == set()


async def test_python_s_own_http_server_as_origin(cache, tmp_path):
    import sys

    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "kernel").write_bytes(BIG)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            line = (await server.stdout.readline()).decode()
        url = re.search(r"http://[0-9.:]+/", line)[0]
        assert (await cache.fetch(f"{url}kernel", sha(BIG))).read_bytes() == BIG
        with pytest.raises(FetchRefusedError, match="404"):
            await cache.fetch(f"{url}nothing", sha(b"nothing"))
    finally:
        server.terminate()
        await server.wait()
