"""Bad cables and servers that die in the middle: real clients come up all the same, by their own retries."""

import pytest

from virtual_lab import tiny_kernel
from virtual_lab.boot_client_files import ClientFiles
from virtual_lab.boot_clients import Machine
from virtual_lab.uboot_environment import netboot_environment

UUID = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
SOON_S = 30.0
"""U-Boot's own patience with a server that is gone is a minute; our script leaves it a few seconds."""


@pytest.fixture
def small_files(boot_files, tmp_path):
    """What a board starts and a cable that loses every third frame can still carry."""
    kernel = tmp_path / "Image"
    kernel.write_bytes(tiny_kernel.image())
    files = boot_files(Machine.UBOOT_ARM64)
    return ClientFiles(kernel, None, files.device_tree, "tiny")


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_board_comes_up_over_a_cable_that_loses_three_of_ten(power_on, small_files, seed):
    environment = {**netboot_environment(UUID), "tftptimeout": "1000"}
    client = await power_on(Machine.UBOOT_ARM64, small_files, environment=environment, loss_percent=30, seed=seed)
    await client.says(tiny_kernel.MARKER)
    await client.event("off", code=0)
    assert "boardhand.board=board1" in client.text.partition(tiny_kernel.MARKER)[2]
    assert "kernel" in client.files("FileRequested")  # not FileSent: the last ACK may be lost, or not here yet


async def test_linux_comes_up_over_a_cable_that_loses_one_of_a_hundred(power_on, boot_files, userspace):
    files = boot_files(Machine.UBOOT_ARM64)
    client = await power_on(Machine.UBOOT_ARM64, files, loss_percent=1)
    await userspace(client, "aarch64", files.version)


async def dies_in_the_middle(power_on, files, what):
    """A client whose server does `what` while the kernel is on its way, 33 MB of it."""
    profile = {"kernel": files.kernel.with_name("Image")}
    client = await power_on(Machine.UBOOT_ARM64, files, profile=profile, on=False)
    client.order(what, at_file="kernel", after_s=0.1)
    await client.do("power-on")
    await client.event("did", what=what)
    assert client.find("FileSent", path="kernel") == []
    return client


async def test_the_worker_is_killed_in_the_middle_of_the_kernel(power_on, boot_files, userspace):
    files = boot_files(Machine.UBOOT_ARM64)
    client = await dies_in_the_middle(power_on, files, "kill-worker")
    died_at = client.find("did", what="kill-worker")[0]["at"]
    booted = await userspace(client, "aarch64", files.version)
    assert client.find("FileRequested", path="kernel")[1]["at"] - died_at < SOON_S
    assert booted.sent.count("kernel") == 1
    assert (await client.stats())["tftp_restarts"] == 1


async def test_netboot_is_restarted_in_the_middle_of_the_kernel(power_on, boot_files, userspace):
    files = boot_files(Machine.UBOOT_ARM64)
    client = await dies_in_the_middle(power_on, files, "stop-server")
    before = client.text.count("T ")
    await client.says("T ", count=before + 2)  # U-Boot asks again and nobody answers
    await client.do("start-server")
    booted = await userspace(client, "aarch64", files.version)
    assert client.files("FileRequested").count("kernel") > 1
    assert booted.sent.count("kernel") == 1


async def test_power_goes_in_the_middle_of_the_kernel_and_comes_back(power_on, boot_files, userspace):
    """The server still resends the old boot's blocks while the new one asks, from the same port as like as not."""
    files = boot_files(Machine.UBOOT_ARM64)
    client = await dies_in_the_middle(power_on, files, "power-off")
    before = client.text
    client.text = ""
    await client.do("power-on")
    booted = await userspace(client, "aarch64", files.version)
    assert "Linux version" not in before
    assert booted.sent.count("kernel") == 1
    assert client.files("FileRequested").count("kernel") == 2


async def test_netboot_comes_later_than_the_board(power_on, small_files):
    client = await power_on(Machine.UBOOT_ARM64, small_files, environment=netboot_environment(UUID), on=False)
    await client.do("stop-server")
    await client.do("power-on")
    await client.says("BOOTP broadcast 4")
    assert client.files("FileRequested") == []
    await client.do("start-server")
    await client.says(tiny_kernel.MARKER)
    assert "kernel" in client.files("FileRequested")  # not FileSent: the last ACK may be lost, or not here yet
    assert tiny_kernel.MARKER not in client.text.partition("BOOTP broadcast 4")[0]
