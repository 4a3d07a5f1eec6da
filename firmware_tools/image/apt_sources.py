"""Where packages of a recipe come from, as apt reads it (sources.list(5), deb822 style).

With `mirror` it is that server alone, checked by the keys of Debian's archive. With `suite` alone it is those of this
machine's own sources that have the suite, with the keys that they name. With neither, all of them.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC
from pathlib import Path

from firmware_tools.debian_packages import PackageError
from firmware_tools.image.debs import parse_control
from firmware_tools.image.recipe import Recipe

APT_FOLDER = Path("/etc/apt")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"), Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)  # fmt: skip
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+)")
Source = dict[str, str]
"""The fields of one entry."""


def parse(name: str, text: str) -> list[Source]:
    """The entries for binary packages in one of apt's files, switched off ones left out. `name` says the style."""
    if name.endswith(".sources"):
        plain = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        found = [parse_control(part) for part in re.split(r"\n\s*\n", plain) if part.strip()]
        return [
            entry for entry in found
            if "deb" in entry.get("Types", "").split() and entry.get("Enabled", "yes").lower() not in {"no", "false"}
        ]  # fmt: skip
    return [
        entry for line in text.splitlines() if (match := _ONE_LINE.match(line.strip())) and (entry := _of_line(match))
    ]


def _of_line(match: re.Match[str]) -> Source:
    entry = {"URIs": match["uri"], "Suites": match["suite"], "Components": match["components"].strip()}
    for option in (match["options"] or "").split():
        key, _, value = option.partition("=")
        if key.lower() == "signed-by":
            entry["Signed-By"] = value
    return entry


def own(folder: Path = APT_FOLDER) -> list[Source]:
    """The entries of this machine."""
    found: list[Source] = []
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for path in files:
        if path.suffix in {".list", ".sources"} and path.is_file():
            found += parse(path.name, path.read_text(encoding="utf-8", errors="replace"))
    return found


def text_of(recipe: Recipe, entries: Sequence[Source], keyring: Path | None) -> str | None:
    """The sources for a recipe; None for this machine's as they are. `entries` are its own (`own`).

    Raises:
        PackageError: it has none of the suite, or no keys that could check the mirror.
    """
    if recipe.mirror is not None:
        return _text(_of_mirror(recipe, keyring), recipe)
    if recipe.suite is None:
        return None
    suites = (recipe.suite, f"{recipe.suite}-updates", f"{recipe.suite}-security")
    chosen = []
    for entry in entries:
        words = [word for word in entry.get("Suites", "").split() if word in suites]
        components = [word for word in entry.get("Components", "").split() if word in recipe.components]
        if words and components:
            kept: Source = {key: entry[key] for key in ("URIs", "Signed-By") if key in entry}
            kept |= {"Suites": " ".join(words), "Components": " ".join(components)}
            chosen.append(kept)
    if not any(recipe.suite in entry["Suites"].split() for entry in chosen):
        raise PackageError(
            f"this machine's apt has no sources of {recipe.suite} {' '.join(recipe.components)}: "
            "name one of Debian's servers by mirror in the recipe"
        )
    return _text(chosen, recipe)


def _of_mirror(recipe: Recipe, keyring: Path | None) -> list[Source]:
    keys = keyring or next((path for path in KEYRINGS if path.is_file()), None)
    if keys is None or not keys.is_file():
        raise PackageError(
            f"{keys or KEYRINGS[0]} is not there, and without it nobody can say whether {recipe.mirror} sends what "
            "Debian signed: install debian-archive-keyring, or name a file of keys by keyring in the recipe"
        )
    when = "" if recipe.snapshot is None else f"/{recipe.snapshot.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    more = {"Components": " ".join(recipe.components), "Signed-By": str(keys.resolve())}
    if recipe.snapshot is not None:
        more["Check-Valid-Until"] = "no"  # a snapshot is as old as it was asked to be
    found = [{"URIs": f"{recipe.mirror}{when}", "Suites": str(recipe.suite), **more}]
    if recipe.security_mirror is not None:
        found.append({"URIs": f"{recipe.security_mirror}{when}", "Suites": f"{recipe.suite}-security", **more})
    return found


def _text(entries: Iterable[Source], recipe: Recipe) -> str:
    return "\n".join(
        "".join(f"{key}: {value}\n" for key, value in {"Types": "deb", **entry, "Architectures": recipe.arch}.items())
        for entry in entries
    )
