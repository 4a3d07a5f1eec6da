#!/bin/sh
# PID 1 of the USB guest, after its initramfs has mounted the root file system: real udev, then the command channel.
export PATH=/boardhand/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8
export PYTHONPATH=/boardhand/rooms:/opt/wheels
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm /run/udev/rules.d /run/lock
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
# No more of the kernel's chatter than faults: the serial console costs time under emulation.
dmesg -n 4
/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add
udevadm settle --timeout=60
modprobe -a virtio_console configfs
mount -t configfs config /sys/kernel/config
udevadm settle --timeout=30
while :; do
    python3 /boardhand/rooms/virtual_lab/usb_guest_inside.py
    echo "usb guest: the command channel ended with $?"
    sleep 1
done
