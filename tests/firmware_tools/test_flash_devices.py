"""The virtual boards that are flashed: their state machines hold, whatever a host says to them."""

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtual_lab.dfu_device import ALLOWED, CLRSTATUS, DNLOAD, GETSTATUS, UPLOAD, DfuDevice, Flash, State
from virtual_lab.fastboot_device import HEADER, Fastboot, PacketId, Partitions, UdpLink

SAME_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def device(folder):
    return DfuDevice(Flash(folder / "chip", 4096), transfer_bytes=64)


@SAME_FOLDER
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8), st.binary(max_size=80), st.integers(0, 100)), max_size=40))
def test_a_dfu_device_is_always_in_a_state_and_stalls_what_its_state_does_not_allow(tmp_path, words):
    board = device(tmp_path)
    for gives, request, data, length in words:
        before = board.state
        done = board.give(request, length) if gives else board.take(request, data)
        assert board.state in State
        if request not in ALLOWED[before]:
            assert done in (None, False)
            assert board.state is State.ERROR
    assert board.flash.path.stat().st_size == 4096


def status(board):
    answer = board.give(GETSTATUS, 6)
    return answer[0], State(answer[4])


def download(board, blocks):
    for block in blocks:
        assert board.take(DNLOAD, block)
        while status(board)[1] is not State.DNLOAD_IDLE:
            pass
    assert board.take(DNLOAD, b"")
    while status(board)[1] is not State.IDLE:
        pass


def test_what_is_downloaded_is_uploaded_and_survives_the_power(tmp_path):
    board = device(tmp_path)
    download(board, [b"a" * 64, b"b" * 10])
    again = device(tmp_path)
    assert again.flash.whole_bytes == 74
    assert [again.give(UPLOAD, 64), again.give(UPLOAD, 64)] == [b"a" * 64, b"b" * 10]
    assert again.state is State.IDLE
    # A download that is cut leaves half an image, and says so.
    assert again.take(DNLOAD, b"new")
    assert device(tmp_path).flash.whole_bytes is None
    assert device(tmp_path).flash.read(0, 5) == b"newaa"


def test_a_stalled_device_goes_on_after_it_was_told_so(tmp_path):
    board = device(tmp_path)
    assert not board.take(DNLOAD, b"")
    assert status(board) == (0x0F, State.ERROR)
    assert board.take(CLRSTATUS, b"")
    assert status(board) == (0, State.IDLE)


def link(folder):
    return UdpLink(Fastboot(Partitions(folder, {"boot": 5000}), "virt"))


@SAME_FOLDER
@given(st.lists(st.binary(max_size=60), max_size=30))
def test_no_datagram_upsets_a_fastboot_device(tmp_path, datagrams):
    plugged = link(tmp_path)
    for datagram in datagrams:
        answer = plugged.take(datagram)
        assert answer is None or len(answer) >= HEADER.size


@SAME_FOLDER
@given(st.lists(st.binary(min_size=1, max_size=30) | st.sampled_from([b"download:zz", b"flash:", b"erase:../x"])))
def test_no_command_upsets_a_fastboot_device(tmp_path, commands):
    fastboot = Fastboot(Partitions(tmp_path, {"boot": 5000}), "virt")
    for command in commands:
        answer = fastboot.take(command)
        assert answer[:4] in {b"", b"OKAY", b"FAIL", b"DATA"}


def test_a_repeated_datagram_is_answered_the_same_and_done_once(tmp_path):
    plugged, number = link(tmp_path), 0

    def say(data, times=2):
        nonlocal number
        datagram = HEADER.pack(PacketId.FASTBOOT, 0, number) + data
        answers = {plugged.take(datagram) for _ in range(times)}
        assert len(answers) == 1
        number += 1
        return answers.pop()[HEADER.size :]

    assert plugged.take(HEADER.pack(PacketId.QUERY, 0, 0)) == HEADER.pack(PacketId.QUERY, 0, 0) + b"\0\0"
    assert plugged.take(HEADER.pack(PacketId.INIT, 0, 0) + struct.pack(">HH", 1, 512))
    number = 1
    assert (say(b"download:00000004"), say(b"")) == (b"", b"DATA00000004")
    assert (say(b"boot"), say(b"")) == (b"", b"OKAY")
    assert (say(b"flash:boot"), say(b"")) == (b"", b"OKAY")
    assert (tmp_path / "boot").read_bytes() == b"boot"
