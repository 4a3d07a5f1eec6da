"""The history of boots and its diagnosis: every place a boot can stop at, and the core under anything at all."""

from typing import Any

import pytest

from netboot.boot_diagnosis import Diagnosis, Place
from netboot.boot_families import family_of
from netboot.boot_history import STRANGERS_KEPT
from netboot.boot_record import MAX_TEXT, Cause, Mark, Outcome, kept, phases
from netboot.events import FileFailed, FilePart, FileRefused
from tests.netboot.boot_story import ADDRESS, Story


def test_a_boot_that_ends_well_is_told_request_by_request_and_measured() -> None:
    story = Story().booted()
    (boot,) = story.boots
    assert [(r.via, r.name, r.outcome, r.role) for r in boot.requests] == [
        ("dhcp", "DISCOVER", "answered", None),
        ("dhcp", "REQUEST", "answered", None),
        ("tftp", "boot.scr.uimg", "sent", "config"),
        ("tftp", "kernel.gz", "sent", "kernel"),
    ]
    assert boot.requests[0].detail == "OFFER 10.77.0.11 (U-Boot.armv8)"
    assert boot.requests[3].mb_per_s == pytest.approx(6.0)
    assert (boot.files, boot.size_bytes, boot.cause) == (2, 9_000_312, Cause.POWER)
    assert phases(boot) == [("to-dhcp", 2), ("to-first-file", 1), ("loading", 2), ("to-registered", 7)]
    assert story.place() == Diagnosis(Place.UP, False, "registered after 12 s")


def test_what_the_kernel_does_after_it_was_loaded_stretches_no_phase() -> None:
    story = Story().cycle().lease().fetch("kernel", "kernel").later(5).lease("udhcp 1.36").later(1)
    story.fetch("something", "other").later(2).boot_id("one")
    assert dict(phases(story.boots[0]))["loading"] == 0.5
    assert Mark.SYSTEM in story.boots[0].marks


PLACES: dict[str, tuple[Any, Place, str]] = {
    "nothing heard": (lambda s: s.later(90), Place.NO_DHCP, "no DHCP in 90 s since power on"),
    "not answered": (lambda s: s.dhcp("DISCOVER").later(40), Place.UNANSWERED, "asked by DHCP and was not answered"),
    "no request": (
        lambda s: s.dhcp("DISCOVER", "OFFER").dhcp("DISCOVER", "OFFER").later(40),
        Place.NO_REQUEST,
        "was offered its address and never requested it",
    ),
    "another server": (
        lambda s: s.dhcp("DISCOVER", "OFFER").dhcp("REQUEST").later(40),
        Place.ELSEWHERE,
        "took its address from another DHCP server",
    ),
    "wrong address": (
        lambda s: s.dhcp("REQUEST", "NAK").later(40),
        Place.DENIED,
        "wanted an address that is not its own, and did not take the one that it was offered",
    ),
    "no file": (lambda s: s.lease().later(40), Place.NO_FILES, "has its address, and asked for no file in 40 s"),
    "one wrong name": (
        lambda s: s.lease().miss("C0A80101.img").later(40),
        Place.IN_VAIN,
        "the only file it asked for is not there: C0A80101.img",
    ),
    "wrong names": (
        lambda s: s.lease().miss("a/start4.elf", "start4.elf", "a/config.txt", "config.txt").later(40),
        Place.IN_VAIN,
        "asked for 4 names and none of them is there: a/start4.elf, start4.elf, a/config.txt and 1 more",
    ),
    "refused": (
        lambda s: s.lease().refuse("b2/kernel", "another's").later(40),
        Place.REFUSED,
        "b2/kernel was refused: another's",
    ),
    "script only": (
        lambda s: s.lease().fetch("boot.scr.uimg", "config").later(40),
        Place.NO_KERNEL,
        "fetched its boot script or configuration and no kernel; silent for 40 s",
    ),
    "script, then a wrong name": (
        lambda s: s.lease().fetch("boot.scr.uimg", "config").miss("Image").later(40),
        Place.NO_KERNEL,
        "fetched its boot script or configuration, then asked for Image, which is not there",
    ),
    "loader only": (
        lambda s: s.lease().fetch("bootaa64.efi").later(40),
        Place.NO_KERNEL,
        "fetched its boot loader and no kernel; silent for 40 s",
    ),
    "cut": (
        lambda s: s.lease().ask("kernel", "kernel").later(9).fail("kernel", "the client fell silent").later(40),
        Place.CUT,
        "the transfer of kernel was cut: the client fell silent",
    ),
    "power off while sending": (
        lambda s: s.lease().ask("kernel", "kernel").later(1).power(False),
        Place.CUT,
        "its power went off while kernel was being sent",
    ),
    "silent": (
        lambda s: s.lease().fetch("kernel", "kernel").later(70),
        Place.SILENT,
        "kernel fetched, silent since for 70 s",
    ),
    "no initrd": (
        lambda s: s.lease().fetch("kernel", "kernel").miss("initrd").later(70),
        Place.SILENT,
        "fetched the kernel, then asked for initrd, which is not there",
    ),
    "not registered": (
        lambda s: s.lease().fetch("kernel", "kernel").later(4).lease("").later(70),
        Place.NOT_REGISTERED,
        "its kernel runs and asked for an address, then did not register for 70 s",
    ),
}


