"""What `boardhand learn` found, as a table, and what it put back."""

from typing import Any

from cli.boards import lines
from cli.plain_text import shown

COLUMNS = ("FEED", "CONSOLE", "MACS", "USB", "BOOT", "IDLE", "BUSY", "SURE", "EVIDENCE")
HIDDEN = 20
"""More that was heard and belongs to nobody is counted, not shown."""


def table(found: dict[str, Any]) -> list[str]:
    """The result for people."""
    told = [
        (
            " + ".join(row["feed"]),
            ", ".join(map(shown, row["consoles"])) or "-",
            ", ".join(row["macs"]) or "-",
            ", ".join(map(shown, row["usb"])) or "-",
            _number(row["boot_s"], "s"),
            _number(row["idle_w"], "W"),
            _number(row["busy_w"], "W"),
            f"{row['confidence'] * 100:.2f} %",
            shown(row["evidence"]),
        )
        for row in found.get("rows", [])
    ]
    text = list(lines(told, COLUMNS)) if told else ["no board was found beyond doubt"]
    text += [f"{shown(item['outlet'])}: unknown, because {shown(item['because'])}" for item in found.get("unknown", [])]
    strangers = found.get("strangers", [])
    text += [f"{item['kind']} {shown(item['name'])}: nobody's, {shown(item['because'])}" for item in strangers[:HIDDEN]]
    if len(strangers) > HIDDEN:
        text.append(f"and {len(strangers) - HIDDEN} more that were heard and belong to no board")
    if found.get("stopped"):
        text.append(f"stopped before its end: {shown(found['stopped'])}")
    return text


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}"


def put_back(found: dict[str, Any]) -> str:
    """What of the outlets that were switched is as it was found."""
    restored = found.get("restored")
    if not isinstance(restored, dict):
        return "" if found.get("unrestored") else "the outlets are as they were found"
    if not restored:
        return "no outlet was switched" if not found.get("unrestored") else ""
    names = ", ".join(f"{shown(outlet)} {'on' if on else 'off'}" for outlet, on in restored.items())
    return f"as found: {names}"
