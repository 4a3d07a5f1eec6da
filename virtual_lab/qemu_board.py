"""One QEMU arm64 board: U-Boot in flash, a network cable, a serial console, and QMP as its power switch.

QEMU starts stopped (`-S`): that is "off". `cont` is "on"; a guest that powers itself off stays there, paused
(`-no-shutdown`), until it is reset. The board has no disk: it boots what its agent serves, as a real one.
"""

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.image import device_tree
from virtual_lab import uboot_environment
from virtual_lab.lab_tools import LabTools, check_socket_path, keep_log_small, remove_stale_socket
from virtual_lab.namespace import LabError, die_with_parent
from virtual_lab.network import Cable

MEMORY_MB = 512
# QEMU under emulation, with the machine's other boards starting too.
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_DUMP_TIMEOUT_S = 60.0
# Boards of one lab have the same UUID at each start, and differ between ids.
_UUID_SPACE = uuid.UUID("6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77")


class QemuError(LabError):
    """QEMU does not start; the message holds its own words."""


@dataclass(frozen=True, slots=True)
class QemuBoardSpec:
    """What makes this board this one.

    `folder` holds its files, `sockets` its sockets, whose paths must be short. With `own_environment` its U-Boot
    comes up with an environment in flash that boots by `pxe` for ever; without, it asks for `boot.scr.uimg`, as
    Debian 12's does by default.
    """

    board: str
    mac: str
    folder: Path
    sockets: Path
    own_environment: bool = True

    @property
    def qmp_socket(self) -> Path:
        return self.sockets / f"{self.board}.qmp"

    @property
    def console_socket(self) -> Path:
        return self.sockets / f"{self.board}.console"

    @property
    def console_log(self) -> Path:
        return self.folder / "console.log"

    @property
    def qemu_log(self) -> Path:
        return self.folder / "qemu.log"

    @property
    def device_tree(self) -> Path:
        return self.folder / f"{self.board}.dtb"

    @property
    def environment_flash(self) -> Path:
        return self.folder / "environment.img"

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(_UUID_SPACE, self.board))


def _machine(tools: LabTools, machine_options: str = "") -> list[str]:
    # The device tree must be dumped with the very options of the run: without -bios it has a GPIO block that does
    # not exist when firmware is given, and Linux dies of it without a word.
    return [
        str(tools.qemu), "-M", f"virt{machine_options}", "-cpu", "cortex-a57", "-m", str(MEMORY_MB),
        "-nographic", "-bios", str(tools.uboot),
    ]  # fmt: skip


