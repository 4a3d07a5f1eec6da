"""`agent`: manual page and options; runs the agent, or has the one that runs take up its settings anew."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from cli.command_line import Command, as_json, target_of
from cli.exits import usage


def _options(page: ArgumentParser) -> None:
    page.add_argument("what", metavar="reload", nargs="?", choices=("reload",), help="have a running agent do so")
    page.add_argument("--settings", metavar="FILE", type=Path, help="its settings, TOML (to run it)")
    page.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), help="as [log] says if not given")
    page.add_argument("--log-format", choices=("text", "json"), help="as [log] says if not given")
    page.add_argument("--agent", metavar="NAME", help="of reload: which one, where the farm has several")
    page.add_argument("--check", action="store_true", help="of reload: tell what would change, and change nothing")
    page.add_argument("--partial", action="store_true", help="of reload: leave out what needs a restart")


def _agent(args: Namespace) -> int:
    if args.what == "reload":
        from cli.agent_reload import run

        if args.settings is not None:
            raise usage("reload reads the file that the agent was started with", "leave --settings out")
        return run(target_of(args), args.agent, partial=args.partial, check=args.check, as_json=as_json(args))
    if args.settings is None:
        raise usage("--settings FILE is needed to run an agent", "see 'boardhand agent --help'")
    if args.agent is not None or args.check or args.partial:
        raise usage("--agent, --check and --partial are for 'agent reload'", "see 'boardhand agent --help'")
    from cli.daemons import become

    given = (("--log-level", args.log_level), ("--log-format", args.log_format))
    return become("agent", args.settings, [part for name, value in given if value for part in (name, value)])


AGENT = Command(
    "run the agent of this host in the foreground, or reload its settings",
    "The agent switches and verifies power, boots boards from the network and says over MQTT what is.\n"
    "SIGTERM stops it cleanly. The MQTT server is the one in the settings file.\n"
    "\n"
    "reload has it read its settings file again, as SIGHUP does: what changed is applied, what did not is not\n"
    "disturbed. Exit 2 when the file is wrong, 1 when something needs a restart (--partial leaves that out) or is\n"
    "under way; nothing is changed then. JSON of reload: {agent, changes: [{key, what}], restart: [{key, why}],\n"
    "boards: {added, removed, changed}, took_ms}.",
    _options,
    _agent,
)
