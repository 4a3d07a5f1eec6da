"""A virtual switched PDU or PoE switch that speaks SNMPv1, v2c and v3 over UDP, with its family's own tables.

Run it:

    python -m virtual_lab.snmp_pdu --port 0 --model eaton-g3 --outlets 24 --community-file FILE

It prints one line of JSON when it is ready (`{"ready": true, "host": …, "port": …}`) and then takes one JSON object per
line on its standard input, each answered by one line: `{"do": "deaf", "value": true}` stops it answering,
`{"do": "lie", "outlets": ["2"]}` makes outlets accept and not switch, `{"do": "refuse", "outlets": […]}` makes them
answer genErr, `{"do": "delay", "value": 2.0}` sets how long the state follows the command, `{"do": "press", "outlet":
"1", "on": true}` is a hand at the button, `{"do": "state"}` tells all; `snmp_pdu_faults.carry_out_line` knows more
faults. The end of the input ends it only with `--stop-at-eof`, so that it may also run as a service. `--count N` serves
N devices in one process; the ready line has their `ports`, and a control line with `"pdu": N` (from 0) is for that one.

From Python: `async with VirtualPdu(PduSettings(model="eaton-g3", outlets=8)) as pdu: …`, in the caller's event loop.
"""

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from virtual_lab.pdu_models import MODELS
from virtual_lab.snmp_pdu_control import serve_until_told
from virtual_lab.snmp_pdu_device import DEFAULT_ENGINE_ID, PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from virtual_lab.snmp_pdu_faults import DeviceReboot
from virtual_lab.snmp_pdu_hooks import Hook, command_hook, qmp_hook
from virtual_lab.snmp_pdu_tables import FAMILY_NAMES

__all__ = ["DEFAULT_ENGINE_ID", "DeviceReboot", "Hook", "PduSettings", "VirtualPdu", "command_hook", "qmp_hook"]


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.snmp_pdu", description="A virtual switched PDU.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="UDP port; 0 takes a free one")
    parser.add_argument("--count", type=int, default=1, help="so many devices, each on its own port")
    parser.add_argument("--outlets", type=int, default=8)
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, help="APC's tables to serve; default all")
    parser.add_argument("--model", choices=sorted(MODELS), help="instead of --family: what device it is")
    parser.add_argument("--community-file", type=Path, help="holds the community that may write (default private)")
    parser.add_argument("--user-file", action="append", type=Path, default=[], help="JSON of one SNMPv3 user")
    parser.add_argument("--engine-id", default=DEFAULT_ENGINE_ID, help="hexadecimal, 5 to 32 octets")
    parser.add_argument("--delay-s", type=float, default=0.0, help="the state follows a command after this")
    parser.add_argument("--lie", action="append", default=[], metavar="OUTLET", help="accepts and does not switch")
    parser.add_argument("--refuse", action="append", default=[], metavar="OUTLET", help="answers genErr")
    parser.add_argument("--on", action="store_true", help="all outlets are on at the start")
    parser.add_argument("--light", action="store_true", help="answer v1 and v2c without pysnmp, for benchmarks")
    parser.add_argument("--qmp", action="append", default=[], metavar="OUTLET=SOCKET", help="drives a QEMU machine")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    args = parser.parse_args(argv)
    if args.count < 1 or (args.count > 1 and (args.port or args.qmp)):
        parser.error("--count is at least 1, and more than 1 goes with neither --port nor --qmp")
    return args


def _settings(args: argparse.Namespace) -> PduSettings:
    community = args.community_file.read_text().strip() if args.community_file else "private"
    return PduSettings(
        host=args.host,
        port=args.port,
        outlets=args.outlets,
        families=tuple(args.family or FAMILY_NAMES),
        model=args.model,
        write_community=community,
        users=tuple(V3User(**json.loads(path.read_text())) for path in args.user_file),
        engine_id=args.engine_id,
        delay_s=args.delay_s,
        initially_on=args.on,
        lying=frozenset(args.lie),
        refusing=frozenset(args.refuse),
        light=args.light,
    )


def _chosen(pdus: list[VirtualPdu], line: str) -> dict[str, Any]:
    """Carry out a control line with the device that its key `pdu` names."""
    try:
        request = json.loads(line)
        pdu = pdus[int(request.pop("pdu", 0))]
    except (ValueError, TypeError, AttributeError, IndexError) as problem:
        return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
    return pdu.control(json.dumps(request))


async def _serve(args: argparse.Namespace) -> None:
    sockets = {outlet: Path(path) for outlet, _, path in (text.partition("=") for text in args.qmp)}
    async with AsyncExitStack() as stack:
        hook = qmp_hook(sockets) if sockets else None
        settings = _settings(args)
        pdus = [await stack.enter_async_context(VirtualPdu(settings, hook=hook)) for _ in range(args.count)]
        ready = {"host": settings.host, "port": pdus[0].port, "ports": [pdu.port for pdu in pdus]}
        await serve_until_told(lambda line: _chosen(pdus, line), ready, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(_arguments(sys.argv[1:] if argv is None else argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
