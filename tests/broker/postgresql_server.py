"""Debian's PostgreSQL on a UNIX socket in a folder of the test, as an unprivileged user."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

PATIENCE_S = 60.0


def programs():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    assert found, "PostgreSQL is missing: ./install-packages"
    return found[-1].parent


class PostgresqlServer:
    """`start` and `kill` at will; what was committed stays. On `tcp_port` it asks for passwords; without, there is no
    port that could collide."""

    def __init__(self, tcp_port=None):
        self.tcp_port = tcp_port
        # The path of a UNIX socket is short, and others must be able to enter: pytest's folders are neither.
        self.folder = Path(tempfile.mkdtemp(prefix="bh-pg-"))
        self.folder.chmod(0o755)
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.process = None
        self.user = None
        if os.geteuid() == 0:
            self.user = pwd.getpwnam("postgres")
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self._run([programs() / "initdb", "-D", self.data, "-U", "boardhand", "-A", "trust", "--no-sync", "-E", "UTF8"])

    def url(self, database="postgres"):
        return f"postgresql://boardhand@/{database}?host={self.folder}&port={self.tcp_port or 5432}"

    def new_schema(self):
        """The URL of a schema that nobody has used."""
        schema = f"s{secrets.token_hex(6)}"
        self.sql(f"CREATE SCHEMA {schema}")
        return f"{self.url()}&options=-csearch_path%3D{schema}"

    @staticmethod
    def schema_of(url):
        return url.rpartition("%3D")[2]

    def _as_user(self):
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def _run(self, command):
        subprocess.run(
            [str(word) for word in command],
            check=True,
            capture_output=True,
            timeout=60,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            **self._as_user(),
        )

    def start(self):
        options = {
            "listen_addresses": "" if self.tcp_port is None else "127.0.0.1",
            "port": self.tcp_port or 5432,
            "unix_socket_directories": self.folder,
            "max_connections": 40,
            "shared_buffers": "16MB",
            "fsync": "off",  # kill -9 of processes loses nothing of it
            "autovacuum": "off",
        }
        (self.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(programs() / "postgres"), "-D", str(self.data), *words],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                start_new_session=True,
                **self._as_user(),
            )
        until = time.monotonic() + PATIENCE_S
        ready = [programs() / "pg_isready", "-q", "-h", self.folder, "-p", str(self.tcp_port or 5432)]
        while subprocess.run(ready, check=False, timeout=60).returncode:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def kill(self):
        """kill -9 of the server and all of its processes, by their session: only ours are in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)
        self._children_gone()
        self.process = None

    def _children_gone(self):
        """Backends make sessions of their own; they end with their postmaster, within a moment."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            with contextlib.suppress(FileNotFoundError):
                (self.data / "postmaster.pid").unlink()
            if not any(_is_in(process, self.data) for process in Path("/proc").glob("[0-9]*")):
                return
            time.sleep(0.02)
        raise AssertionError("processes of PostgreSQL are still there")

    def cleanup(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, statement, database="postgres"):
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            # So that it works while everything is read-only by default.
            connection.execute("SET default_transaction_read_only = off")
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else None


def _is_in(process, folder):
    try:
        return (process / "cwd").readlink() == folder
    except OSError:
        return False
