#!/bin/busybox sh
# Runs the board's client; busybox init starts this again when it ends.

PATH=/bin:/sbin:/usr/bin:/usr/sbin
HOME=/root
export PATH HOME
mkdir -p /root
cd /root || exit 1
echo "boardhand: client started"
if [ -e /lib/boardhand/client.py ]; then
    python3 /lib/boardhand/client.py
else
    sh /lib/boardhand/client.sh
fi
ended=$?
# 2 means that the kernel command line is wrong: trying again at once would say the same again.
if [ $ended -eq 2 ]; then pause=60; else pause=2; fi
echo "boardhand: client ended with $ended, starting it again in $pause s"
# Without an address there was no network when the board came up; perhaps there is now.
ip -4 -o addr | grep -v ' lo ' | grep -q inet ||
    for i in $(ls /sys/class/net | grep -v '^lo$'); do
        udhcpc -i "$i" -n -t 3 -T 1 -S -s /lib/boardhand/dhcp.sh >/dev/null 2>&1 && break
    done
sleep $pause
