"""`[netboot.fetch]`, `ipv6` and `address6`: what they become, and which faults are told with their key."""

from ipaddress import IPv6Address

import pytest
from yarl import URL

from agent import netboot_bridge
from agent.settings import load
from daemon.settings_file import SettingsError
from netboot.fetch_errors import FetchForbiddenError


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "kernel").write_bytes(b"k")

    def read(netboot="", fetch="", board="", other=""):
        file = tmp_path / "agent.toml"
        file.write_text(f"""
[agent]
name = "lab"
state_dir = "{tmp_path}/state"
[controllers.c]
driver = "command"
on = ["true"]
off = ["true"]
[netboot]
interface = "eth9"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
{netboot}
[netboot.fetch]
{fetch}
[profiles.standing]
kernel = "{tmp_path}/kernel"
[boards.pi]
feed = ["c:1"]
macs = ["52:54:00:00:00:01"]
address = "10.77.0.11"
profile = "standing"
{board}
[boards.pi2]
feed = ["c:2"]
macs = ["52:54:00:00:00:02"]
address = "10.77.0.12"
profile = "standing"
{other}
""")
        return load(file)

    return read


def test_by_default_every_host_but_this_one_and_only_with_a_checksum(settings):
    fetch = settings().netboot.fetch
    fetch.policy.check(URL("https://files.example/x"))
    with pytest.raises(FetchForbiddenError):
        fetch.policy.check(URL("http://127.0.0.1/x"))
    assert not fetch.policy.without_checksum
    assert (fetch.cache_mib, fetch.limits.max_file_bytes, fetch.limits.total_s) == (4096, 2048 << 20, 1800.0)


def test_a_list_and_bounds(settings):
    words = 'allow = ["https://files.lab/boards/"]\nchecksum = "optional"\ncache_mib = 64\nfile_mib = 8\ntimeout_s = 60'
    fetch = settings(fetch=words).netboot.fetch
    fetch.policy.check(URL("https://files.lab/boards/k"))
    with pytest.raises(FetchForbiddenError):
        fetch.policy.check(URL("https://files.lab/other"))
    assert fetch.policy.without_checksum
    assert (fetch.limits.max_file_bytes, fetch.limits.total_s) == (8 << 20, 60.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ('allow = ["files.lab"]', "http:// or https://"),
        ('allow = ["ftp://files.lab/"]', "http:// or https://"),
        ('allow = ["https://user:word@files.lab/"]', "without user, password"),
        ('checksum = "maybe"', "checksum"),
        ("cache_mib = 0", "cache_mib"),
        ("timeout_s = 0", "timeout_s"),
        ('allowed = ["https://files.lab/"]', "allowed"),
    ],
)
def test_faults_of_the_list(settings, words, said):
    with pytest.raises(SettingsError, match=said):
        settings(fetch=words)


def test_ipv6(settings):
    read = settings(board='address6 = "fd77::11"')
    assert netboot_bridge.config(read).ipv6
    first, second = netboot_bridge.boards(read)
    assert (first.address6, second.address6) == (IPv6Address("fd77::11"), None)
    assert not netboot_bridge.config(settings(netboot="ipv6 = false")).ipv6


@pytest.mark.parametrize(
    ("board", "other", "said"),
    [
        ("fd77::11", "fd77::11", "already means board pi"),
        ("fe80::5054:ff:fe00:2", None, "already means board pi2"),
        ("ff02::1", None, "no address of a single board"),
        ("::ffff:10.0.0.1", None, "is an IPv4 address"),
        ("fe80::1%eth0", None, "leave out what follows %"),
    ],
)
def test_faults_of_addresses(settings, board, other, said):
    with pytest.raises(SettingsError, match=said):
        settings(board=f'address6 = "{board}"', other="" if other is None else f'address6 = "{other}"')