def dump_device_tree(tools: LabTools, target: Path) -> None:
    """Write the device tree of the machine that boards run on, without QEMU's padding (1 MiB becomes 7 kB).

    Raises:
        QemuError: QEMU does not write it.
    """
    raw = target.with_suffix(".raw")
    command = [*_machine(tools, f",dumpdtb={_escaped(raw)}"), "-monitor", "none", "-serial", "none", "-nic", "none"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DUMP_TIMEOUT_S, check=False
        )
        if done.returncode != 0 or not raw.is_file():
            raise QemuError(f"{tools.qemu} did not write its device tree: {done.stderr.strip() or 'no reason given'}")
        tree = device_tree.read(raw.read_bytes())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise QemuError(f"{tools.qemu} did not write its device tree: {error}") from error
    except device_tree.DeviceTreeError as error:
        raise QemuError(f"{tools.qemu} wrote a device tree that cannot be read: {error}; {done.stderr}") from error
    finally:
        raw.unlink(missing_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(device_tree.write(tree))
    part.replace(target)


def _escaped(path: Path) -> str:
    """A path inside one of QEMU's comma-separated option strings."""
    return str(path).replace(",", ",,")


def prepare(spec: QemuBoardSpec, base_tree: Path, uboot: Path | None = None) -> None:
    """Write the board's own files: its device tree, where its id is the serial number, and its flash.

    A board without an environment of its own has a flash as well where `uboot` would ask for no script without one.

    Raises:
        OSError: they cannot be written.
        DeviceTreeError: `base_tree` is none.
    """
    spec.folder.mkdir(parents=True, exist_ok=True)
    tree = device_tree.read(base_tree.read_bytes())
    tree.root.set_text("serial-number", spec.board)
    tree.root.set_text("model", "boardhand virtual board")
    tree.root.set_text("compatible", "boardhand,virtual", "linux,dummy-virt")
    spec.device_tree.write_bytes(device_tree.write(tree))
    environment = None
    if spec.own_environment:
        environment = uboot_environment.netboot_environment(spec.uuid)
    elif uboot is not None and not uboot_environment.asks_for_a_script(uboot.read_bytes()):
        environment = uboot_environment.script_environment()
    if environment is None:
        spec.environment_flash.unlink(missing_ok=True)
    else:
        with spec.environment_flash.open("wb") as flash:
            flash.write(uboot_environment.image(environment))
            flash.truncate(uboot_environment.FLASH_BYTES)  # sparse: 256 kB on disk


def command(spec: QemuBoardSpec, tools: LabTools, cable: Cable) -> list[str]:
    """QEMU's command line for the board.

    Raises:
        LabError: a socket's path is too long.
    """
    qmp, console = check_socket_path(spec.qmp_socket), check_socket_path(spec.console_socket)
    log = _escaped(spec.console_log)
    flash = f"if=pflash,index=1,format=raw,file={_escaped(spec.environment_flash)}"
    has_flash = spec.own_environment or spec.environment_flash.is_file()  # else it would come up without its own
    return [
        *_machine(tools),
        "-name", spec.board, "-uuid", spec.uuid, "-S", "-no-shutdown", "-monitor", "none",
        "-chardev", f"socket,id=qmp0,path={_escaped(qmp)},server=on,wait=off", "-mon", "chardev=qmp0,mode=control",
        "-chardev", f"socket,id=console0,path={_escaped(console)},server=on,wait=off,logfile={log},logappend=on",
        "-serial", "chardev:console0",
        "-netdev", cable.qemu_netdev("n0"),
        # romfile: no option ROM needed. disable-legacy: U-Boot 2023.01 reads a wrong MAC from a transitional device.
        "-device", f"virtio-net-pci,netdev=n0,mac={spec.mac},romfile=,disable-legacy=on",
        *(("-drive", flash) if has_flash else ()),
    ]  # fmt: skip


class QemuBoard:
    """A running QEMU for `spec`. It comes up switched off; its agent switches it over `spec.qmp_socket`."""

    def __init__(self, spec: QemuBoardSpec, tools: LabTools, cable: Cable) -> None:
        self.spec = spec
        self._tools = tools
        self._cable = cable
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id of QEMU while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start QEMU, and return when it answers on its QMP socket.

        Raises:
            QemuError: it ended at once, or did not come up in 30 s.
        """
        for path in (self.spec.qmp_socket, self.spec.console_socket):
            remove_stale_socket(path)
        keep_log_small(self.spec.console_log)
        with self.spec.qemu_log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command(self.spec, self._tools, self._cable),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._cable.nic,),
                env=None if environment is None else dict(environment),
                # Nobody else would end it if this process were killed. A session of its own keeps a terminal's
                # Ctrl-C away: the farm decides the order of ending.
                preexec_fn=_in_child,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await self._answers()
        except (QemuError, TimeoutError) as error:
            await self.stop()
            words = self.spec.qemu_log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
            raise QemuError(f"board {self.spec.board}: QEMU does not start: {words or error}") from error

    async def _answers(self) -> None:
        """Return when QMP greets. That the socket is there is not enough: QEMU makes it before it opens the flash."""
        while self.pid is not None:
            try:
                reader, writer = await asyncio.open_unix_connection(self.spec.qmp_socket)
            except OSError:  # not there yet
                await asyncio.sleep(0.02)
                continue
            try:
                if await reader.readline():
                    return
            except OSError:  # it died meanwhile
                await asyncio.sleep(0.02)
            finally:
                writer.close()
        raise QemuError("it ended at once")

    async def wait(self) -> int:
        """Wait for QEMU to end. Returns its exit code, negative for a signal.

        Raises:
            QemuError: it was never started.
        """
        if self._process is None:
            raise QemuError(f"board {self.spec.board}: QEMU was not started")
        return await self._process.wait()

    async def stop(self) -> None:
        """End QEMU: politely, then after 5 s for certain. Leaves no socket behind."""
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        for path in (self.spec.qmp_socket, self.spec.console_socket):
            path.unlink(missing_ok=True)


def _in_child() -> None:
    die_with_parent(signal.SIGKILL)
    os.umask(0o077)  # whoever opens the sockets switches the power and has the console
