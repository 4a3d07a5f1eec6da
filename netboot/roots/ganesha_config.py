"""What nfs-ganesha is told: its configuration as text. Pure (ganesha-core-config(8), ganesha-export-config(8)).

`Access_Type = NONE` on the export and a CLIENT block per export: with RO on the export, ganesha 4.3 lets any address
mount it over v4, whatever its CLIENT blocks say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from netboot.roots.engine import MAX_EXPORTS, Export
from netboot.roots.errors import EngineError

PROGRAM = "ganesha.nfsd"
PACKAGES = "apt-get install --no-install-recommends nfs-ganesha nfs-ganesha-vfs"
_PLUGIN_PLACES = ("/usr/lib/*/ganesha", "/usr/lib64/ganesha", "/usr/lib/ganesha")


@dataclass(frozen=True, slots=True)
class GaneshaSettings:
    """`folder` is ours: configuration, process id and what it needs to recover. `lease_s` is NFSv4's: how long a board
    that vanished keeps its locks, and half of how long one waits after a restart of the server. `v3`: NFSv3 beside v4,
    for which rpcbind must run. `listens`: the address and port where `ping` finds it; None: it is not asked."""

    folder: Path
    port: int = 2049
    lease_s: int = 10
    program: str = PROGRAM
    v3: bool = False
    listens: tuple[str, int] | None = None


def render(exports: Sequence[Export], numbers: dict[str, int], settings: GaneshaSettings, plugins: Path | None) -> str:
    """The whole configuration: the same input gives the same text."""
    plugins_line = f' Plugins_Dir = "{plugins}";' if plugins is not None else ""
    # Mount_Path_Pseudo: v3 clients, too, see names and not our folders.
    mount = f" MNT_Port = {settings.port + 1}; Mount_Path_Pseudo = true;" if settings.v3 else ""
    core = (
        f"Protocols = {_protocols(settings)}; NFS_Port = {settings.port};{mount} Enable_NLM = false; "
        f"Enable_RQUOTA = false; Enable_UDP = false;{plugins_line}"
    )
    # Graceless: a board that comes up must not wait for boards that were there before us.
    v4 = (
        f"Graceless = true; Grace_Period = {settings.lease_s}; Lease_Lifetime = {settings.lease_s}; "
        f'Minor_Versions = 0,1,2; RecoveryBackend = fs; RecoveryRoot = "{settings.folder}/recovery"; '
        "Only_Numeric_Owners = true;"
    )
    lines = ["# Written by boardhand; changes are lost.", f"NFS_CORE_PARAM {{ {core} }}", f"NFSv4 {{ {v4} }}"]
    lines += [block(export, numbers[export.name], v3=settings.v3) for export in exports]
    return "\n".join(lines) + "\n"


def block(export: Export, number: int, *, v3: bool = False) -> str:
    """One export. `number` is in the file handles of those who have mounted it."""
    access = "RW" if export.writable else "RO"
    clients = ", ".join(str(client) for client in export.clients)
    protocols = "3,4" if v3 else "4"
    return (
        f'EXPORT {{ Export_Id = {number}; Path = "{export.path}"; Pseudo = "/{export.name}"; Access_Type = NONE; '
        f"Squash = No_Root_Squash; SecType = sys; Protocols = {protocols}; Transports = TCP; "
        f"Filesystem_Id = 7007.{number}; FSAL {{ Name = VFS; }} "
        f"CLIENT {{ Clients = {clients}; Access_Type = {access}; Protocols = {protocols}; }} }}"
    )


def numbered(exports: Sequence[Export], numbers: dict[str, int]) -> None:
    """Give each export that has none in `numbers` one that is free.

    Raises:
        EngineError: a name stands twice, or there are too many.
    """
    names = [export.name for export in exports]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or len(names) > MAX_EXPORTS:
        raise EngineError(f"export {twice} stands twice" if twice else f"more than {MAX_EXPORTS} exports")
    taken = set(numbers.values())
    free = (number for number in range(1, MAX_EXPORTS + len(names)) if number not in taken)
    for name in names:
        if name not in numbers:
            numbers[name] = next(free)


def plugins() -> Path | None:
    """The folder with ganesha's back ends. Debian's is not where its binary looks."""
    for place in _PLUGIN_PLACES:
        for folder in Path("/").glob(place.lstrip("/")):
            if any(folder.glob("libfsalvfs.so*")):
                return folder
    return None


def _protocols(settings: GaneshaSettings) -> str:
    return "3,4" if settings.v3 else "4"
