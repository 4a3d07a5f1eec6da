#!/bin/busybox sh
# The first program of the USB guest: mounts its root file system and carries our source tree into it.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module.ko"; done </modules/list
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 200 ] || { echo "usb guest: no /dev/vda"; exec $b poweroff -f; }
    $b usleep 50000
done
$b mount -t ext4 /dev/vda /root || exec $b poweroff -f
$b mount -t tmpfs tmpfs /root/boardhand
$b cp -a /boardhand/. /root/boardhand/
$b mount --move /dev /root/dev
exec $b switch_root /root /boardhand/init
