"""What the settings say of a board, as it is told to the world."""

from collections.abc import Mapping

from agent.console.desk import address_of
from agent.settings import AgentSettings
from wire.payloads import BoardInfo, Label, Registration

ARCH_OF_MACHINE = {"aarch64": "arm64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm"}
"""What `uname -m` says, as profiles and jobs call it; `x86_64` and `riscv64` are the same in both."""


def of(settings: AgentSettings, name: str) -> BoardInfo:
    """`board/<board>/info` before the board itself has said anything."""
    board = settings.boards[name]
    profile = None if board.profile is None else settings.profiles.get(board.profile)
    return BoardInfo(
        macs=board.macs,
        uuid=board.uuid,
        address=None if board.address is None else str(board.address),
        # The broker must not wake a board, nor wait for one, that will never ask for work.
        labels={
            **({} if board.registers else {"work": False}),
            **({"sleep": False} if board.never_off else {}),
            **board.labels,
        },
        feed=board.outlets,
        console=None
        if board.console is None
        else address_of(name, board.console, settings.consoles, settings.agent.state_dir),
        image=board.profile,
        # A board that has never been up is woken for a job that asks for it.
        arch=None if profile is None else profile.arch,
    )


def learned(info: BoardInfo, request: Registration, own: Mapping[str, Label]) -> BoardInfo:
    """`info` with what the board has said of itself. Labels of its inventory stand below its `own`, the settings'."""
    said = request.model_dump(
        include={"serial", "uuid", "compatible", "arch", "memory_mb", "address"}, exclude_none=True
    )
    known = {key: value for key, value in said.items() if value not in ("", [])}
    if "arch" in known:
        known["arch"] = ARCH_OF_MACHINE.get(known["arch"], known["arch"])
    known["labels"] = {**request.inventory, **own}
    return info.model_copy(update={**known, "macs": sorted({*info.macs, *request.macs, request.mac})})
