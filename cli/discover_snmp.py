"""With which credentials `discover` asks PDUs: options that name files and environment variables, never a secret."""

from argparse import Namespace
from ipaddress import ip_address

from pydantic import ValidationError

from agent.discovery.findings import TomlValue
from agent.discovery.snmp_pdus import SnmpAccess
from cli.discover_command import USUAL
from cli.exits import usage


def snmp_accesses(args: Namespace) -> tuple[SnmpAccess, ...]:
    """What the options say: version 3 first, which tells nobody a secret.

    Raises:
        CliError: they do not fit together.
    """
    found = []
    user, community = _user(args), _secret(args, "community")
    if user:
        found.append(SnmpAccess({"version": "3", **user}, args.snmp_port))
    if community:
        found.append(SnmpAccess({"version": args.snmp_version, **community}, args.snmp_port))
    for access in found:
        try:
            access.settings(ip_address("127.0.0.1"))
        except ValidationError as problem:
            said = str(problem.errors()[0]["msg"]).removeprefix("Value error, ")
            raise usage(said, "see 'boardhand discover --help'") from None
    return tuple(found)


def _user(args: Namespace) -> dict[str, TomlValue]:
    keys: dict[str, TomlValue] = {} if args.snmp_user is None else {"user": args.snmp_user}
    for what in ("auth", "priv"):
        key = _secret(args, f"{what}_key")
        name = f"{what}_protocol"
        protocol = getattr(args, name) or (USUAL[name] if key else None)
        keys |= ({name: protocol} if protocol else {}) | key
    return keys


def _secret(args: Namespace, name: str) -> dict[str, TomlValue]:
    """Where a secret is. A whole path: it must hold wherever the agent is started."""
    file, env = getattr(args, f"{name}_file"), getattr(args, f"{name}_env")
    found: dict[str, TomlValue] = {} if file is None else {f"{name}_file": str(file.absolute())}
    return found if env is None else found | {f"{name}_env": env}