@pytest.mark.parametrize("name", list(PLACES))
def test_a_boot_that_stops_is_placed(name: str) -> None:
    tell, place, what = PLACES[name]
    story = Story().cycle()
    tell(story)
    said = story.place()
    assert (said.place, said.what, said.stopped) == (place, what, True)
    assert bool(said.check) is (name != "power off while sending")
    assert {Place(entry[1]) for entry in PLACES.values()} | {Place.UP, Place.SENDING} == set(Place)


def test_a_boot_under_way_has_not_stopped() -> None:
    story = Story().cycle()
    assert not story.later(5).place().stopped
    assert not story.lease().place().stopped
    story.ask("kernel", "kernel").later(20)
    assert (story.place().place, story.place().stopped) == (Place.SENDING, False)
    assert story.place().what == "kernel is being sent"


def test_names_asked_in_vain_say_who_asks() -> None:
    story = (
        Story().cycle().lease("PXEClient:Arch:00000:UNDI:002001").miss("a1b2c3d4/start4.elf", "start4.elf").later(60)
    )
    said = story.place(named=["boot.scr.uimg"])
    assert "these names are those of a Raspberry Pi's firmware" in said.evidence
    assert "DHCP names boot.scr.uimg here" in said.evidence
    assert "it says by DHCP that it is PXEClient:Arch:00000:UNDI:002001" in said.evidence


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("boot.scr.uimg", "U-Boot"),
        ("pxelinux.cfg/01-52-54-00-77-00-01", "pxe get"),
        ("0a4d000b.img", "U-Boot"),
        ("extlinux/extlinux.conf", "extlinux"),
        ("3a4f0c2e/start4.elf", "Raspberry"),
        ("bootcode.bin", "Raspberry"),
        ("grub/arm64-efi/command.lst", "GRUB"),
        ("grubaa64.efi", "UEFI"),
        ("boot.ipxe", "iPXE"),
        ("undionly.kpxe", "iPXE"),
        ("pxelinux.0", "PXELINUX"),
        ("uImage", "kernel"),
        ("bcm2711-rpi-4-b.dtb", "device tree"),
    ],
)
def test_families(name: str, word: str) -> None:
    assert word in str(family_of([name]))


def test_a_name_that_says_nothing() -> None:
    assert family_of(["x"]) is None
    assert family_of([]) is None


def test_a_bad_line_is_evidence() -> None:
    story = Story().cycle().lease().fetch("kernel", "kernel", 1_000_000, resent=100).later(70)
    assert "100 packets had to be sent again" in story.place().evidence
    assert any("had to be sent again" in line for line in story.place().check)
    clean = Story().cycle().lease().fetch("kernel", "kernel", 100_000_000, resent=100).later(70)
    assert clean.place().evidence == ()


def test_an_unknown_mac_may_be_the_boards_own() -> None:
    story = Story().cycle().later(10).dhcp("DISCOVER", vendor="PXEClient", mac="52:54:00:99:00:01").later(60)
    said = story.place()
    assert said.place is Place.NO_DHCP
    assert "52:54:00:99:00:01 asked by DHCP (PXEClient)" in said.evidence[0]
    story.cycle().later(70)
    assert story.place().evidence == (), "it was heard before this boot"


# --- where boots begin and end ---------------------------------------------------------------------------------


def test_power_begins_a_boot_and_ends_it() -> None:
    story = Story().booted().later(60).power(False)
    first = story.boots[0]
    assert first.ended == story.now
    story.later(1).fetch("late", "other")
    assert len(story.boots) == 1, "the last packets of a board that lost power"
    story.later(10).power(True).later(1).lease()
    assert [boot.number for boot in story.boots] == [2, 1]
    assert story.boots[0].cause is Cause.POWER


def test_a_cycle_too_short_to_be_read_back_is_a_boot() -> None:
    story = Story().booted().later(60)
    since = story.now
    story.history.cycled("pi", since=since, at=story.later(0.1).now)
    assert [(boot.number, boot.cause) for boot in story.boots] == [(2, Cause.POWER), (1, Cause.POWER)]
    assert story.boots[1].ended == story.now
    story.history.cycled("pi", since=since, at=story.later(0.1).now)
    assert len(story.boots) == 2, "it was told as power, too"


def test_a_board_may_be_quicker_than_the_end_of_its_cycle() -> None:
    story = Story().booted().later(60)
    since = story.now
    story.later(0.1).dhcp("DISCOVER", "OFFER")
    assert story.boots[0].cause is Cause.AGAIN
    story.history.cycled("pi", since=since, at=story.later(0.1).now)
    assert [(boot.number, boot.cause) for boot in story.boots] == [(2, Cause.POWER), (1, Cause.POWER)]


def test_the_same_power_again_says_nothing() -> None:
    story = Story().booted().power(True).later(5).power(True)
    assert len(story.boots) == 1


