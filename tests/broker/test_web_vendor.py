"""What the page brings along is what its README says, and nothing in the page is loaded from elsewhere."""

import hashlib
import re

from broker.web.app import PAGE

VENDOR = PAGE / "vendor"


def test_vendored_files_are_the_published_ones():
    rows = re.findall(r"^\| `(\S+)` .*\| ([0-9a-f]{64}) \|$", (VENDOR / "README.md").read_text(), re.MULTILINE)
    assert {path.name for path in VENDOR.iterdir()} == {name for name, _ in rows} | {"README.md"}
    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name, _ in rows} == dict(rows)


def test_no_address_of_elsewhere_stands_in_the_page():
    found = {}
    for path in (path for path in PAGE.iterdir() if path.suffix in {".js", ".html", ".css"}):
        links = re.findall(r"https?://[^\s\"'`]+", path.read_text().replace("http://www.w3.org/2000/svg", ""))
        if links:
            found[path.name] = links
    assert found == {}
