#!/bin/busybox sh
# PID 1 of a board that starts from a disk's image of ours (rdinit=): loads drivers, mounts the disk, hands over.
# boardhand.disk=UUID names the file system. What cannot go on leaves a shell on the console.

/bin/busybox mkdir -p /proc /sys /dev /root /sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s /bin
PATH=/bin:/sbin
export PATH

say() { echo "boardhand: $*"; }
setting() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p" | tail -n 1; }

# Most of them are for other boards, and say nothing here.
while read -r module; do
    insmod "/lib/boardhand/modules/$module" 2>/dev/null || say "module $module cannot be loaded"
done </lib/boardhand/modules.list

wanted=$(setting boardhand.disk)
tries=0
until disk=$(findfs "UUID=$wanted" 2>/dev/null) && mount -t ext4 -o rw "$disk" /root; do
    tries=$((tries + 1))
    if [ $tries -eq 300 ]; then
        say "no disk with the file system $wanted; this is a shell, and 'exit' tries again"
        sh
        tries=0
    fi
    sleep 0.1
done
say "root on $disk"
for folder in dev proc sys; do
    mount --move "/$folder" "/root/$folder"
done
exec switch_root /root /sbin/init </root/dev/console >/root/dev/console 2>&1
