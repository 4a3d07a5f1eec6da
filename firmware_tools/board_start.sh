#!/bin/busybox sh
# Brings a board from the bare kernel to the network. Run once by busybox init; its lines go to the console.
# What fails is said and passed over: a board with half of its parts can still be looked at over its console.

/bin/busybox mkdir -p /proc /sys /dev /tmp /run /etc /sbin /usr/bin /usr/sbin /var/run
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
PATH=/bin:/sbin:/usr/bin:/usr/sbin
export PATH
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp

say() { echo "boardhand: $*"; }

# The value of KEY=VALUE on the kernel command line; the last one counts, as for the kernel itself.
setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

interfaces() { ls /sys/class/net | grep -v '^lo$'; }

load_modules() {
    while read -r module; do
        insmod "/lib/boardhand/modules/$module" || say "module $module cannot be loaded"
    done </lib/boardhand/modules.list
}

# Drivers find their devices a little after they are loaded.
wait_for_interface() {
    tries=50
    while [ -z "$(interfaces)" ] && [ $tries -gt 0 ]; do
        tries=$((tries - 1))
        sleep 0.1
    done
    [ -n "$(interfaces)" ]
}

# BOOTIF=01-52-54-00-12-34-56 is what PXE loaders write: the interface that the board was loaded through goes first.
in_order() {
    mac=$(setting BOOTIF | sed 's/^01-//; s/-/:/g' | tr 'A-F' 'a-f')
    first=
    for i in $(interfaces); do
        [ -n "$mac" ] && [ "$(cat "/sys/class/net/$i/address")" = "$mac" ] && first=$i
    done
    [ -n "$first" ] && echo "$first"
    interfaces | grep -v "^$first\$"
}

address_of() { ip -4 -o addr show dev "$1" | sed -n 's/.* inet \([0-9.]*\).*/\1/p' | head -n 1; }

# ip=CLIENT:SERVER:GATEWAY:NETMASK:HOST:DEVICE:AUTOCONF (Documentation/admin-guide/nfs/nfsroot.rst)
static_address() {
    fixed=$(setting ip)
    case $fixed in
    [0-9]*.*.*.*:*) ;;
    *) return 1 ;;
    esac
    oldifs=$IFS
    IFS=:
    # shellcheck disable=SC2086  # the fields are to be split
    set -- $fixed
    IFS=$oldifs
    dev=${6:-$(in_order | head -n 1)}
    ifconfig "$dev" "$1" netmask "${4:-255.255.255.0}" up || return 1
    [ -z "$3" ] || route add default gw "$3"
    say "network up $dev $1 (static)"
}

# udhcpc stays in the background afterwards and renews the lease.
dhcp_address() {
    for round in 1 2 3; do
        for dev in $(in_order); do
            if udhcpc -i "$dev" -n -t 4 -T 1 -A 1 -S -s /lib/boardhand/dhcp.sh >/dev/null 2>&1; then
                say "network up $dev $(address_of "$dev") (dhcp)"
                return 0
            fi
        done
        say "no DHCP answer in round $round"
    done
    return 1
}

say "init, kernel $(uname -r) on $(uname -m)"
load_modules
ifconfig lo 127.0.0.1 up
if wait_for_interface; then
    for i in $(interfaces); do
        ip link set "$i" up || say "interface $i cannot be brought up"
    done
    static_address || dhcp_address || say "no address; the client keeps trying, udhcpc does not"
else
    say "no network interface"
fi
name=$(setting boardhand.board)
hostname "${name:-unknown-board}"
say "init done"
exit 0
