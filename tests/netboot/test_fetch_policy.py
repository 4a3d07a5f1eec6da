"""From where may be fetched: lists of places, addresses behind names and redirects, files without a checksum."""

import asyncio
import hashlib
import json
import os
import ssl
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver
from yarl import URL

from netboot.fetch_download import FetchLimits
from netboot.fetch_errors import FetchForbiddenError, FetchRefusedError, FetchUnreachableError, FetchUrlError
from netboot.fetch_policy import AllowedPlace, FetchPolicy, ForbiddenAddressError, GuardedResolver, objection
from netboot.file_cache import FileCache
from tests.netboot.http_origin import BIG, Origin

QUICK = FetchLimits(connect_s=2, read_s=0.4, total_s=20, tries=3, pause_s=0.01, max_pause_s=0.02)
SHA = hashlib.sha256(BIG).hexdigest()


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

    async def make(limit_bytes=1 << 30, **policy):
        policy["allow"] = tuple(AllowedPlace(URL(place)) for place in policy.get("allow", ()))
        caches.append(FileCache(tmp_path / "cache", limit_bytes, limits=QUICK, policy=FetchPolicy(**policy)))
        await caches[-1].start()
        return caches[-1]

    yield make
    for cache in caches:
        await cache.stop()


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("93.184.215.14", False),
        ("10.0.0.1", False),  # a laboratory's own server has such an address
        ("192.168.1.1", False),
        ("fd00::1", False),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", False),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("0.0.0.0", True),
        ("0.1.2.3", True),
        ("169.254.169.254", True),
        ("168.63.129.16", True),
        ("100.100.100.200", True),
        ("224.0.0.1", True),
        ("255.255.255.255", True),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("ff02::1", True),
        ("fd00:ec2::254", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("::127.0.0.1", True),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("64:ff9b::5db8:d70e", False),
        ("2002:7f00:1::", True),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", True),  # Teredo, for 127.0.0.1
    ],
)
def test_addresses(address, forbidden):
    assert (objection(ip_address(address)) is not None) is forbidden


@pytest.mark.parametrize(
    ("place", "url", "covered"),
    [
        ("https://files.lab/boards", "https://files.lab/boards", True),
        ("https://files.lab/boards", "https://files.lab/boards/a/b?x=1", True),
        ("https://files.lab/boards/", "https://files.lab/boards/a", True),
        ("https://files.lab", "https://files.lab/x", True),
        ("https://FILES.lab:443/boards", "https://files.lab/boards/a", True),
        ("https://files.lab/boards", "https://files.lab/boards-of-others/a", False),
        ("https://files.lab/boards", "https://files.lab/boards/../private", False),
        ("https://files.lab/boards", "https://files.lab/boards/..%2fprivate", False),
        ("https://files.lab/boards", "https://files.lab/boards/%2e%2e%2fprivate", False),
        ("https://files.lab/boards", "https://files.lab/boards/..\\private", False),
        ("https://files.lab/boards", "http://files.lab/boards/a", False),
        ("https://files.lab/boards", "https://files.lab:8443/boards/a", False),
        ("https://files.lab/boards", "https://files.lab.evil.example/boards/a", False),
        ("https://files.lab/boards", "https://files.lab@evil.example/boards/a", False),
        ("https://files.lab/boards", "https://user:word@files.lab/boards/a", True),
    ],
)
def test_places(place, url, covered):
    assert AllowedPlace(URL(place)).covers(URL(url)) is covered


@pytest.mark.parametrize(
    "place", ["ftp://a/", "files.lab/x", "https://", "https://a:b@c/", "https://a/?x=1", "https://a/x/..%2f", "/x"]
)
def test_what_is_no_place(place):
    with pytest.raises(ValueError, match=r"URL|without user|path"):
        AllowedPlace(URL(place))


LOOPBACK = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://127.000.000.001:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f.1:{port}/",
    "http://0:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://localhost:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
]


@pytest.mark.parametrize("url", LOOPBACK)
async def test_nothing_is_asked_of_this_host_unless_it_is_allowed(make_cache, origin, url):
    cache = await make_cache()
    with pytest.raises(FetchForbiddenError, match="allow"):
        await cache.fetch(url.format(port=origin.port), SHA)
    assert origin.requests == []


