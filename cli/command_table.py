"""Every command: its manual page, its options, and the late import of the module that does the work."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from cli.agent_command import AGENT
from cli.backup_command import BACKUP, RESTORE
from cli.board_command import BOARD
from cli.bootloader_command import BOOTLOADER
from cli.command_line import Command, as_json, count, positive, target_of
from cli.completion_command import COMPLETION
from cli.console_command import CONSOLE
from cli.discover_command import DISCOVER
from cli.doctor_command import DOCTOR
from cli.energy_options import price, since
from cli.exits import usage
from cli.flash_command import FLASH, MODE
from cli.image_command import IMAGE
from cli.job_commands import JOB, SUBMIT
from cli.join_command import JOIN
from cli.learn_command import LEARN
from cli.lease_commands import LEASES
from cli.mqtt_acl_command import MQTT_ACL
from cli.netboot_command import NETBOOT
from cli.roots_command import ROOT
from cli.simulate_command import SIMULATE
from cli.token_command import TOKEN
from cli.udev_command import UDEV


def _nothing(_: ArgumentParser) -> None:
    """A command without options of its own."""


# --- power -----------------------------------------------------------------------------------------------------


def _power_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    page.add_argument("action", metavar="on|off|cycle|status")
    page.add_argument("--force", action="store_true", help="pass over a lease (operators)")
    page.add_argument("--token", metavar="N", help="token of your lease on the board, where it is not kept here")
    page.add_argument("--timeout-s", metavar="S", help="wait this long for the result (60; cycle 120)")
    page.add_argument("--expires-s", metavar="S", help="the agent refuses the command after this time (the timeout)")


def _power(args: Namespace) -> int:
    from cli.power import PowerRequest, fill, run

    options = {name: getattr(args, name) for name in ("token", "timeout_s", "expires_s")}
    flags = {"--json"} if as_json(args) else set()
    flags |= {"--force"} if args.force else set()
    return run(fill(PowerRequest(args.board, args.action), options, flags), target_of(args))


# --- looking ---------------------------------------------------------------------------------------------------


def _boards_options(page: ArgumentParser) -> None:
    page.add_argument("--watch", action="store_true", help="stay, and redraw; lines when there is no terminal")
    page.add_argument("--for-s", metavar="S", type=positive, help="end --watch after this time")


def _boards(args: Namespace) -> int:
    from cli.boards import run

    return run(target_of(args), as_json=as_json(args), watch=args.watch, for_s=args.for_s)


def _outlets_options(page: ArgumentParser) -> None:
    page.add_argument("controller", metavar="CONTROLLER", nargs="?", help="this one only")


def _outlets(args: Namespace) -> int:
    from cli.outlets import run

    return run(target_of(args), args.controller, as_json=as_json(args))


def _energy_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD", nargs="*", help="of these boards only")
    when = "24h, 7d, 2026-11-01; goes back to the full hour, beyond 14 days to the full day (24h)"
    page.add_argument("--since", metavar="TIME", type=since, default=86400.0, help=when)
    page.add_argument("--by", choices=("hour", "day"), help="and each hour or day, UTC")
    page.add_argument("--price", metavar="P", type=price, help="price of 1 kWh: show what it cost")


def _energy(args: Namespace) -> int:
    from cli.energy import run

    return run(target_of(args), args.board, since=args.since, by=args.by, price=args.price, as_json=as_json(args))


def _events_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD", nargs="?", help="of this board only")
    how = page.add_mutually_exclusive_group()
    how.add_argument("--follow", action="store_true", help="until Ctrl-C (this is what happens without options)")
    how.add_argument("--count", metavar="N", type=count, help="end after N events")
    page.add_argument("--for-s", metavar="S", type=positive, help="end after this time; exit 4 if below --count")


def _events(args: Namespace) -> int:
    from cli.events import run

    return run(target_of(args), args.board, as_json=as_json(args), count=args.count, for_s=args.for_s)


# --- work ------------------------------------------------------------------------------------------------------


def _jobs_options(page: ArgumentParser) -> None:
    page.add_argument("--limit", metavar="N", type=count, default=20, help="at most N, newest first (20)")
    states = ("queued", "waking", "offered", "running", "passed", "failed", "error", "cancelled")
    page.add_argument("--state", metavar="STATE", choices=states, help=f"in this state only: {', '.join(states)}")


def _jobs(args: Namespace) -> int:
    from cli.jobs import show_jobs

    return show_jobs(target_of(args), limit=args.limit, state=args.state, as_json=as_json(args))


def _logs_options(page: ArgumentParser) -> None:
    page.add_argument("job", metavar="JOB")
    page.add_argument("--follow", action="store_true", help="go on until the job has ended")


def _logs(args: Namespace) -> int:
    from cli.jobs import show_logs

    return show_logs(target_of(args), args.job, follow=args.follow, as_json=as_json(args))


def _job_name(page: ArgumentParser) -> None:
    page.add_argument("name", metavar="JOB")


def _board_name(page: ArgumentParser) -> None:
    page.add_argument("name", metavar="BOARD")


def _simple(verb: str, key: str) -> Callable[[Namespace], int]:
    def run(args: Namespace) -> int:
        from cli.jobs import simple

        return simple(target_of(args), verb, key, args.name, as_json=as_json(args))

    return run


# --- daemons ---------------------------------------------------------------------------------------------------


def _settings_option(page: ArgumentParser) -> None:
    page.add_argument("--settings", metavar="FILE", type=Path, required=True, help="settings, TOML")
    page.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="as [log] says if not given")
    page.add_argument("--log-format", choices=("text", "json"), help="as [log] says if not given")


def _check_options(page: ArgumentParser) -> None:
    page.add_argument("settings", metavar="FILE", type=Path)


def _daemon(module: str) -> Callable[[Namespace], int]:
    def run(args: Namespace) -> int:
        from cli.daemons import become

        given = (("--log-level", args.log_level), ("--log-format", args.log_format))
        return become(module, args.settings, [part for name, value in given if value for part in (name, value)])

    return run


def _check(args: Namespace) -> int:
    from cli.daemons import check

    return check(args.settings, as_json=as_json(args))


def _up_options(page: ArgumentParser) -> None:
    page.add_argument("--boards", metavar="N", type=int, default=2, help="virtual boards that really boot (2)")
    page.add_argument("--light", metavar="M", type=int, default=0, help="and M light ones that only answer (0)")
    page.add_argument("--no-farm", action="store_true", help="MQTT server and broker only")
    page.add_argument("--settings", metavar="FILE", type=Path, help="a real agent with these settings, no virtual farm")
    page.add_argument("--port", metavar="P", type=count, help="port of the private MQTT server (a free one)")
    page.add_argument("--page-port", metavar="P", type=count, help="port of the page (8070, or a free one)")
    page.add_argument("--no-page", action="store_true", help="no page and no HTTP API")
    page.add_argument("--state-dir", metavar="DIR", type=Path, help="kept here (XDG_STATE_HOME/boardhand/up)")
    page.add_argument("--idle-s", metavar="S", type=positive, help="boards idle for this long are put to sleep")
    page.add_argument("--demo", action="store_true", help="run a job, see a board sleep, wake it by a job, end")
    page.add_argument("--demo-deadline-s", metavar="S", type=positive, default=900.0, help=SUPPRESS)


def _up(args: Namespace) -> int:
    from cli.up import run

    return run(args)


# --- serial cables ---------------------------------------------------------------------------------------------


def _serial_options(page: ArgumentParser) -> None:
    page.add_argument("--sysfs", metavar="DIR", type=Path, default=Path("/sys"), help="where sysfs is (/sys)")


def _serial(args: Namespace) -> int:
    from cli.serial_cables import show

    return show(args.sysfs, as_json=as_json(args))


def _hubs_options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="prove", nargs="?", choices=("prove",), help="switch one port off and on once")
    page.add_argument("port", metavar="HUB:PORT", nargs="?", help="hub by place, serial number or the kernel's name")
    page.add_argument("--yes", action="store_true", help="do not ask before power is switched")
    page.add_argument("--force", action="store_true", help="also a root hub's port, or one that feeds a chained chip")
    page.add_argument("--sysfs", metavar="DIR", type=Path, default=Path("/sys"), help=SUPPRESS)


def _hubs(args: Namespace) -> int:
    from cli.hubs import Bench, show

    bench = Bench(args.sysfs)
    if args.what is None:
        return show(bench, as_json=as_json(args))
    if args.port is None:
        raise usage("prove needs HUB:PORT", "see 'boardhand hubs'")
    from cli.hub_proof import prove

    return prove(args.port, bench, yes=args.yes, force=args.force, as_json=as_json(args))


def _initramfs_options(page: ArgumentParser) -> None:
    page.add_argument("out", metavar="OUT", type=Path, help="the image to write")
    page.add_argument(
        "--arch", choices=("arm64", "armhf", "amd64", "riscv64"), default="arm64", help="of the board (arm64)"
    )
    page.add_argument(
        "--client", choices=("busybox", "python"), default="busybox", help="form of the on-board client (busybox)"
    )
    page.add_argument("--kernel", metavar="FILE", type=Path, help="write Debian's kernel for it here, gzipped")
    page.add_argument("--modules-dir", metavar="DIR", type=Path, help="lib/modules/VERSION of a kernel of your own")
    page.add_argument("--module", metavar="NAME", action="append", default=[], help="kernel module to load; may repeat")
    page.add_argument("--roots", action="store_true", help="with what a board needs that goes on to a root over NFS")


def _initramfs(args: Namespace) -> int:
    from cli.initramfs import run

    return run(args)


COMMANDS: dict[str, Command] = {
    "up": Command(
        "start everything on this machine: MQTT server, broker, virtual boards",
        "Starts a private Mosquitto on 127.0.0.1, the work broker, and virtual boards (or a real agent), and keeps\n"
        "them running until Ctrl-C. Any user of this machine can reach that server; --mqtt uses one of yours.\n"
        'JSON lines: {"stage", "text"}, then {"ready": true, "mqtt", "prefix", "state_dir"}.',
        _up_options,
        _up,
    ),
    "agent": AGENT,
    "broker": Command(
        "run the farm's work broker in the foreground",
        "The broker hands out jobs, wakes boards that are needed and puts idle ones to sleep. SIGTERM stops it\n"
        "cleanly. The MQTT server is the one in the settings file.",
        _settings_option,
        _daemon("broker"),
    ),
    "boards": Command(
        "list the boards: power, phase, agent, job",
        "Power is what was read back from the hardware; unknown while a board's agent is away.\n"
        'JSON: {"boards": [{board, power, phase, reason, since, agent, agent_state, job, seq}]};\n'
        'with --watch lines of {"board": …}, {"event": …}, {"gone": id}.',
        _boards_options,
        _boards,
    ),
    "power": Command(
        "switch a board on, off, cycle it, or show its status",
        "Returns when the agent has read back from the hardware that it is so.\n"
        "JSON: {board, action, ok, power, took_ms, error: {kind, message}}; for status the retained state with\n"
        "board and agent_state added.",
        _power_options,
        _power,
    ),
    "outlets": Command(
        "list controllers and outlets, asked now",
        "For each hub, PDU and plug of every agent: what it is and why that is believed, and its outlets with their\n"
        "power, the board that they feed, and what is written on them. CONTROLLER:OUTLET is what a feed names.\n"
        'JSON: {"controllers": [{agent, name, driver, device, problem, outlets: [{outlet, power, board, name}]}],\n'
        "silent}.",
        _outlets_options,
        _outlets,
    ),
    "energy": Command(
        "show what boards used, and what sleep saved",
        "USED is what devices measured. Its gaps are not filled but estimated apart, marked ≈: from the board's own\n"
        "average, or from watts_idle, watts_busy and watts_off in the agent's settings. Exit 4 when an agent did not\n"
        "answer.\n"
        'JSON: {"boards": [{agent, board, measured_wh, estimated_wh, saved_wh, saved_basis, …}], total, silent}.',
        _energy_options,
        _energy,
    ),
    "simulate": SIMULATE,
    "backup": BACKUP,
    "restore": RESTORE,
    "token": TOKEN,
    "netboot": NETBOOT,
    "root": ROOT,
    "console": CONSOLE,
    "bootloader": BOOTLOADER,
    "flash": FLASH,
    "mode": MODE,
    "events": Command(
        "show what happens, live",
        "Doubles are dropped; gaps are said ('3 events missing before seq 18').\n"
        'JSON lines: the events as on MQTT, and {"gap": {board, missing, before_seq}}.',
        _events_options,
        _events,
    ),
    "submit": SUBMIT,
    "job": JOB,
    "jobs": Command("list jobs, newest first", 'JSON: {"jobs": [summary]}.', _jobs_options, _jobs),
    "logs": Command(
        "show the log of a job", "JSON lines: {seq, text, step, attempt}.", _logs_options, _logs
    ),
    "cancel": Command("cancel a job", "JSON: the broker's word.", _job_name, _simple("cancel", "job")),
    "board": BOARD,
    "join": JOIN,
    "sleep": Command(
        "put an idle board to sleep now", "JSON: the broker's word.", _board_name, _simple("sleep", "board")
    ),
    "wake": Command("wake a sleeping board", "JSON: the broker's word.", _board_name, _simple("wake", "board")),
    "learn": LEARN,
    **LEASES,
    "check": Command(
        "check a settings file without starting anything",
        "Exit 0 when the broker (and, if it has a table [agent], the agent) would take it, else 2 with the line at\n"
        "fault. JSON: {ok, checked: [agent, broker]}.",
        _check_options,
        _check,
    ),
    "doctor": DOCTOR,
    "mqtt-acl": MQTT_ACL,
    "completion": COMPLETION,
    "initramfs": Command(
        "build the image that boards boot: busybox, modules, our client",
        "Fetches what it needs from this machine's apt sources, without root, and keeps it in the cache\n"
        "(BOARDHAND_CACHE, else XDG_CACHE_HOME/boardhand). Put the image into a profile as initrd.\n"
        'JSON lines: {"stage", "text"}.',
        _initramfs_options,
        _initramfs,
    ),
    "image": IMAGE,
    "serial": Command(
        "list serial cables and how each can be recognised",
        'JSON: {"ports": [{name, node, driver, vendor, product, serial, id_path}]}.',
        _serial_options,
        _serial,
    ),
    "discover": DISCOVER,
    "hubs": Command(
        "list USB hubs, and what is known of each port's power",
        "Shows each hub's place, which the settings of the agent want, what hangs on its ports, and one word for each\n"
        "port's power. 'boardhand hubs prove HUB:PORT' switches it off and on once and reports what vanished and came\n"
        "back: exit 0 if it really switches, else 1. An agent that uses the hub is not asked and may see it.\n"
        'JSON: {"hubs": [{id, name, serial, other_half, ports: [{port, power, truth, why, children}]}]}; of prove:\n'
        "{verdict, why, said_off, said_on, vanished, stayed, returned, missing}.",
        _hubs_options,
        _hubs,
    ),
    "udev": UDEV,
}  # fmt: skip
