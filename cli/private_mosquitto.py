"""The MQTT server of `boardhand up`: a Mosquitto child of our own with a generated configuration."""

import contextlib
import os
import secrets
import shutil
import socket
from pathlib import Path

from cli.board_listener import BoardListener
from cli.exits import CliError, Exit, usage

HOST = "127.0.0.1"  # anonymous access is given to this machine alone
PROGRAM = "mosquitto"
# Debian installs it where a plain user's PATH does not look.
EXTRA_PATH = "/usr/sbin:/usr/local/sbin"
# 200 boards' states and a broker's backlog of one night's job logs; beyond it Mosquitto drops, it does not grow.
MAX_QUEUED_MESSAGES = 10_000
_ACL = "boards.acl"
# The kernel takes the source ports of outgoing connections from above: Linux from 32768 on (ip_local_port_range in
# ip(7)), gVisor from 16000 on. Any of them could take a port of up there before our server does, or while it restarts.
QUIET_PORTS = (10_240, 16_000)
QUIET_TRIES = 200
START_DEADLINE_S = 10.0  # it takes 21 ms; a machine under load a second

_TEMPLATE = """\
# Written by 'boardhand up' at each start: changes are lost.
per_listener_settings true
listener {port} {host}
allow_anonymous true
{boards}# Off by default; without it 2,000 batched QoS 1 publishes take 8.8 s instead of 0.1 s (Nagle and delayed ACK).
set_tcp_nodelay true
max_queued_messages {queued}
persistence true
persistence_location {data}/
# Save after each change, at the end of the network round that brought it: a kill -9 right after the last
# acknowledgement lost 0 of 500 retained and 0 or 1 of 200 queued messages (the acknowledgement leaves before the
# save). Saving every second lost all 700, every 10 changes 2. The price is speed: 350 to 550 acknowledged retained
# publishes a second instead of 87,000; a farm on one machine makes some tens.
autosave_on_changes true
autosave_interval 1
persistent_client_expiration 7d
log_dest file {log}
log_type error
log_type warning
log_type notice
# Each command is a connection: two lines each would fill the log.
connection_messages false
log_timestamp_format %Y-%m-%dT%H:%M:%S
"""
_FOR_BOARDS = """\
listener {port} {host}
allow_anonymous true
acl_file {acl}
"""
# It would become user 'mosquitto', who may not write into our folder. Anybody else stays who they are.
_AS_ROOT = "user root\n"


def program() -> str:
    """Where Mosquitto is.

    Raises:
        CliError: it is not installed.
    """
    found = shutil.which(PROGRAM) or shutil.which(PROGRAM, path=EXTRA_PATH)
    if found is None:
        raise CliError(
            Exit.USAGE,
            "'mosquitto' is not installed, and 'boardhand up' needs an MQTT server",
            "install it with 'sudo apt install mosquitto', or name a server of yours with --mqtt URL",
        )
    return found


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, and that stays free until a server takes it, also after it has ended.

    Raises:
        CliError: there is none.
    """
    for port in secrets.SystemRandom().sample(range(*QUIET_PORTS), QUIET_TRIES):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise CliError(Exit.FAILED, f"no free port was found on {HOST}; choose one with --port")


def is_taken(port: int) -> bool:
    """Whether somebody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Mosquitto does: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def configuration(port: int, data: Path, log: Path, boards: BoardListener | None = None) -> str:
    """The text of the configuration file. The access list for `boards` lies beside it, as `boards.acl`.

    Raises:
        CliError: a path has characters that Mosquitto's configuration cannot carry.
    """
    for path in (data, log):
        if not str(path).isprintable() or str(path) != str(path).strip():
            raise usage(f"folder {str(path)!r} cannot stand in a Mosquitto configuration", "choose another --state-dir")
    second = ""
    if boards is not None:
        second = _FOR_BOARDS.format(port=boards.port, host=boards.host, acl=data / _ACL)
    text = _TEMPLATE.format(port=port, host=HOST, boards=second, queued=MAX_QUEUED_MESSAGES, data=data, log=log)
    return text + _AS_ROOT if os.geteuid() == 0 else text


def prepare(folder: Path, log: Path, port: int, boards: BoardListener | None = None) -> list[str]:
    """Write the configuration into `folder` and return the command that starts the server.

    Raises:
        CliError: Mosquitto is not installed.
        OSError: the folder cannot be written.
    """
    command = program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if boards is not None:
        access = folder / _ACL
        access.write_text(boards.acl, encoding="utf-8")
        access.chmod(0o600)  # Mosquitto warns of one that others may read
    conf = folder / "mosquitto.conf"
    fresh = folder / "mosquitto.conf.new"
    fresh.write_text(configuration(port, folder, log, boards), encoding="utf-8")
    fresh.replace(conf)
    return [command, "-c", str(conf)]
