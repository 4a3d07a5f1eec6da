"""Makes packages in a tree a system that starts: what their scripts would have done, and the board's client.

What tells one board from another is not made here, and cannot be: no host name, no machine-id (an empty file, which
systemd fills at the first start: machine-id(5)), no SSH host key (made at the first start where no one laid one in).
"""

from collections.abc import Callable, Sequence

from firmware_tools.image import accounts, alternatives, dpkg_database, services
from firmware_tools.image.accounts import Accounts
from firmware_tools.image.debs import Deb
from firmware_tools.image.recipe import Arch, Recipe
from firmware_tools.image.tree import Tree

CLIENT_PATH = "usr/lib/boardhand/client.py"
CLIENT_UNIT = """\
[Unit]
Description=boardhand's client

[Service]
ExecStart=/usr/bin/python3 /usr/lib/boardhand/client.py
Restart=always
RestartSec=2
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""
# On roots over NFS the keys are laid in with the board's identity, before anything starts.
HOST_KEYS_UNIT = """\
[Unit]
Description=Keys of this machine for SSH, once
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key
Before=ssh.service ssh.socket

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""
# A root over NFS has its address from before, and taking it away would take the root away.
NETWORK = """\
[Match]
Name=en* eth* end*
KernelCommandLine=!boardhand.root
KernelCommandLine=!nfsroot

[Network]
DHCP=yes
"""
HOSTS = "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n"
FSTAB = "# What boots from the network has no disks; systemd mounts the rest by itself.\n"
PAM = {
    "common-auth": "auth\t[success=1 default=ignore]\tpam_unix.so nullok\nauth\trequisite\tpam_deny.so\n"
    "auth\trequired\tpam_permit.so\n",
    "common-account": "account\t[success=1 new_authtok_reqd=done default=ignore]\tpam_unix.so\n"
    "account\trequisite\tpam_deny.so\naccount\trequired\tpam_permit.so\n",
    "common-password": "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n"
    "password\trequisite\tpam_deny.so\npassword\trequired\tpam_permit.so\n",
    "common-session": "session\trequired\tpam_unix.so\nsession\toptional\tpam_systemd.so\n",
    "common-session-noninteractive": "session\trequired\tpam_unix.so\n",
}
"""As pam-auth-update writes them where nothing but pam_unix is installed, without its comments."""
_FROM_BASE_FILES = {
    "profile": "etc/profile", "dot.bashrc": "root/.bashrc", "dot.profile": "root/.profile", "motd": "etc/motd",
    "nsswitch.conf": "etc/nsswitch.conf",
}  # fmt: skip
_FOLDERS = ("dev", "proc", "sys", "run", "mnt", "media", "opt", "srv", "home", "boot", "etc", "var", "usr/lib")
ReadFile = Callable[[str], bytes]
"""Gives the content of a file that the recipe names, relative to the recipe."""


