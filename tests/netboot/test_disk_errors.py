"""A disk that fails while it is read: an error for this one file, and everything else goes on.

The kernel itself gives the error: `speed` of a loopback interface is a regular file of 4096 octets that opens and
cannot be read.
"""

import asyncio
import os
from pathlib import Path

import pytest

from netboot.http_files import OpenFile

UNREADABLE = Path("/sys/class/net/lo/speed")
ERROR = 5


def test_the_kernel_behaves_so():
    descriptor = os.open(UNREADABLE, os.O_RDONLY)
    try:
        assert os.fstat(descriptor).st_size == 4096
        with pytest.raises(OSError, match="Invalid argument"):
            os.pread(descriptor, 100, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mode", ["octet", "netascii"])
async def test_tftp_ends_with_an_error_and_serves_the_next(farm, raw_client, mode):
    good = farm.add_file("good", os.urandom(300))
    farm.files["bad"] = UNREADABLE
    for _ in range(3):
        client = raw_client(farm.port)
        client.ask("bad", mode=mode)
        opcode, _, text = await asyncio.to_thread(client.receive)
        assert opcode == ERROR
        assert str(UNREADABLE) not in text.decode()  # nobody's business
    client = raw_client(farm.port)
    client.ask("good")
    assert (await asyncio.to_thread(client.receive))[2] == good.read_bytes()
    client.ack(1)
    assert farm.process.restarts == 0


def test_http_reads_raise_an_error_that_the_server_takes_for_the_files():
    file = OpenFile(UNREADABLE)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            file.read(0, 100)
    finally:
        file.close()
