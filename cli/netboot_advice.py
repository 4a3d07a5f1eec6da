"""`boardhand netboot advice`: what another DHCP server has to say for this agent's boards to boot from it."""

import json
from ipaddress import IPv4Address
from pathlib import Path

from cli.exits import CliError, Exit, usage
from netboot.boot_files import boot_file_for
from netboot.dhcp_advice import AdviceSyntax, advice
from netboot.dhcp_options import ClientKind, named_to
from netboot.dhcp_settings import DhcpBoard
from netboot.server_settings import NetbootBoard


def tell(settings: Path, syntax: str, *, as_json: bool) -> int:
    """Print the lines for all boards with an address and a profile, as the settings file has them now.

    Raises:
        CliError: the file cannot be read, or has no board network.
    """
    if not settings.is_file():
        raise usage(f"settings file {settings} is not there, or is no file", "mend --settings")
    from agent import netboot_bridge
    from agent.settings import load
    from daemon.settings_file import SettingsError

    try:
        loaded = load(settings)
    except SettingsError as error:
        raise CliError(Exit.USAGE, f"agent: {error}") from None
    config = netboot_bridge.config(loaded)
    if config is None:
        raise usage(f"{settings} has no [netboot] table", "name the settings file of the agent that serves the boards")
    lines = _lines(netboot_bridge.boards(loaded), AdviceSyntax(syntax), config.server_address, config.http_port)
    print(json.dumps({"syntax": syntax, "lines": lines}) if as_json else "\n".join(lines))
    return Exit.OK


def _lines(boards: list[NetbootBoard], syntax: AdviceSyntax, server: IPv4Address, http_port: int | None) -> list[str]:
    profiles = {board.board: board.profile for board in boards}

    def named(board: str | None, kind: ClientKind) -> str | None:
        profile = profiles.get(board or "")
        name = None if profile is None else boot_file_for(profile, kind)
        return named_to(kind, name, server, http_port)

    known = [DhcpBoard(board.board, board.macs, board.address, board.profile.boot_file) for board in boards]
    return advice(syntax, known, named, server)
