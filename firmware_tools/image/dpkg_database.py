"""What dpkg on the board has to know of the packages in its root: /var/lib/dpkg as dpkg(1) and deb-postinst(5) have it.

A package whose script does something that is not done here is `unpacked` there, not `installed`: `dpkg --configure -a`
on the board runs those scripts, on the machine that they were written for. Nothing waits for it.
"""

import hashlib
import re
from collections.abc import Sequence

from firmware_tools.image.debs import Deb
from firmware_tools.image.tree import Tree, merged

DATABASE = "var/lib/dpkg"
_FIRST = ("Package", "Status")
# What debhelper writes into scripts, and what is done here or at each start of systemd, or only saves time.
_DONE = (
    "dh_installsystemd", "dh_installsystemduser", "dh_systemd_enable", "dh_systemd_start", "dh_installinit",
    "dh_installsysusers", "dh_installtmpfiles", "dh_installdeb", "dh_python3", "dh_makeshlibs", "dh_sysuser",
)  # fmt: skip
_GENERATED = re.compile(
    rf"^[ \t]*# Automatically added by ({'|'.join(_DONE)})(/\S*)?\n.*?^[ \t]*# End automatically added section\n?",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = re.compile(
    r"^\s*(if command -v py3compile .*|if which py3compile .*|(py3compile|pypy3compile) .*)$", re.MULTILINE
)
_ALTERNATIVE = re.compile(r"^\s*update-alternatives\s[^\n]*$", re.MULTILINE)
_SAYS_NOTHING = re.compile(
    r"""^\s*(
        | \#.* | set\s+-[eu]+ | exit\s+[01] | esac | fi | else | ;; | : | true
        | case\s+"?\$\{?1\}?"?\s+in | \(?["a-z*][a-z"|*\s-]*\)(\s*;;)? | (el)?if\s+\[\s+"?\$\{?1\}?"?\s.*then
        | if\s+\[\s+"?\$1"?\s.* | echo\s+.*>&2 | then | \#DEBHELPER\#
    )\s*$""",
    re.VERBOSE,
)


def needs_its_script(deb: Deb) -> bool:
    """Whether a package's postinst does something that nobody has done instead."""
    script = deb.script("postinst")
    if not script:
        return False
    rest = _GENERATED.sub("", script).replace("\\\n", " ")
    rest = _ALTERNATIVE.sub("", _PYTHON.sub("", rest))
    return any(_SAYS_NOTHING.match(line) is None for line in rest.splitlines())


def write(tree: Tree, debs: Sequence[Deb]) -> None:
    """The whole database. Packages stand in it sorted by name."""
    paragraphs = []
    for deb in sorted(debs, key=lambda one: one.name):
        state = "unpacked" if needs_its_script(deb) else "installed"
        fields = {"Package": deb.name, "Status": f"install ok {state}"}
        fields |= {key: value for key, value in deb.fields.items() if key not in _FIRST}
        if conffiles := _conffiles(tree, deb):
            fields["Conffiles"] = conffiles
        paragraphs.append("".join(f"{key}: {value}\n" if value[:1] != "\n" else f"{key}:{value}\n"
                                  for key, value in fields.items()))  # fmt: skip
        _info(tree, deb)
    tree.file(f"{DATABASE}/status", "\n".join(paragraphs))
    tree.file(f"{DATABASE}/available", "")
    tree.file(f"{DATABASE}/diversions", "")
    tree.file(f"{DATABASE}/statoverride", "")
    tree.file(f"{DATABASE}/info/format", "1\n")
    for folder in ("parts", "triggers", "updates", "alternatives"):
        tree.folder(f"{DATABASE}/{folder}")


def _conffiles(tree: Tree, deb: Deb) -> str:
    """The settings files of a package with the MD5 by which dpkg later sees whether somebody has changed them."""
    lines = []
    for line in deb.control.get("conffiles", b"").decode(errors="replace").splitlines():
        name = line.split()[-1] if line.split() else ""
        node = tree.get(merged(name.lstrip("/"))) if name.startswith("/") else None
        if node is not None and node.is_file:
            lines.append(f"\n {name} {hashlib.md5(tree.content(node), usedforsecurity=False).hexdigest()}")
    return "".join(lines)


def _info(tree: Tree, deb: Deb) -> None:
    stem = deb.name
    if deb.fields.get("Multi-Arch") == "same":
        stem += f":{deb.fields.get('Architecture', 'all')}"
    listed = ["/.", *deb.paths]
    tree.file(f"{DATABASE}/info/{stem}.list", "".join(f"{path}\n" for path in listed))
    for name, content in sorted(deb.control.items()):
        is_script = name in {"preinst", "postinst", "prerm", "postrm", "config"}
        tree.file(f"{DATABASE}/info/{stem}.{name}", content, 0o755 if is_script else 0o644)
