"""Hubs whose power switching people have measured, as data.

From the table in the README of uhubctl (github.com/mvp/uhubctl, 2985dfc of 2026-06-06). Only products whose vendor and
product number is their own are here: the numbers of plain hub chips (2109:28xx, 05e3:06xx, 0bda:04xx, 0451:xxxx) are
shared by hubs that switch and hubs that do not, so they prove nothing. Entries with a reservation there are left out.
"""

from collections.abc import Mapping
from types import MappingProxyType

MEASURED_SOURCE = "uhubctl README"

MEASURED: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("03f0", "076b"): "HP USB-C Dock G5",
        ("0424", "a700"): "Dell UltraSharp 1704FPT",
        ("043e", "9a60"): "LG 27MD5KL-B",
        ("04b3", "301a"): "IBM SK-8815",
        ("05ac", "9139"): "Apple Pro Display XDR",
        ("0856", "db00"): "B+B SmartWorx UHR204",
        ("0bc2", "ab44"): "Seagate Backup Plus Hub",
        ("110a", "0407"): "Moxa UPort 407",
        ("17ef", "0610"): "Lenovo ThinkVision T24i-10",
        ("17ef", "1000"): "Lenovo ThinkPad X6 UltraBase",
        ("17ef", "1005"): "Lenovo ThinkPad X200 UltraBase",
        ("17ef", "100a"): "Lenovo ThinkPad Mini Dock Series 3",
        ("17ef", "100f"): "Lenovo ThinkPad Ultra Docking Station",
        ("17ef", "3070"): "Lenovo ThinkPad Ultra Docking Station (40AJ)",
        ("2001", "f103"): "D-Link DUB-H7 rev A",
    }
)
"""(vendor, product) -> name."""

GANG_PORTS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("Raspberry Pi 3 Model B Plus", "0424", "2514", (2,)),
    ("Raspberry Pi 3 Model B Rev", "0424", "9514", (2,)),
    ("Raspberry Pi 2 Model B", "0424", "9514", (2,)),
    ("Raspberry Pi Model B Plus", "0424", "9514", (2,)),
)
"""(machine, vendor, product, ports): on this machine the hub right at the controller has one switch for all sockets,
and these ports work it."""
