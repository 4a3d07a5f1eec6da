"""What is in an image, as JSON: each package with version, checksum and package URL (github.com/package-url/purl-spec),
so that a tool for bills of material reads it, and people can compare two builds."""

import json
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from firmware_tools.image.debs import Deb
from firmware_tools.image.dpkg_database import needs_its_script
from firmware_tools.image.recipe import Recipe

FORMAT = "boardhand-image/1"


def manifest(recipe: Recipe, debs: Sequence[Deb], sha256: Mapping[str, str], source_date_s: int) -> dict[str, object]:
    """The manifest; `sha256` is by the names of the packages' files."""
    return {
        "format": FORMAT,
        "name": recipe.name,
        "arch": recipe.arch,
        "suite": recipe.suite,
        "source_date_epoch": source_date_s,
        "packages": [_package(deb, sha256[deb.file.name]) for deb in sorted(debs, key=lambda one: one.name)],
        "scripts_left_to_the_board": left_to_the_board(debs),
    }


def left_to_the_board(debs: Sequence[Deb]) -> list[str]:
    """Packages whose scripts do more than was done here: see `dpkg_database`."""
    return sorted(deb.name for deb in debs if needs_its_script(deb))


def _package(deb: Deb, sha256: str) -> dict[str, object]:
    arch = deb.fields.get("Architecture", "all")
    source = deb.fields.get("Source", deb.name).split()[0]
    return {
        "name": deb.name,
        "version": deb.version,
        "arch": arch,
        "source": source,
        "sha256": sha256,
        "purl": f"pkg:deb/debian/{quote(deb.name)}@{quote(deb.version, safe='')}?arch={arch}",
    }


def as_text(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=1) + "\n"
