"""Files as ready packets: octet for octet, bounded, shared, and never a mixture of two states of a file."""

import os
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netboot.tftp_cache import CHUNK_BYTES, FileChangedError, PacketCache
from netboot.tftp_source import Source

OLD = (1_000_000_000, 1_000_000_000)


@pytest.fixture
def make_file(tmp_path):
    opened = []

    def make(data, *, name="f", old=True):
        path = tmp_path / name
        path.write_bytes(data)
        if old:
            os.utime(path, OLD)
        opened.append(os.open(path, os.O_RDONLY))
        return path, opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


def packets_of(cache, file, fd):
    """Every packet, as it would leave."""
    total = file.size // (file.stride - 4) + 1
    for block in range(1, total + 1):
        index, within = divmod(block - 1, file.chunk_blocks)
        view = cache.chunk(file, index, fd)
        yield bytes(view[within * file.stride : (within + 1) * file.stride])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    size=st.one_of(st.integers(0, 3000), st.integers(150_000, 400_000)),
    block=st.sampled_from([8, 9, 512, 1024, 1428, 1468, 8192, 65464]),
    from_memory=st.booleans(),
)
def test_packets_are_the_file(make_file, size, block, from_memory):
    data = os.urandom(size)
    _, fd = make_file(data)
    cache = PacketCache(1 << 20)
    file = cache.open_bytes(data, block) if from_memory else cache.open_file(fd, block)
    packets = list(packets_of(cache, file, fd))
    assert b"".join(packet[4:] for packet in packets) == data
    assert [struct.unpack("!HH", packet[:4]) for packet in packets] == [
        (3, number & 0xFFFF) for number in range(1, len(packets) + 1)
    ]
    assert len(packets[-1]) < 4 + block
    cache.release(file)


@pytest.mark.parametrize(("rollover", "numbers"), [(0, [65534, 65535, 0, 1]), (1, [65534, 65535, 1, 2])])
def test_numbers_after_65535(rollover, numbers):
    cache = PacketCache(1 << 20)
    file = cache.open_bytes(bytes(8 * 140_000), 8, rollover)
    got = [struct.unpack_from("!H", packet, 2)[0] for packet in packets_of(cache, file, -1)]
    assert got[65533:65537] == numbers
    wrap = 65536 - rollover
    assert got[-1] == (140_001 - rollover) % wrap + rollover


def test_transfers_of_one_file_share_its_packets(make_file):
    _, fd = make_file(os.urandom(500_000))
    cache = PacketCache(1 << 20)
    first, second = cache.open_file(fd, 1468), cache.open_file(fd, 1468)
    assert first is second
    assert cache.chunk(first, 0, fd) is cache.chunk(second, 0, fd)
    assert cache.built == 1
    assert cache.open_file(fd, 512) is not first
    cache.release(first)
    cache.release(second)
    assert cache.open_file(fd, 1468) is first  # nobody used it for a while, and it is still here


def test_the_bound_holds_and_the_oldest_goes_first(make_file):
    _, fd = make_file(os.urandom(12_000_000))
    cache = PacketCache(4 * CHUNK_BYTES)
    file = cache.open_file(fd, 1468)
    for index in range(20):
        cache.chunk(file, index, fd)
        cache.chunk(file, 0, fd)
        assert cache.used_bytes <= cache.max_bytes
        assert cache.used_bytes == sum(map(len, file.chunks.values()))
    assert 0 in file.chunks
    assert 1 not in file.chunks
    assert cache.built == 20


def test_nothing_is_left_when_all_is_released(make_file):
    cache = PacketCache(10 * CHUNK_BYTES)
    _, fd = make_file(os.urandom(1_000_000), old=False)  # young: not shared
    file = cache.open_file(fd, 1468)
    cache.chunk(file, 1, fd)
    cache.release(file)
    assert cache.used_bytes == 0
    assert cache.open_file(fd, 1468) is not file


@pytest.mark.parametrize("change", ["truncate", "rewrite", "append"])
def test_a_changed_file_gives_what_was_opened_or_an_error(make_file, change):
    data = os.urandom(1_000_000)
    path, fd = make_file(data)
    cache = PacketCache(1 << 24)
    file = cache.open_file(fd, 1468)
    kept = bytes(cache.chunk(file, 0, fd))
    if change == "truncate":
        os.truncate(path, 100)
    elif change == "rewrite":
        with path.open("r+b") as other:
            other.write(bytes(len(data)))
    else:
        with path.open("ab") as other:
            other.write(b"more")
    assert bytes(cache.chunk(file, 0, fd)) == kept
    with pytest.raises(FileChangedError):
        cache.chunk(file, 1, fd)
    fresh = cache.open_file(fd, 1468)
    assert fresh is not file
    assert bytes(next(packets_of(cache, fresh, fd))[4:]) == path.read_bytes()[:1468]


def test_a_removed_file_is_sent_to_its_end(make_file):
    data = os.urandom(1_000_000)
    path, fd = make_file(data)
    cache = PacketCache(1 << 20)
    file = cache.open_file(fd, 1468)
    cache.chunk(file, 0, fd)
    path.unlink()
    assert b"".join(packet[4:] for packet in packets_of(cache, file, fd)) == data


def test_a_file_that_grows_between_two_looks_is_refused(make_file):
    path, fd = make_file(b"x" * 100)
    source = Source(PacketCache(1 << 20), fd=os.dup(fd))
    with path.open("ab") as other:
        other.write(b"more")
    with pytest.raises(FileChangedError):
        source.open(512, 0)
    source.close()