async def test_what_is_allowed_may_be_here(make_cache, origin):
    cache = await make_cache(allow=[origin.url("/boards")])
    assert (await cache.fetch(origin.url("/boards/a"), SHA)).read_bytes() == BIG
    assert (await cache.fetch(origin.url("/boards/b"), SHA)).name == SHA
    assert len(origin.requests) == 1
    with pytest.raises(FetchForbiddenError, match=r"\[netboot\.fetch\] allow"):
        await cache.fetch(origin.url("/private"), SHA)  # although it is in the cache
    assert len(origin.requests) == 1


@pytest.mark.parametrize(
    "place", ["/private", "/boards/../private", "/boards/..%2fprivate", "http://localhost:{port}/"]
)
async def test_a_redirect_goes_only_where_it_may(make_cache, origin, place):
    cache = await make_cache(allow=[origin.url("/boards")])
    origin.script = [origin.status("302 Found", f"Location: {place.format(port=origin.port)}"), origin.whole]
    with pytest.raises(FetchForbiddenError):
        await cache.fetch(origin.url("/boards/a"), SHA)
    assert len(origin.requests) == 1


async def test_a_redirect_within_what_is_allowed_is_followed(make_cache, origin):
    cache = await make_cache(allow=[origin.url("/boards")])
    origin.script = [origin.status("302 Found", "Location: ../boards/b"), origin.whole]
    assert (await cache.fetch(origin.url("/boards/a"), SHA)).read_bytes() == BIG


class Names(AbstractResolver):
    """Answers one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def resolve(self, host, port=0, family=0):
        return [
            {"hostname": host, "host": text, "port": port, "family": family, "proto": 0, "flags": 0}
            for text in self.answers.pop(0)
        ]

    async def close(self):
        self.answers = []


async def test_a_name_is_judged_each_time_by_what_it_stands_for():
    resolver = GuardedResolver(Names(["10.1.1.1"], ["127.0.0.1"], ["127.0.0.1", "10.1.1.2", "fe80::1%eth0"], []))
    assert [found["host"] for found in await resolver.resolve("files.lab")] == ["10.1.1.1"]
    with pytest.raises(ForbiddenAddressError, match=r"127\.0\.0\.1: it is this host itself"):
        await resolver.resolve("files.lab")
    assert [found["host"] for found in await resolver.resolve("files.lab")] == ["10.1.1.2"]
    with pytest.raises(ForbiddenAddressError, match="has no address"):
        await resolver.resolve("files.lab")
    await resolver.close()


INSIDE = """
import asyncio, hashlib, json, sys
from pathlib import Path
from urllib.parse import unquote
from netboot.fetch_download import FetchLimits
from netboot.fetch_errors import FetchError
from netboot.fetch_policy import FetchPolicy
from netboot.file_cache import FileCache

DATA = b"a kernel" * 1000
SHA = hashlib.sha256(DATA).hexdigest()

async def client(reader, writer):
    asked = unquote((await reader.readuntil(b"\\r\\n\\r\\n")).split()[1].decode())
    seen.append(asked)
    if asked == "/file":
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(DATA) + DATA)
    else:
        place = f"http://{asked[1:]}:{port}/file"
        head = ["HTTP/1.1 302 Found", f"Location: {place}", "Content-Length: 0", "Connection: close", "", ""]
        writer.write("\\r\\n".join(head).encode())
    await writer.drain()
    writer.close()

async def main():
    global port
    server = await asyncio.start_server(client, ["10.77.9.1", "127.0.0.1", "::1"], 8080)
    port = 8080
    cache = FileCache(Path(sys.argv[1]), 1 << 20, limits=FetchLimits(tries=2, connect_s=1), policy=FetchPolicy())
    await cache.start()
    for place in ("10.77.9.1", "127.0.0.1", "[::1]", "localhost", "127.1", "10.77.9.2"):
        try:
            said = (await cache.fetch(f"http://10.77.9.1:{port}/{place}", SHA)).name == SHA
            Path(sys.argv[1], SHA).unlink()
        except FetchError as error:
            said = type(error).__name__
        print(json.dumps([place, said, seen[:]]), flush=True)
        seen.clear()
    await cache.stop()
    server.close()