def test_a_board_that_was_on_before_we_looked_began_nothing() -> None:
    story = Story().power(True).power(True)
    assert story.boots == []
    story.lease()
    assert story.boots[0].cause is Cause.SEEN
    assert phases(story.boots[0]) == []


def test_a_quick_board_is_heard_before_its_power_is_read_back() -> None:
    story = Story().power(False).later(60).lease().later(0.2).power(True).later(1).fetch("kernel", "kernel")
    assert [(boot.number, boot.cause) for boot in story.boots] == [(1, Cause.POWER)]
    assert len(story.boots[0].requests) == 3


@pytest.mark.parametrize(
    "again", [lambda s: s.dhcp("DISCOVER", "OFFER"), lambda s: s.miss("x"), lambda s: s.fetch("y", "config")]
)
def test_a_boot_loader_that_asks_after_the_board_was_up_begins_a_boot(again: Any) -> None:
    story = Story().booted().later(60)
    again(story)
    assert [boot.cause for boot in story.boots] == [Cause.AGAIN, Cause.POWER]
    assert story.boots[1].ended == story.boots[0].began


def test_a_board_that_is_up_renews_its_lease_and_boots_not() -> None:
    story = Story().booted()
    for _ in range(30):
        story.later(300).dhcp("REQUEST", "ACK", "udhcp 1.36")
    (boot,) = story.boots
    assert boot.requests[-1].times == 30
    assert boot.requests[-1].last_at == story.now


def test_a_kernel_that_panics_and_restarts_begins_a_boot() -> None:
    story = Story().cycle().lease().fetch("kernel", "kernel").later(20).lease()
    assert [boot.cause for boot in story.boots] == [Cause.AGAIN, Cause.POWER]
    assert Mark.KERNEL in story.boots[1].marks


def test_boot_loaders_that_load_each_other_are_one_boot() -> None:
    story = Story().cycle().lease("PXEClient:Arch:00007").fetch("ipxe.efi", "kernel").later(1)
    story.lease("PXEClient:Arch:00007").fetch("boot.ipxe", "config").fetch("kernel", "kernel")
    story.later(3).fetch("boot.ipxe", "config")
    assert len(story.boots) == 1


def test_another_registration_of_a_running_board_is_another_boot() -> None:
    story = Story().booted().boot_id("one")
    assert len(story.boots) == 1
    story.later(60).boot_id("two")
    assert [(boot.cause, boot.boot_id) for boot in story.boots] == [(Cause.SEEN, "two"), (Cause.POWER, "one")]


def test_a_transfer_that_ends_late_goes_to_its_own_boot() -> None:
    story = Story().cycle().lease().ask("kernel", "kernel")
    late = story.number
    story.later(5).cycle().lease().ask("kernel", "kernel")
    story.history.event(FileFailed("pi", ADDRESS, "kernel", "kernel", "the client fell silent", number=late), story.now)
    new, old = story.boots
    assert new.requests[-1].outcome is Outcome.UNDER_WAY
    assert new.last_file is Outcome.UNDER_WAY
    assert (old.requests[-1].outcome, old.requests[-1].detail) == (Outcome.FAILED, "its power went off")


def test_a_file_that_was_promised_and_cannot_be_opened() -> None:
    story = Story().cycle().lease().ask("kernel", "kernel")
    story.refuse("kernel", "Permission denied", story.number)
    assert [r.outcome for r in story.boots[0].requests[2:]] == [Outcome.REFUSED]
    assert story.later(40).place().what == "kernel was refused: Permission denied"


def test_a_size_that_is_asked_for_alone_is_no_file() -> None:
    story = Story().cycle().lease("HTTPClient:Arch:00016").ask("kernel", "kernel")
    story.history.event(FilePart("pi", ADDRESS, "kernel", "kernel", 0, 0.01, "tftp", story.number), story.now)
    (boot,) = story.boots
    assert (boot.requests[-1].outcome, boot.files) == (Outcome.PART, 0)
    assert Mark.KERNEL not in boot.marks
    assert story.later(40).place().what == "nothing that it asked for was sent whole; the last was kernel"


def test_strangers_are_kept_and_the_oldest_forgotten() -> None:
    story = Story()
    for number in range(STRANGERS_KEPT + 5):
        story.later(1).dhcp("DISCOVER", mac=f"52:54:00:99:00:{number:02x}")
    strangers = story.history.strangers()
    assert len(strangers) == STRANGERS_KEPT
    assert strangers[0].mac == f"52:54:00:99:00:{STRANGERS_KEPT + 4:02x}"
    story.dhcp("DISCOVER", "OFFER", mac=strangers[0].mac)
    story.history.event(FileRefused(ADDRESS, "pxelinux.0", "no board has this address"), story.now)
    first = story.history.strangers()[0]
    assert (first.names, first.times, first.answered) == (["pxelinux.0"], 3, True)
    assert story.boots == []


def test_foreign_text_is_kept_printable_and_short() -> None:
    assert kept("a\x1b[2J\nß") == "a\\x1b[2J\\n\\xdf"
    assert len(kept("ß" * 500)) == MAX_TEXT
