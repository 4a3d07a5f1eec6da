#!/bin/busybox sh
# PID 1 of a board that runs from a root over NFS (rdinit=). Brings up the network as every board does, mounts the
# root, and hands over. Nothing here gives up: a server that is away comes back. The words are those of boot_words.py.

/bin/busybox sh /lib/boardhand/start.sh
PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH

say() { echo "boardhand: $*"; }
setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

root=$(setting boardhand.root)
upper=$(setting boardhand.root_upper)
identity=$(setting boardhand.root_identity)
disk=$(setting boardhand.root_disk)
options=$(setting boardhand.root_options)

# What cannot go on leaves a shell on the console: PID 1 must not end, the kernel would panic.
stuck() {
    say "$*; this is a shell"
    while :; do
        sh
        sleep 1
    done
}

# An address that did not come when the network did may come now: DHCP's server may have been away, too.
address() {
    ip -4 -o addr | grep -v ' lo ' | grep -q inet && return
    for i in $(ls /sys/class/net | grep -v '^lo$'); do
        udhcpc -i "$i" -n -t 3 -T 1 -S -s /lib/boardhand/dhcp.sh >/dev/null 2>&1 && return
    done
}

# mount_nfs SERVER:PATH FOLDER MODE: the kernel itself speaks to the server, so it wants the address once more.
mount_nfs() {
    mkdir -p "$2"
    tries=0
    until mount -t nfs -o "$options,$3,addr=${1%%:*}" "$1" "$2"; do
        [ $((tries % 10)) -ne 0 ] || say "$1 cannot be mounted yet, still trying"
        tries=$((tries + 1))
        sleep 1
        address
    done
}

load_modules() {
    while read -r module; do
        insmod "/lib/boardhand/modules/$module" || say "module $module cannot be loaded"
    done </lib/boardhand/root-modules.list
}

# lay_overlay FOLDER: the root below, what makes the board itself above it, and on top what it writes, into FOLDER.
lay_overlay() {
    mount_nfs "$root" /boardhand/root ro
    lower=/boardhand/root
    if [ -n "$identity" ]; then
        mount_nfs "$identity" /boardhand/identity ro
        # Copied: a root must not hang because of a second mount, and nobody else mounts this one then.
        mkdir -p /boardhand/own
        mount -t tmpfs -o mode=0755 tmpfs /boardhand/own
        cp -a /boardhand/identity/. /boardhand/own/
        umount /boardhand/identity
        lower=/boardhand/own:/boardhand/root
    fi
    mkdir -p "$1/upper" "$1/work"
    mount -t overlay -o "lowerdir=$lower,upperdir=$1/upper,workdir=$1/work" overlay /boardhand/new ||
        stuck "no overlay can be laid over $root"
}

[ -n "$root" ] || stuck "boardhand.root= is not on the kernel command line"
[ ! -e /lib/boardhand/root-modules.list ] || load_modules
mkdir -p /boardhand/new /boardhand/memory
case $upper in
memory)
    mount -t tmpfs -o mode=0755 tmpfs /boardhand/memory
    lay_overlay /boardhand/memory
    ;;
nfs)
    mount_nfs "$disk" /boardhand/disk rw
    mount -t ext4 -o loop /boardhand/disk/upper.img /boardhand/memory || stuck "$disk/upper.img cannot be mounted"
    lay_overlay /boardhand/memory
    ;;
*) mount_nfs "$root" /boardhand/new rw ;;
esac
new=/boardhand/new

init=
for try in $(setting boardhand.root_init) /sbin/init /lib/systemd/systemd /usr/lib/systemd/systemd /bin/init /bin/sh; do
    # A link in the root may be absolute, and then leads nowhere from out here: that it is there is enough.
    if [ -e "$new$try" ] || [ -L "$new$try" ]; then
        init=$try
        break
    fi
done
[ -n "$init" ] || stuck "root $root has no init"
say "root $root with upper ${upper:-server}, init $init"
# Where the root says nothing of name servers, DHCP's are better than none.
[ ! -s /etc/resolv.conf ] || [ -e "$new/etc/resolv.conf" ] || [ -L "$new/etc/resolv.conf" ] ||
    cp /etc/resolv.conf "$new/etc/resolv.conf"
# Nothing of ours may hide there what the root mounts itself.
umount /dev/pts
umount /dev/shm
for folder in proc sys dev; do
    mkdir -p "$new/$folder" 2>/dev/null
    mount -o move "/$folder" "$new/$folder" || say "/$folder cannot be moved into the root"
done
exec switch_root "$new" "$init" <"$new/dev/console" >"$new/dev/console" 2>&1
