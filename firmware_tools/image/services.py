"""Which systemd units a root starts: what packages' scripts switch on (deb-systemd-helper), and the recipe.

Units say themselves by what they are wanted (systemd.unit(5), [Install]).
"""

import re
from collections.abc import Sequence

from firmware_tools.image.debs import Deb
from firmware_tools.image.tree import Tree

UNITS = "usr/lib/systemd/system"
OWN = "etc/systemd/system"
_ENABLE = re.compile(r"deb-systemd-helper\s+enable\s+'?([A-Za-z0-9:_.@\\-]+)'?")
_ON_REQUEST = re.compile(r"deb-systemd-helper\s+debian-installed\s+'?([A-Za-z0-9:_.@\\-]+)'?")


class ServiceError(ValueError):
    """A unit cannot be switched on or off. The message names it."""


def enabled_by_scripts(debs: Sequence[Deb]) -> list[str]:
    """Units that the packages' scripts switch on at the first installation."""
    found: set[str] = set()
    for deb in debs:
        script = deb.script("postinst")
        # What dh_installsystemd --no-enable writes asks `debian-installed` before: such a unit stays off.
        found |= set(_ENABLE.findall(script)) - set(_ON_REQUEST.findall(script))
    return sorted(found)


def install_section(text: str) -> dict[str, list[str]]:
    """The lists in a unit's [Install]."""
    found: dict[str, list[str]] = {}
    section = ""
    for raw in text.replace("\\\n", " ").splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line
        elif section == "[Install]" and "=" in line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.setdefault(key.strip(), []).extend(value.split())
    return found


def switch_on(tree: Tree, unit: str, *, must: bool = False) -> None:
    """Link a unit to what wants it.

    Raises:
        ServiceError: `must`, and there is no such unit, or nothing can want it.
    """
    _switch_on(tree, unit, must=must, seen=set())


def _switch_on(tree: Tree, unit: str, *, must: bool, seen: set[str]) -> None:
    if unit in seen:
        return
    seen.add(unit)
    template = re.sub(r"@[^.]+\.", "@.", unit)
    place = next((at for at in (f"{OWN}/{template}", f"{UNITS}/{template}") if at in tree), None)
    text = tree.text(place) if place is not None else None
    if place is None or text is None:
        if must:
            raise ServiceError(f"{unit}: no package in the image has this unit")
        return
    wishes = install_section(text)
    if must and not wishes:
        raise ServiceError(f"{unit}: has no [Install]: it is started by others, and cannot be switched on")
    name = unit
    if unit.partition("@")[2].startswith("."):
        instance = (wishes.get("DefaultInstance") or [""])[0]
        if not instance:
            return
        name = unit.replace("@.", f"@{instance}.")
    for key, folder in (("WantedBy", "wants"), ("RequiredBy", "requires")):
        for target in wishes.get(key, []):
            tree.link(f"{OWN}/{target}.{folder}/{name}", f"/{place}")
    for alias in wishes.get("Alias", []):
        tree.link(f"{OWN}/{alias}", f"/{place}")
    for other in wishes.get("Also", []):
        _switch_on(tree, other, must=False, seen=seen)


def switch_off(tree: Tree, unit: str) -> None:
    """Mask a unit, so that nothing starts it.

    Raises:
        ServiceError: no package has it.
    """
    if f"{UNITS}/{re.sub(r'@[^.]+[.]', '@.', unit)}" not in tree:
        raise ServiceError(f"{unit}: no package in the image has this unit")
    tree.link(f"{OWN}/{unit}", "/dev/null")
