#!/bin/busybox sh
# PID 1 of a board that runs from a root over NFS (rdinit=). Brings up the network as every board does, mounts the
# root, and hands over. Nothing here ever ends: a server that is away comes back.

PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH
/bin/busybox sh /lib/boardhand/start.sh

say() { echo "boardhand: $*"; }
setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

root=$(setting boardhand.root)
upper=$(setting boardhand.root_upper)
identity=$(setting boardhand.root_identity)
options=$(setting boardhand.root_options)

# mount_nfs SERVER:PATH FOLDER MODE: the kernel itself speaks to the server, so it wants the address once more.
mount_nfs() {
    mkdir -p "$2"
    tries=0
    until mount -t nfs -o "$options,$3,addr=${1%%:*}" "$1" "$2"; do
        [ $((tries % 10)) -ne 0 ] || say "root $1 cannot be mounted yet, still trying"
        tries=$((tries + 1))
        sleep 1
    done
}

case $upper in
memory)
    mount_nfs "$root" /boardhand/root ro
    lower=/boardhand/root
    if [ -n "$identity" ]; then
        mount_nfs "$identity" /boardhand/identity ro
        # Copied, so that secrets which the server may show to this board alone need no second mount later.
        mkdir -p /boardhand/own
        mount -t tmpfs -o mode=0755 tmpfs /boardhand/own
        cp -a /boardhand/identity/. /boardhand/own/
        umount /boardhand/identity
        lower=/boardhand/own:/boardhand/root
    fi
    mkdir -p /boardhand/memory /boardhand/new
    mount -t tmpfs -o mode=0755 tmpfs /boardhand/memory
    mkdir -p /boardhand/memory/upper /boardhand/memory/work
    mount -t overlay -o "lowerdir=$lower,upperdir=/boardhand/memory/upper,workdir=/boardhand/memory/work" overlay /boardhand/new
    new=/boardhand/new
    ;;
*)
    mount_nfs "$root" /boardhand/new rw
    new=/boardhand/new
    ;;
esac

init=$(setting boardhand.root_init)
for try in $init /sbin/init /lib/systemd/systemd /usr/lib/systemd/systemd /bin/init /bin/sh; do
    # A link in the root may be absolute, and then leads nowhere from out here: that it is there is enough.
    if [ -e "$new$try" ] || [ -L "$new$try" ]; then
        init=$try
        break
    fi
done
if [ -z "$init" ]; then
    say "root $root has no init; this is a shell"
    exec /bin/sh
fi
name=$(setting boardhand.board)
[ -z "$name" ] || hostname "$name"
say "root $root with upper ${upper:-server}, init $init"
for folder in proc sys dev; do
    mkdir -p "$new/$folder" 2>/dev/null
    mount -o move "/$folder" "$new/$folder" || say "/$folder cannot be moved into the root"
done
exec switch_root "$new" "$init" </dev/console >/dev/console 2>&1
