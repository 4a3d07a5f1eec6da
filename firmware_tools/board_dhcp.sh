#!/bin/busybox sh
# What udhcpc calls when a lease comes, changes or goes.

case $1 in
deconfig)
    ip addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
    if [ -n "$router" ]; then
        while route del default dev "$interface" 2>/dev/null; do :; done
        for gateway in $router; do route add default gw "$gateway" dev "$interface" && break; done
    fi
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
    ;;
esac
exit 0
