"""The MQTT server of `boardhand up`: a Mosquitto child of our own with a generated configuration."""

import os
import shutil
import socket
from pathlib import Path

from cli.exits import CliError, Exit, usage

HOST = "127.0.0.1"  # anonymous access is given to this machine alone
PROGRAM = "mosquitto"
# Debian installs it where a plain user's PATH does not look.
EXTRA_PATH = "/usr/sbin:/usr/local/sbin"
# 200 boards' states and a broker's backlog of one night's job logs; beyond it Mosquitto drops, it does not grow.
MAX_QUEUED_MESSAGES = 10_000
START_DEADLINE_S = 10.0  # it takes 21 ms; a machine under load a second

_TEMPLATE = """\
# Written by 'boardhand up' at each start: changes are lost.
listener {port} {host}
allow_anonymous true
# Off by default; without it 2,000 batched QoS 1 publishes take 8.8 s instead of 0.1 s (Nagle and delayed ACK).
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
    """A port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether somebody listens on that port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Mosquitto does: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def configuration(port: int, data: Path, log: Path) -> str:
    """The text of the configuration file.

    Raises:
        CliError: a path has characters that Mosquitto's configuration cannot carry.
    """
    for path in (data, log):
        if not str(path).isprintable() or str(path) != str(path).strip():
            raise usage(f"folder {str(path)!r} cannot stand in a Mosquitto configuration", "choose another --state-dir")
    text = _TEMPLATE.format(port=port, host=HOST, queued=MAX_QUEUED_MESSAGES, data=data, log=log)
    return text + _AS_ROOT if os.geteuid() == 0 else text


def prepare(folder: Path, log: Path, port: int) -> list[str]:
    """Write the configuration into `folder` and return the command that starts the server.

    Raises:
        CliError: Mosquitto is not installed.
        OSError: the folder cannot be written.
    """
    command = program()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    conf = folder / "mosquitto.conf"
    fresh = folder / "mosquitto.conf.new"
    fresh.write_text(configuration(port, folder, log), encoding="utf-8")
    fresh.replace(conf)
    return [command, "-c", str(conf)]
