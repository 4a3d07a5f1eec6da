from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.strangers import MOST_REGISTRATIONS, Stranger, StrangerBook, architecture, proposed_name
from netboot.boot_history import Stranger as Heard
from wire.ids import is_id
from wire.payloads import Registration

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
MAC, SECOND, OTHER = "52:54:00:99:00:01", "52:54:00:99:00:02", "52:54:00:99:00:03"


def said(**changes) -> Registration:
    return Registration(**{"mac": MAC, "boot_id": "b1", "address": "10.77.0.100", **changes})


def stranger(**changes) -> Stranger:
    return Stranger(**{"mac": MAC, "first_at": NOW, "last_at": NOW, "times": 1, **changes})


def test_what_was_heard_in_three_ways_is_one_stranger() -> None:
    book = StrangerBook()
    book.refused(said(inventory={"model": "Pi"}, serial="10000000abcdef01"), "it names no board", NOW)
    book.refused(said(inventory={"model": "Pi"}, serial="10000000abcdef01"), "it names no board", NOW)
    by_dhcp = Heard(NOW - timedelta(minutes=1), NOW, mac=MAC, vendor_class="U-Boot.armv8", times=2, answered=True)
    by_tftp = Heard(NOW, NOW + timedelta(seconds=5), address="10.77.0.100", times=1, names=["pxelinux.cfg/default"])
    (found,) = book.all([by_dhcp, by_tftp], set())
    document = found.document()
    assert document["mac"] == MAC
    assert document["times"] == 5
    assert (document["first_at"], document["last_at"]) == ("2026-11-21T11:59:00+00:00", "2026-11-21T12:00:05+00:00")
    assert (document["model"], document["arch"], document["answered"]) == ("Pi", "arm64", True)
    assert (document["names"], document["why"]) == (["pxelinux.cfg/default"], "it names no board")
    assert document["said"] == {
        "macs": [], "serial": "10000000abcdef01", "compatible": [], "inventory": {"model": "Pi"},
    }  # fmt: skip
    assert "proof" not in str(document)


def test_boards_of_ours_are_no_strangers() -> None:
    book = StrangerBook()
    book.refused(said(macs=[MAC, SECOND]), "no", NOW)
    heard = [Heard(NOW, NOW, mac=OTHER)]
    assert [found.mac for found in book.all(heard, {SECOND})] == [OTHER]
    assert book.all(heard, {OTHER, MAC}) == []
    book.forget(MAC)
    assert book.all([], set()) == []


def test_one_by_address_alone_is_shown_without_a_mac() -> None:
    (found,) = StrangerBook().all([Heard(NOW, NOW, address="10.77.0.101", names=["kernel8.img"])], set())
    assert "mac" not in found.document()
    assert proposed_name(found, set()) == "board-1"


def test_a_flood_of_registrations_stays_small() -> None:
    book = StrangerBook()
    for number in range(3 * MOST_REGISTRATIONS):
        book.refused(said(mac=f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"), "no", NOW)
    assert len(book.all([], set())) == MOST_REGISTRATIONS


@pytest.mark.parametrize(
    ("vendor_class", "arch"),
    [
        ("PXEClient:Arch:00007:UNDI:003016", "x86_64"),
        ("PXEClient:Arch:00011:UNDI:003000", "arm64"),
        ("HTTPClient:Arch:00000:UNDI:000000", "x86"),
        ("PXEClient:Arch:99999:UNDI:000000", ""),
        ("U-Boot.armv8", "arm64"),
        ("U-Boot.armv7.am33xx", "arm"),
        ("udhcp 1.35.0", ""),
        ("", ""),
    ],
)
def test_the_vendor_class_tells_the_processor(vendor_class: str, arch: str) -> None:
    assert architecture(vendor_class) == arch


@pytest.mark.parametrize(
    ("changes", "taken", "name"),
    [
        ({"inventory": {"model": "Raspberry Pi 4 Model B Rev 1.4"}}, set(), "raspberry-pi-4-model-b-1"),
        ({"inventory": {"model": "Raspberry Pi 4 Model B Rev 1.4"}}, {"raspberry-pi-4-model-b-1"},
         "raspberry-pi-4-model-b-2"),
        ({"compatible": ["ti,am335x-bone-black", "ti,am33xx"]}, {"x"}, "am335x-bone-black-1"),
        ({"serial": "10000000ABCDEF01"}, set(), "board-abcdef01"),
        ({"serial": "10000000ABCDEF01"}, {"board-abcdef01"}, "board-990001"),
        ({}, set(), "board-990001"),
        ({}, {"board-990001"}, "board-525400990001"),
        ({"inventory": {"model": "開発板"}}, set(), "board-990001"),
    ],
)  # fmt: skip
def test_proposed_names(changes: dict, taken: set[str], name: str) -> None:
    assert proposed_name(stranger(said=said(**changes)), taken) == name


@given(st.text(max_size=80), st.text(max_size=30), st.sets(st.integers(1, 30)))
def test_a_proposed_name_is_an_id_that_nobody_has(model: str, serial: str, numbers: set[int]) -> None:
    one = stranger(said=said(inventory={"model": model}, serial=serial))
    taken: set[str] = set()
    for _ in range(6):
        name = proposed_name(one, taken)
        assert is_id(name)
        assert name not in taken
        taken |= {name, *(f"{name[:-2]}-{number}" for number in numbers)}
