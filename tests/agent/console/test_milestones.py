"""What a console says of a boot."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console.milestones import EVENTS_PER_BOOT, BootStory, ConsoleWatch, Kind, Milestone, readable

SEEN = [
    (b"U-Boot SPL 2023.01+dfsg-2 (Jan 01 2023)", Kind.BOOTLOADER),
    (b"\x00\xfe\x80U-Boot 2024.01-rc3 (Dec 01 2023 - 10:00:00 +0000)", Kind.BOOTLOADER),
    (b"barebox 2024.03.0 #1", Kind.BOOTLOADER),
    (b"NOTICE:  BL31: v2.9(release):", Kind.BOOTLOADER),
    (b"OpenSBI v1.3", Kind.BOOTLOADER),
    (b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd083]", Kind.KERNEL),
    (b"[    0.000000][    T0] Linux version 6.6.1 (gcc) #1 SMP", Kind.KERNEL),
    (b"Linux version 4.4.0", Kind.KERNEL),
    (b"[    1.234567] Run /init as init process", Kind.INIT),
    (b"[    4.100000] systemd[1]: systemd 252.39-1~deb12u1 running in system mode", Kind.INIT),
    (b"[   12.345678] Kernel panic - not syncing: VFS: Unable to mount root fs", Kind.PANIC),
    (b"<0>[   12.345678] Kernel panic - not syncing: x", Kind.PANIC),
    (b"\xc3Kernel panic - not syncing: x", Kind.PANIC),
    (b"[    5.000001] Internal error: Oops: 0000000096000004 [#1] SMP", Kind.OOPS),
    (b"[    5.000001] Unable to handle kernel NULL pointer dereference", Kind.OOPS),
    (b"[    5.000001] BUG: unable to handle page fault for address: ffff", Kind.OOPS),
    (b"[    5.000001] kernel BUG at mm/slub.c:305!", Kind.OOPS),
    (b"[   60.000001] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", Kind.WATCHDOG),
    (b"[   60.000001] rcu: INFO: rcu_preempt self-detected stall on CPU", Kind.WATCHDOG),
    (b"[  120.000001] INFO: task mount:42 blocked for more than 120 seconds.", Kind.WATCHDOG),
    (b"Reset cause: WDOG", Kind.WATCHDOG),
    (b"[   99.000001] reboot: Restarting system", Kind.RESTART),
    (b"resetting ...", Kind.RESTART),
]
NOT_SEEN = [
    b"# echo Kernel panic - not syncing: told of",
    b"[    1.000000] mydriver: U-Boot 2024.01 left no environment",
    b"grep 'Linux version 6.1' /proc/version",
    b"journal: watchdog: BUG: soft lockup yesterday",
    b"last login: yesterday",
    b"",
]


@pytest.mark.parametrize(("line", "kind"), SEEN)
def test_lines_that_tell(line, kind):
    (found,) = ConsoleWatch().feed(b"before\r\n" + line + b"\r\nafter\r\n")
    assert found.kind is kind
    assert found.line in readable(line), "the line stands in it, without the garbage before"


@pytest.mark.parametrize("line", NOT_SEEN)
def test_lines_that_only_talk_of_it(line):
    assert ConsoleWatch().feed(line + b"\r\n") == []


@given(
    st.lists(st.sampled_from([line for line, _ in SEEN] + NOT_SEEN), max_size=8),
    st.lists(st.integers(0, 999), max_size=9),
)
def test_how_it_is_cut_changes_nothing(lines, cuts):
    data = b"".join(line + b"\r\n" for line in lines)
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    watch, found = ConsoleWatch(), []
    for a, b in zip([0, *places], [*places, len(data)], strict=True):
        found += watch.feed(data[a:b])
    assert found == ConsoleWatch().feed(data)


@given(st.binary(max_size=3000))
def test_noise_neither_raises_nor_grows(noise):
    watch = ConsoleWatch()
    for at in range(0, len(noise), 7):
        watch.feed(noise[at : at + 7])
    assert len(watch._partial) <= 4096
    assert len(watch.last_lines()) <= 50


def test_a_line_without_end_is_bounded():
    watch = ConsoleWatch()
    for _ in range(100):
        watch.feed(b"\xaa" * 4000)
    assert len(watch._partial) <= 4096
    assert watch._tail_bytes <= 64 * 1024 + 4000


def test_a_login_prompt_has_no_line_end_and_is_told_once():
    watch = ConsoleWatch()
    assert watch.feed(b"Debian GNU/Linux 12 virt ttyAMA0\r\n\r\nvirt-1 log") == []
    assert watch.feed(b"in: ") == [Milestone(Kind.LOGIN, "virt-1 login:")]
    assert watch.feed(b"") == []
    assert watch.feed(b"root\r\nPassword: ") == []
    assert [m.kind for m in watch.feed(b"\r\nvirt-1 login: ")] == [Kind.LOGIN]


def test_the_last_lines():
    watch = ConsoleWatch()
    watch.feed(b"".join(b"line %d\r\n" % n for n in range(200)) + b"\x1b[31mred\x1b[0m and cut")
    assert watch.last_lines(3) == ["line 198", "line 199", "red and cut"]
    assert len(watch.last_lines()) == 50
    watch.forget()
    assert watch.last_lines() == []


def test_readable_shows_garbage_and_runs_nothing():
    assert readable(b"\x1b]0;title\x07a\x00\x07\xffb\tc\x1b[2J\xc3\xa9") == "a\\xffb\tcé"
    assert len(readable(b"x" * 1000)) == 400


def kinds(story, *sights, began=0.0):
    """Ten seconds from one to the next."""
    return [story.take(Milestone(kind, "x"), began + 10.0 * n) for n, kind in enumerate(sights)]


def test_a_boot_tells_each_thing_once():
    story = BootStory()
    assert kinds(story, Kind.BOOTLOADER, Kind.BOOTLOADER, Kind.KERNEL, Kind.KERNEL) == [
        (False, True), (False, False), (False, True), (False, False)]  # fmt: skip


def test_a_banner_after_a_kernel_is_another_boot():
    story = BootStory()
    kinds(story, Kind.BOOTLOADER, Kind.KERNEL, Kind.INIT)
    assert kinds(story, Kind.BOOTLOADER, Kind.KERNEL) == [(True, True), (False, True)]


def test_a_kernel_after_a_panic_is_another_boot():
    story = BootStory()
    kinds(story, Kind.KERNEL, Kind.PANIC)
    assert kinds(story, Kind.KERNEL) == [(True, True)]


def test_a_storm_of_oopses_is_told_so_many_times():
    story = BootStory()
    told = [tell for _, tell in kinds(story, Kind.KERNEL, *[Kind.OOPS] * 1000)]
    assert sum(told) == 1 + EVENTS_PER_BOOT


def test_a_board_that_restarts_for_ever_is_told_once_a_second():
    story, told, restarts = BootStory(), 0, 0
    for n in range(20_000):  # 200 s of banners, a hundred a second
        for kind in (Kind.BOOTLOADER, Kind.KERNEL):
            anew, tell = story.take(Milestone(kind, "x"), n / 100)
            told += tell
            restarts += anew
    assert 100 < told <= 60 + 200 + 1
    assert restarts <= 401


def test_a_flood_of_banners_costs_little():
    found = ConsoleWatch().feed(b"U-Boot 2024.01\n" * 20_000)
    assert len(found) == 100


def test_a_restart_is_believed_by_its_banner_and_dmesg_is_none():
    story = BootStory()
    kinds(story, Kind.BOOTLOADER, Kind.KERNEL, Kind.INIT, Kind.WATCHDOG)
    assert kinds(story, Kind.KERNEL, began=100) == [(False, False)], "dmesg"
    assert not story.restarted
    assert kinds(story, Kind.BOOTLOADER, Kind.KERNEL, began=200) == [(True, True), (False, True)]
    assert story.restarted
    story.begin()
    assert not story.restarted, "the power was switched"
