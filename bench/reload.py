"""A reload of an agent with many boards: how long it takes, and how long it keeps the event loop from anybody else.

    .venv/bin/python bench/reload.py [--boards 500] [--reloads 20]

A whole agent in this process, without an MQTT server: controllers of the kind `command` with 50 outlets each, each
board with a profile, an address and a console, all netboot of loopback. Between two reloads one thing is edited: a
board's label, its boot timeout, a profile's command line; then 50 boards leave, and come back. Told are: wall time;
processor time of the whole process; the longest that one callback kept the event loop, in processor time of its thread;
and how late a watcher was that wakes every millisecond, which on a busy machine is mostly the machine's doing.
"""

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

PER_CONTROLLER = 50
WATCH_S = 0.001
LEAVING = 50


def settings_text(
    folder: Path, boards: int, *, label: int = 0, timeout_s: int = 180, words: str = "quiet", skip: int = 0
) -> str:
    answer = '["/bin/sh", "-c", "echo off"]'
    head = (
        f'[agent]\nname = "bench"\nstate_dir = "{folder}/state"\nread_back_s = 3600\nmeter_every_s = 0\n'
        '[mqtt]\nurl = "mqtt://127.0.0.1:9"\n'
        '[netboot]\ninterface = "lo"\naddress = "127.0.0.1/8"\ndhcp = "off"\nhttp_port = 0\nwatch_segment = false\n'
        'tftp_port = 20069\nipv6 = false\nmqtt_for_boards = "127.0.0.1:1883"\n'
        f'[profiles.linux]\narch = "arm64"\nkernel = "{folder}/kernel"\ncmdline = "{words}"\n'
    )
    tables = [head]
    for number in range(0, boards, PER_CONTROLLER):
        name = f"rack{number // PER_CONTROLLER}"
        tables.append(
            f'[controllers.{name}]\ndriver = "command"\non = ["/bin/true"]\noff = ["/bin/true"]\nstate = {answer}\n'
        )
    for number in range(boards - skip):
        place, outlet = divmod(number, PER_CONTROLLER)
        tables.append(
            f'[boards.b{number}]\nfeed = ["rack{place}:{outlet}"]\nprofile = "linux"\n'
            f'macs = ["52:54:00:00:{number >> 8:02x}:{number & 255:02x}"]\n'
            f'address = "127.1.{number >> 8}.{number & 255}"\n'
            f"boot_timeout_s = {timeout_s if number == 7 else 180}\n"
            f"[boards.b{number}.labels]\nusb = {label if number == 3 else 0}\n"
            f'[boards.b{number}.console]\ndevice = "{folder}/tty{number}"\n'
        )
    return "".join(tables)


async def latest(stop: asyncio.Event) -> float:
    """How late the watcher was at the latest, in seconds."""
    worst = 0.0
    while not stop.is_set():
        before = time.perf_counter()
        await asyncio.sleep(WATCH_S)
        worst = max(worst, time.perf_counter() - before - WATCH_S)
    return worst


class Longest:
    """The longest callback of the event loop so far."""

    cpu_s = 0.0


def watch_callbacks() -> None:
    plain = asyncio.Handle._run  # noqa: SLF001  # what runs every callback

    def run(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        plain(handle)
        Longest.cpu_s = max(Longest.cpu_s, time.thread_time() - began)

    asyncio.Handle._run = run  # type: ignore[assignment,method-assign]  # noqa: SLF001


async def measured(agent: object, edit: Callable[[], None]) -> tuple[float, float, float, float]:
    from agent.daemon import Agent

    assert isinstance(agent, Agent)
    edit()
    stop = asyncio.Event()
    watch = asyncio.create_task(latest(stop))
    await asyncio.sleep(0.05)
    Longest.cpu_s = 0.0
    began, cpu_began = time.perf_counter(), time.process_time()
    await agent.reloading.reload()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    await asyncio.sleep(0.05)
    stop.set()
    return took, cpu, Longest.cpu_s, await watch


async def run(folder: Path, boards: int, reloads: int) -> None:
    from agent.daemon import Agent
    from agent.settings import load

    path = folder / "agent.toml"
    (folder / "kernel").write_bytes(b"kernel")
    path.write_text(settings_text(folder, boards))
    began = time.perf_counter()
    settings = load(path)
    print(
        f"{boards} boards, {path.stat().st_size // 1024} KiB of settings, read in {time.perf_counter() - began:.3f} s"
    )
    agent = Agent(settings, path)
    stop = asyncio.Event()
    running = asyncio.create_task(agent.run(stop))
    began = time.perf_counter()
    while not hasattr(agent, "link"):
        await asyncio.sleep(0.05)
        if running.done():
            running.result()
    await asyncio.sleep(1.0)
    print(f"agent up in {time.perf_counter() - began - 1:.1f} s")

    def wrote(**changes: int | str) -> Callable[[], None]:
        def write() -> None:
            path.write_text(settings_text(folder, boards, **changes))  # type: ignore[arg-type]

        return write

    cases: list[tuple[str, list[Callable[[], None]]]] = [
        ("nothing", [wrote()] * reloads),
        ("a label", [wrote(label=number + 1) for number in range(reloads)]),
        ("a boot timeout", [wrote(timeout_s=100 + number) for number in range(reloads)]),
        ("a profile of all boards", [wrote(words=f"try={number}") for number in range(reloads)]),
        (f"{LEAVING} boards leave", [wrote(skip=LEAVING)]),
        (f"{LEAVING} boards come", [wrote()]),
    ]
    watch_callbacks()
    print(f"{'what is edited':<26} {'median':>8} {'worst':>8} {'processor':>10}   one callback   watcher late")
    for name, edits in cases:
        found = [await measured(agent, edit) for edit in edits]
        took, cpu, callback, late = zip(*found, strict=True)
        print(
            f"{name:<26} {statistics.median(took):7.3f}s {max(took):7.3f}s {statistics.median(cpu):9.3f}s   "
            f"{max(callback) * 1000:9.0f} ms   {max(late) * 1000:9.0f} ms",
            flush=True,
        )
    stop.set()
    await running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boards", type=int, default=500)
    parser.add_argument("--reloads", type=int, default=20)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), arguments.boards, arguments.reloads))


if __name__ == "__main__":
    main()
