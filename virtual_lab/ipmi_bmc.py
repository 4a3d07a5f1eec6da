"""A virtual BMC that speaks IPMI 2.0 (RMCP+) on UDP: pyghmi's own server, with a chassis and a power meter.

    VIRTUAL_BMC_PASSWORD=… python -m virtual_lab.ipmi_bmc --port 0 --user admin

It prints `{"ready": true, "port": …}` and one line per command that reached the chassis, as `{"on": true}`, and ends
with its standard input. pyghmi answers a proposal of SHA-256 (cipher suite 17) as if it had been SHA-1; here it is
refused as IPMI 2.0 section 13.24 says, and clients come back with suite 3.
"""

import argparse
import json
import os
import socket
import sys
import threading
import time
from importlib import import_module
from typing import Any

NO_CIPHER_SUITE = 0x11
"""RMCP+ status, IPMI 2.0 table 13-15."""
SHA_1 = 1
AUTHENTICATION_AT = 12
"""Where an Open Session Request has its authentication algorithm, table 13-9."""
WATTS_ON, WATTS_OFF = 87, 4
ANSWER_DELAY_S = 0.005
"""A real BMC takes longer. pyghmi's client misses an answer that is there before it began to wait, and asks again after
0.5 to 1 s: on loopback that is every other one."""


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve(host: str, port: int, accounts: dict[str, str], *, lying: bool) -> None:
    """Serve for ever."""
    base: Any = import_module("pyghmi.ipmi.bmc").Bmc
    session: Any = import_module("pyghmi.ipmi.private.serversession").ServerSession
    network: Any = import_module("pyghmi.ipmi.private.session")
    send = network._io_sendto  # noqa: SLF001 - pyghmi has no other way
    plain = session.create_open_session_response
    on = False

    def open_session(self: Any, request: bytes) -> Any:
        answer = plain(self, request)
        if request[AUTHENTICATION_AT] == SHA_1:
            return answer
        return bytearray([request[0], NO_CIPHER_SUITE, 0, 0]) + bytearray(request[4:8])

    def become(wish: bool) -> None:  # noqa: FBT001 - one of two commands
        nonlocal on
        _say({"on": wish})
        on = on if lying else wish

    def raw_request(self: Any, request: dict[str, Any], client: Any) -> None:
        if (request["netfn"], request["command"]) == (0x2C, 0x02):  # DCMI 1.5, section 6.6.1
            watts = WATTS_ON if on else WATTS_OFF
            client.send_ipmi_response(data=[0xDC, watts, *[0] * 15, 0x40])
        else:
            base.handle_raw_request(self, request, client)

    def send_later(*what: Any) -> None:
        time.sleep(ANSWER_DELAY_S)
        send(*what)

    network._io_sendto = send_later  # noqa: SLF001
    session.create_open_session_response = open_session
    virtual = type(
        "VirtualBmc",
        (base,),
        {
            "get_power_state": lambda _: "on" if on else "off",
            "power_on": lambda _: become(True),
            "power_off": lambda _: become(False),
            "handle_raw_request": raw_request,
        },
    )
    bmc: Any = virtual(accounts, port=port, address=host)
    _say({"ready": True, "port": port})
    bmc.listen()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main(argv: list[str] | None = None) -> int:
    """Serve until the end of the input."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.ipmi_bmc", description="A virtual BMC.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="UDP; 0 for any free one")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--lie", action="store_true", help="accepts commands and does not switch")
    args = parser.parse_args(argv)
    port = args.port
    if port == 0:  # pyghmi's server does not say which port it was given
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((args.host, 0))
            port = probe.getsockname()[1]
    threading.Thread(target=_end_with_input, daemon=True).start()
    serve(args.host, port, {args.user: os.environ.get("VIRTUAL_BMC_PASSWORD", "")}, lying=args.lie)
    return 0


if __name__ == "__main__":
    sys.exit(main())