def lay_ground(tree: Tree, arch: Arch) -> None:
    """The folders and links that packages expect, before the first of them."""
    for name in _FOLDERS:
        tree.folder(name)
    tree.folder("tmp", 0o1777)
    tree.folder("var/tmp", 0o1777)
    tree.folder("root", 0o700)
    for name in ("bin", "sbin", "lib", *(("lib64",) if arch == "amd64" else ())):
        tree.folder(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    tree.link("var/run", "/run")
    tree.link("var/lock", "/run/lock")


def settle(tree: Tree, debs: Sequence[Deb], recipe: Recipe, read: ReadFile, client: bytes) -> None:
    """All of it, in the order in which later parts may replace earlier ones.

    Raises:
        AccountError, ServiceError, TreeError: the recipe asks for what these packages do not have.
        OSError: a file that the recipe names cannot be read.
    """
    names = [deb.name for deb in debs]
    _base_files(tree)
    _pam(tree)
    alternatives.link_all(tree, debs)
    known = Accounts.of(tree)
    accounts.from_packages(known, tree, names)
    _people(tree, known, recipe, read)
    known.write(tree)
    for unit in services.enabled_by_scripts(debs):
        services.switch_on(tree, unit)
    _system(tree, recipe, names)
    if recipe.client:
        tree.file(CLIENT_PATH, client, 0o755)
        _own_unit(tree, "boardhand-client.service", CLIENT_UNIT)
    if recipe.package_database:
        dpkg_database.write(tree, debs)
    for file in recipe.file:
        content = read(file.source) if file.source is not None else (file.text or "").encode()
        uid, _, gid = file.owner.partition(":")
        tree.file(file.path, content, int(file.mode, 8), (int(uid), int(gid)))
    for unit in recipe.services_on:
        services.switch_on(tree, unit, must=True)
    for unit in recipe.services_off:
        services.switch_off(tree, unit)


def _base_files(tree: Tree) -> None:
    for source, path in _FROM_BASE_FILES.items():
        text = tree.text(f"usr/share/base-files/{source}")
        if text is not None and path not in tree:
            tree.file(path, text)
    if "usr/bin/sh" not in tree and "usr/bin/dash" in tree:
        tree.link("usr/bin/sh", "dash")


def _pam(tree: Tree) -> None:
    if "etc/pam.d" in tree:
        for name, text in PAM.items():
            if f"etc/pam.d/{name}" not in tree:
                tree.file(f"etc/pam.d/{name}", text)


def _people(tree: Tree, known: Accounts, recipe: Recipe, read: ReadFile) -> None:
    for user in recipe.user:
        password = "*"  # noqa: S105  # a hash that no password has
        if user.password_file is not None:
            password = read(user.password_file).decode("ascii", "replace").strip()
            if not password.startswith("$") or ":" in password or "\n" in password:
                raise accounts.AccountError(
                    f"{user.password_file}: holds no hash of a password: make one with 'openssl passwd -6'"
                )
        uid = known.person(
            user.name, user.uid, gecos=user.gecos, shell=user.shell, groups=user.groups, password=password
        )
        gid = known.users[user.name].gid
        home = known.users[user.name].home.lstrip("/")
        if home not in tree:
            tree.folder(home, 0o750, (uid, gid))
        if user.ssh_keys is not None:
            tree.folder(f"{home}/.ssh", 0o700, (uid, gid))
            tree.file(f"{home}/.ssh/authorized_keys", read(user.ssh_keys), 0o600, (uid, gid))


def _own_unit(tree: Tree, name: str, text: str) -> None:
    tree.file(f"{services.UNITS}/{name}", text)
    services.switch_on(tree, name)


def _system(tree: Tree, recipe: Recipe, names: Sequence[str]) -> None:
    tree.file("etc/machine-id", "", 0o444)
    for path, text in (("etc/hosts", HOSTS), ("etc/fstab", FSTAB)):
        if path not in tree:
            tree.file(path, text)
    tree.link(f"{services.OWN}/default.target", f"/{services.UNITS}/multi-user.target")
    if "udev" not in names:
        # Nobody tells systemd of the serial line then, and it would wait for it.
        tree.link(f"{services.OWN}/serial-getty@.service", "/dev/null")
    if "openssh-server" in names:
        _ssh(tree, passwords=any(user.password_file for user in recipe.user))
    if recipe.has_own_network:
        tree.file("etc/systemd/network/80-boardhand.network", NETWORK)
        services.switch_on(tree, "systemd-networkd.service")


def _ssh(tree: Tree, *, passwords: bool) -> None:
    if "etc/ssh/sshd_config" not in tree:
        stock = tree.text("usr/share/openssh/sshd_config") or "Include /etc/ssh/sshd_config.d/*.conf\n"
        tree.file("etc/ssh/sshd_config", stock)
    words = f"PermitRootLogin prohibit-password\nPasswordAuthentication {'yes' if passwords else 'no'}\n"
    tree.file("etc/ssh/sshd_config.d/boardhand.conf", words)
    _own_unit(tree, "boardhand-host-keys.service", HOST_KEYS_UNIT)
