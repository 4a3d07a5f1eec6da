"""A program of its own that talks to one BMC through pyghmi, told what to do by `agent.power.drivers.ipmi`.

pyghmi keeps all sessions of a process in one loop: with a BMC that falls silent during login it does not return for
minutes, and a packet that it cannot decode raises in whichever thread waits, whatever BMC that one talks to (seen with
1.6.19). In a process of its own neither reaches another controller, and one that hangs can be ended.

One JSON object per line each way. In: first the login, then `{"do": "get"}`, `set` with `on`, `watts`, `identify`.
Out: `{"value": …}`, or `{"error": WORD, "text": …}` with `unreachable`, `authentication` or `refused`.
"""

import json
import os
import signal
import struct
import sys
import time
from typing import Any

APPLICATION, GET_DEVICE_ID = 0x06, 0x01
CHASSIS, GET_CHASSIS_STATUS, CHASSIS_CONTROL = 0x00, 0x01, 0x02
"""IPMI 2.0, sections 20.1, 28.2, 28.3."""
POWER_DOWN, POWER_UP = 0, 1
"""Section 28.3: at once, without the operating system; soft shutdown would be 5, and is never sent."""
POWER_IS_ON = 0x01
"""Section 28.2, current power state, bit 0."""
GROUP_EXTENSION, GET_POWER_READING, DCMI = 0x2C, 0x02, 0xDC
READING_ACTIVE = 0x40
"""DCMI 1.5, section 6.6.1: power reading state, bit 6."""
PRIVILEGES = {"operator": 3, "administrator": 4}
IDLE_LIMIT_S = 25.0
"""A BMC ends a session after 60 s without a word at most (section 6.12.15); pyghmi itself believes in 29."""
ALARM_MARGIN_S = 2
"""After its time this program ends itself, should nobody be left to end it."""


class Bmc:
    """One BMC. The session is kept while it is used, as a login each time would fill the BMC's log."""

    def __init__(self, login: dict[str, Any]) -> None:
        self._login = login
        self._command: Any = None
        self._used_at = 0.0

    def ask(self, netfn: int, command: int, data: tuple[int, ...] = ()) -> dict[str, Any]:
        """One command; the answer as pyghmi's dict. Raises what pyghmi raises."""
        session = getattr(self._command, "ipmi_session", None)
        if session is not None and (
            not session.logged or session.broken or time.monotonic() - self._used_at > IDLE_LIMIT_S
        ):
            self.leave()
        if self._command is None:
            from pyghmi.ipmi.command import Command  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra

            self._command = Command(
                bmc=self._login["host"],
                port=self._login["port"],
                userid=self._login["username"],
                password=self._login["password"],
                privlevel=PRIVILEGES[self._login["privilege"]],
            )
        answer: dict[str, Any] = self._command.raw_command(netfn=netfn, command=command, data=data)
        self._used_at = time.monotonic()
        return answer

    def leave(self) -> None:
        """End the session, so that the BMC has it free at once."""
        command, self._command = self._command, None
        if command is not None and command.ipmi_session.logged:
            command.ipmi_session.logout()


def answer_to(bmc: Bmc, request: dict[str, Any]) -> dict[str, Any]:
    """Carry out one request. Raises what pyghmi raises."""
    what = request["do"]
    if what == "set":
        return _checked(bmc.ask(CHASSIS, CHASSIS_CONTROL, (POWER_UP if request["on"] else POWER_DOWN,)), "")
    if what == "get":
        answer = bmc.ask(CHASSIS, GET_CHASSIS_STATUS)
        return _checked(answer, "on" if answer["data"] and answer["data"][0] & POWER_IS_ON else "off")
    if what == "watts":
        answer = bmc.ask(GROUP_EXTENSION, GET_POWER_READING, (DCMI, 1, 0, 0))
        return {"value": None if answer["code"] else watts_in(bytes(answer["data"]))}
    answer = bmc.ask(APPLICATION, GET_DEVICE_ID)
    return _checked(answer, device_in(bytes(answer["data"])))


def _checked(answer: dict[str, Any], value: object) -> dict[str, Any]:
    if answer["code"]:
        text = f"{answer.get('error', 'refused')} (completion code {answer['code']:#04x})"
        return {"error": "refused", "text": text}
    return {"value": value}


def watts_in(data: bytes) -> int | None:
    """Current power of a DCMI power reading; None where it is not measuring."""
    if len(data) < 18 or data[0] != DCMI or not data[17] & READING_ACTIVE:
        return None
    return int(struct.unpack("<H", data[1:3])[0])


def device_in(data: bytes) -> str:
    """Firmware, manufacturer (IANA enterprise number) and product of an answer to Get Device ID, section 20.1."""
    if len(data) < 11:
        return "a BMC that does not say what it is"
    manufacturer = int.from_bytes(data[6:9], "little") & 0xFFFFF
    return (
        f"IPMI {data[4] & 0x0F}.{data[4] >> 4}, firmware {data[2] & 0x7F}.{data[3]:02x}, manufacturer {manufacturer}, "
        f"product {int.from_bytes(data[9:11], 'little')}"
    )


def kind_of(problem: Exception) -> str:
    """Whether pyghmi's words mean that the BMC does not let us in (IPMI 2.0 table 13-15, and its own)."""
    text = str(problem).lower()
    marks = ("password", "unauthorized", "privilege", "insufficient", "invalid role", "rakp")
    return "authentication" if any(mark in text for mark in marks) else "unreachable"


def main() -> int:
    """Serve until the end of the input."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # pyghmi prints some complaints
    login = json.loads(sys.stdin.readline())
    bmc = Bmc(login)
    for line in sys.stdin:
        signal.alarm(int(login["timeout_s"]) + ALARM_MARGIN_S)
        try:
            answer = answer_to(bmc, json.loads(line))
        except Exception as problem:  # noqa: BLE001 - pyghmi raises whatever it stumbles over; the next call logs in anew
            answer = {"error": kind_of(problem), "text": f"{type(problem).__name__}: {problem}"[:300]}
            bmc = Bmc(login)
        signal.alarm(0)
        answers.write(json.dumps(answer) + "\n")
    signal.alarm(ALARM_MARGIN_S)
    bmc.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