seen = []
asyncio.run(main())
"""


async def test_an_origin_elsewhere_cannot_send_us_to_ourselves(tmp_path):
    """In a namespace, where an address that is not loopback can be had. Needs root."""
    name = f"bh-{os.getpid()}-f"
    script = tmp_path / "inside.py"
    script.write_text(INSIDE)

    def run(*command):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "addr", "add", "10.77.9.1/32", "dev", "lo")
        said = run("ip", "netns", "exec", name, sys.executable, str(script), str(tmp_path / "cache"))
    finally:
        run("ip", "netns", "del", name)
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[0] == ["10.77.9.1", True, ["/10.77.9.1", "/file"]]
    for place, outcome, seen in lines[1:5]:
        assert (place, outcome, seen) == (place, "FetchForbiddenError", [f"/{place}"])
    assert lines[5][1] == "FetchUnreachableError"


async def test_a_checksum_is_needed_unless_the_policy_says_otherwise(make_cache, origin):
    strict = await make_cache(allow=[origin.url()])
    with pytest.raises(FetchUrlError, match="SHA-256"):
        await strict.fetch(origin.url(), None)
    assert origin.requests == []


async def test_without_a_checksum_it_is_what_is_there_now(make_cache, origin):
    cache = await make_cache(allow=[origin.url("/")], without_checksum=True)
    first = await cache.fetch(origin.url(), None, holder="pi")
    assert (first.name, first.read_bytes()) == (SHA, BIG)
    origin.data = b"another kernel"
    second = await cache.fetch(origin.url(), None)
    assert second.read_bytes() == b"another kernel"
    assert first.read_bytes() == BIG
    assert await cache.fetch(origin.url(), SHA) == first
    assert len(origin.requests) == 2


async def test_without_a_checksum_many_who_ask_cause_one_download_that_nobody_drops(make_cache, origin):
    cache = await make_cache(len(BIG) + 100, allow=[origin.url("/")], without_checksum=True)
    origin.script = [origin.waits]
    asking = [asyncio.create_task(cache.fetch(origin.url(), None, holder=f"board{n}")) for n in range(10)]
    async with asyncio.timeout(60):
        while not origin.requests:  # noqa: ASYNC110  # the origin tells nobody
            await asyncio.sleep(0.005)
    origin.gate.set()
    assert {path.name for path in await asyncio.gather(*asking)} == {SHA}
    assert len(origin.requests) == 1


async def test_without_a_checksum_a_cut_download_goes_on_only_where_it_is_the_same_file(make_cache, origin):
    cache = await make_cache(allow=[origin.url("/")], without_checksum=True)
    origin.script = [origin.cut, origin.whole]
    assert (await cache.fetch(origin.url(), None)).read_bytes() == BIG
    assert 'If-Range: "v1"' in origin.requests[1]

    async def cut_nameless(_head, writer):
        origin.say(writer, "200 OK", f"Content-Length: {len(origin.data)}")
        writer.write(origin.data[:1_200_000])
        await writer.drain()

    origin.requests.clear()
    origin.data = bytes(reversed(BIG))
    origin.script = [cut_nameless, origin.whole]
    assert (await cache.fetch(origin.url(), None)).read_bytes() == origin.data
    assert "Range:" not in origin.requests[1]


async def test_without_a_checksum_and_a_length_nobody_knows_the_end(make_cache, origin, tmp_path):
    cache = await make_cache(allow=[origin.url("/")], without_checksum=True)
    origin.script = [origin.cut_without_length]
    with pytest.raises(FetchRefusedError, match="SHA-256 is needed"):
        await cache.fetch(origin.url(), None)
    assert list((tmp_path / "cache").iterdir()) == []


async def test_a_chunked_answer_that_is_cut_is_no_file(make_cache, origin):
    cache = await make_cache(allow=[origin.url("/")], without_checksum=True)

    async def cut(_head, writer):
        origin.say(writer, "200 OK", "Transfer-Encoding: chunked")
        writer.write(b"5\r\nhello\r\n")
        await writer.drain()

    async def whole(_head, writer):
        await cut(_head, writer)
        writer.write(b"0\r\n\r\n")

    origin.script = [cut]
    with pytest.raises(FetchUnreachableError):
        await cache.fetch(origin.url(), None)
    origin.requests.clear()
    origin.script = [cut, whole]
    assert (await cache.fetch(origin.url(), None)).read_bytes() == b"hello"


async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(make_cache, origin, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = await asyncio.start_server(origin.client, "127.0.0.1", 0, ssl=context)
    place = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
    cache = await make_cache(allow=[place])
    with pytest.raises(FetchRefusedError, match="certificate"):
        await cache.fetch(place + "kernel", SHA)
    assert origin.requests == []
    server.close()
