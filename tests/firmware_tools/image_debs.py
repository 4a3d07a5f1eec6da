"""A little Debian of our own for tests: packages made by dpkg-deb, and a signed archive of them on loopback."""

import functools
import hashlib
import http.server
import os
import pathlib
import subprocess
import threading
from contextlib import contextmanager

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    update-alternatives --install /usr/bin/editor editor /usr/bin/small 10 \\
        --slave /usr/share/man/editor.1 editor.1 /usr/share/man/small.1
fi
# Automatically added by dh_installsystemd/13
if [ "$1" = "configure" ] ; then
    deb-systemd-helper unmask 'served.service' >/dev/null || true
    if deb-systemd-helper --quiet was-enabled 'served.service'; then
        deb-systemd-helper enable 'served.service' >/dev/null || true
    fi
    if deb-systemd-helper debian-installed 'served.socket'; then
        deb-systemd-helper enable 'served.socket' >/dev/null || true
    fi
fi
# End automatically added section
"""
UNIT = "[Unit]\nDescription=x\n[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\nAlias=also.service\n"
BASE = {
    "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n"
    "nobody:*:65534:65534:n:/x:/usr/sbin/nologin\n",
    "usr/share/base-passwd/group.master": "root:*:0:\ndialout:*:20:\nshadow:*:42:\nnogroup:*:65534:\n",
    "usr/share/base-files/profile": "umask 022\n",
    "usr/bin/dash": "dash",
    "usr/lib/sysusers.d/base.conf": 'g adm 4 -\nu! _served - "Served" /var/lib/served\nm _served adm\n',
}  # fmt: skip


def deb(folder, name, files, *, links=(), control=None, version="1.0", arch="all", depends=""):
    """A package with these files (paths to texts), hard links (new path, old path), and control files."""
    tree = folder / f"{name}.tree"
    head = f"Package: {name}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: x <x@x.org>\n"
    head += f"Depends: {depends}\n" if depends else ""
    texts = {f"DEBIAN/{key}": value for key, value in (control or {}).items()}
    for path, text in {**files, **texts, "DEBIAN/control": f"{head}Description: x\n y\n"}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
        (tree / path).chmod(0o755 if path.startswith(("DEBIAN/post", "usr/bin")) else 0o644)
    for new, old in links:
        (tree / new).parent.mkdir(parents=True, exist_ok=True)
        os.link(tree / old, tree / new)
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    for path in tree.rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    target = folder / f"{name}_{version}_{arch}.deb"
    command = ["dpkg-deb", "-Zgzip", "--build", "--root-owner-group", str(tree), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=env)
    return target


def some(folder):
    """Three packages with what images care for: users, units, alternatives, links, a folder outside of /usr."""
    return [
        deb(folder, "base-files", BASE, control={"postinst": "#!/bin/sh\necho hello >/etc/made\n"}),
        deb(
            folder,
            "served",
            {"usr/lib/systemd/system/served.service": UNIT, "usr/lib/systemd/system/served.socket": UNIT,
             "etc/served.conf": "x = 1\n", "bin/served": "1", "usr/share/doc/served/copyright": "c",
             "usr/bin/small": "s"},
            links=[("bin/also", "bin/served")],
            control={"postinst": POSTINST, "conffiles": "/etc/served.conf\n"},
            depends="base-files",
        ),
        deb(folder, "systemd", {"usr/lib/systemd/system/multi-user.target": "[Unit]\nDescription=x\n"}),
    ]  # fmt: skip


def archive(folder, debs, *, key_home=None):
    """An archive as apt reads it, signed with the only key in `key_home`."""
    packages = ""
    (folder / "pool").mkdir(parents=True)
    for file in debs:
        data = file.read_bytes()
        (folder / "pool" / file.name).write_bytes(data)
        fields = subprocess.run(["dpkg-deb", "-f", str(file)], capture_output=True, text=True, check=True, timeout=60)
        packages += f"{fields.stdout}Filename: pool/{file.name}\nSize: {len(data)}\n"
        packages += f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    dist = folder / "dists/toy"
    listed = dist / "main/binary-arm64/Packages"
    listed.parent.mkdir(parents=True)
    listed.write_text(packages)
    digest = hashlib.sha256(packages.encode()).hexdigest()
    release = "Origin: x\nSuite: toy\nCodename: toy\nArchitectures: arm64\nComponents: main\n"
    release += "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
    release += f"SHA256:\n {digest} {len(packages)} main/binary-arm64/Packages\n"
    (dist / "Release").write_text(release)
    if key_home is not None:
        command = [
            "gpg",
            "--homedir",
            str(key_home),
            "--batch",
            "--clearsign",
            "-o",
            str(dist / "InRelease"),
            str(dist / "Release"),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def key(home):
    """A new signing key; returns the file with its public half."""
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "toy@example.org", "ed25519", "sign", "never"], check=True,
                   capture_output=True, timeout=120)  # fmt: skip
    public = subprocess.run([*gpg, "--export"], check=True, capture_output=True, timeout=60).stdout
    file = home.with_suffix(".gpg")
    file.write_bytes(public)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True, timeout=60)
    return file


class _Server(http.server.ThreadingHTTPServer):
    """Remembers what was asked for: path and Range."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.asked = []


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        place = pathlib.Path(self.translate_path(self.path))
        if not wanted or not place.is_file():
            super().do_GET()
            return
        data, start = place.read_bytes(), int(wanted.removeprefix("bytes=").rstrip("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Last-Modified", self.date_time_string(place.stat().st_mtime))
        self.end_headers()
        self.wfile.write(data[start:])


@contextmanager
def served(folder, asked=None):
    """The folder over HTTP on loopback: its address. `asked` gets path and Range of each request."""
    server = _Server(folder)
    if asked is not None:
        server.asked = asked
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
