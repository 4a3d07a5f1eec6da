#!/bin/sh
# The calls of LAVA's MultiNode API and its ways to tell results, for test repositories that were written for LAVA.
# One program under many names. POSIX sh; awk, cat, mktemp, mv, printf, rm, sleep; ip for lava-network.
#
# A call goes to the board's client, which carries it to the broker: its lines stand in a file of BOARDHAND_CALLS, the
# name of that file is written to the fifo `new`, and the answer comes as a file beside it, .ok or .no.

me=${0##*/}
cache=${LAVA_MULTI_NODE_CACHE:-/tmp/lava_multi_node_cache.txt}
network_cache=${LAVA_MULTI_NODE_NETWORK_CACHE:-/tmp/lava_multi_node_network_cache.txt}

fail() {
    echo "$me: $*" >&2
    exit 1
}

call() { # the call's lines on stdin; its answer on stdout
    [ -n "$BOARDHAND_GROUP" ] || fail "this job has no group"
    [ -p "$BOARDHAND_CALLS/new" ] || fail "the board's client has no calls: BOARDHAND_CALLS is '$BOARDHAND_CALLS'"
    file=$(mktemp "$BOARDHAND_CALLS/call-XXXXXX") || fail "no file can be made in $BOARDHAND_CALLS"
    cat >"$file"
    echo "call ${file##*/}" >"$BOARDHAND_CALLS/new"
    until [ -e "$file.ok" ] || [ -e "$file.no" ]; do sleep 0.2 2>/dev/null || sleep 1; done
    # The call's own file stays, so that its name is never used again in this job.
    [ -e "$file.ok" ] || fail "$(cat "$file.no")"
    cat "$file.ok"
    rm -f "$file.ok"
}

into() { # file: the answer becomes its content, or the call fails and there is none
    rm -f "$1"
    (call) >"$1.$$" || {
        rm -f "$1.$$"
        exit 1
    }
    mv "$1.$$" "$1"
}

one_line() { printf '%s' "$1" | tr '\n' ' '; }

send() { # message id, KEY=VALUE...
    [ -n "$1" ] || fail "usage: lava-send MESSAGE-ID [KEY=VALUE]..."
    {
        printf 'send %s\n' "$1"
        shift
        for pair; do printf '%s\n' "$(one_line "$pair")"; done
    } | call
}

wait_all() { # file, message id, role
    [ -n "$2" ] || fail "usage: lava-wait-all MESSAGE-ID [ROLE]"
    printf 'wait-all %s %s\n' "$2" "$3" | into "$1"
}

group() {
    [ -n "$BOARDHAND_GROUP" ] || fail "this job has no group"
    printf '%s\n' "$BOARDHAND_GROUP"
}

# --- the network ---------------------------------------------------------------------------------------------------

network_info() { # interface: KEY=VALUE words, one a line
    command -v ip >/dev/null || fail "this board has no 'ip'"
    ip -4 addr show dev "$1" | awk '
        $1 == "inet" && !done {
            done = 1
            split($2, part, "/"); print "ipv4=" part[1]
            bits = part[2] == "" ? 32 : part[2]; mask = ""
            for (k = 0; k < 4; k++) {
                n = bits >= 8 ? 8 : bits > 0 ? bits : 0; bits -= 8
                mask = mask (k ? "." : "") (256 - 2 ^ (8 - n))
            }
            print "netmask=" mask
            for (k = 3; k < NF; k++) if ($k == "brd") print "broadcast=" $(k + 1)
        }'
    ip -6 addr show dev "$1" 2>/dev/null | awk '$1 == "inet6" { split($2, part, "/"); print "ipv6=" part[1]; exit }'
    [ ! -r "/sys/class/net/$1/address" ] || echo "mac=$(cat "/sys/class/net/$1/address")"
    echo "hostname=$(hostname)"
    echo "hostname-full=$(hostname -f 2>/dev/null || hostname)"
    ip -4 route | awk '$1 == "default" { print "default-gateway=" $3; exit }'
    [ ! -r /etc/resolv.conf ] || awk '$1 == "nameserver" { print "dns_" ++n "=" $2 }' /etc/resolv.conf
}

collected() { [ -e "$network_cache" ] || fail "nothing was collected: 'lava-network collect' comes first"; }

hosts() { # file; with a second word the roles stand there as aliases
    collected
    group >"$network_cache.$$"
    awk -v aliases="$2" '
        FNR == NR { split($0, part, "\t"); role[part[1]] = part[2]; next }
        {
            colon = index($0, ":"); board = substr($0, 1, colon - 1); pair = substr($0, colon + 1)
            equals = index(pair, "="); key = substr(pair, 1, equals - 1); value = substr(pair, equals + 1)
            if (key == "ipv4") { address[board] = value; order[++n] = board }
            if (key == "hostname") name[board] = value
        }
        END {
            for (k = 1; k <= n; k++) {
                board = order[k]
                line = address[board] "\t" (name[board] == "" ? board : name[board])
                if (aliases) line = line "\t" sprintf("%s%02d", role[board], ++count[role[board]])
                print line
            }
        }' "$network_cache.$$" "$network_cache" >>"$1"
    rm -f "$network_cache.$$"
}

network() {
    what=$1
    [ $# -ge 2 ] || fail "usage: lava-network broadcast|collect INTERFACE, query HOST KEY, hosts|alias-hosts FILE"
    shift
    case $what in
    broadcast)
        info=$(network_info "$1") || exit 1
        printf 'send network_info\n%s\n' "$info" | call
        ;;
    collect) wait_all "$network_cache" network_info "$2" ;;
    query)
        collected
        awk -v key="$1:$2=" 'index($0, key) == 1 { print substr($0, length(key) + 1); found = 1 } END { exit !found }' \
            "$network_cache"
        ;;
    hosts) hosts "$1" '' ;;
    alias-hosts) hosts "$1" roles ;;
    *) fail "there is no '$what'; there are broadcast, collect, query, hosts and alias-hosts" ;;
    esac
}

# --- results: the broker reads these lines in the log --------------------------------------------------------------

word() { printf '%s' "$1" | tr -c 'A-Za-z0-9_.:/+@=,%-' '_'; }

result() { # case, result, measurement, units
    line="TEST_CASE_ID=$(word "$1") RESULT=$2"
    [ -z "$3" ] || line="$line MEASUREMENT=$(word "$3")"
    [ -z "$4" ] || line="$line UNITS=$(word "$4")"
    echo "<LAVA_SIGNAL_TESTCASE $line>"
}

test_case() {
    usage="usage: $me CASE --shell COMMAND..., or $me CASE --result pass|fail|skip|unknown [--measurement N] [--units U]"
    case $1 in '' | -*) fail "$usage" ;; esac
    name=$1 result='' measurement='' units=''
    shift
    if [ "$1" = --shell ]; then
        shift
        echo "<LAVA_SIGNAL_STARTTC $(word "$name")>"
        # In a shell of its own, so that an `exit` in it ends only the case.
        if (eval "$*"); then result=pass; else result=fail; fi
        echo "<LAVA_SIGNAL_ENDTC $(word "$name")>"
        result "$name" "$result"
        return 0
    fi
    while [ $# -gt 0 ]; do
        [ $# -ge 2 ] || fail "$usage"
        case $1 in
        --result) result=$2 ;;
        --measurement) measurement=$2 ;;
        --units) units=$2 ;;
        --output | --reference) ;;
        *) fail "$usage" ;;
        esac
        shift 2
    done
    case $result in pass | fail | skip | unknown) ;; *) fail "$usage" ;; esac
    result "$name" "$result" "$measurement" "$units"
}

test_set() {
    case $1:$2 in
    start:?*) echo "<LAVA_SIGNAL_TESTSET START $(word "$2")>" ;;
    stop:*) echo "<LAVA_SIGNAL_TESTSET STOP>" ;;
    *) fail "usage: lava-test-set start NAME, or lava-test-set stop" ;;
    esac
}

case $me in
lava-self) echo "$BOARDHAND_BOARD" ;;
lava-role)
    case $1 in
    '') [ -n "$BOARDHAND_ROLE" ] && echo "$BOARDHAND_ROLE" ;;
    list) group | awk -F '\t' '!seen[$2]++ { print $2 }' ;;
    *) fail "usage: lava-role [list]" ;;
    esac
    ;;
lava-group)
    if [ $# -eq 0 ]; then group; else group | awk -F '\t' -v role="$1" '$2 == role { print $1; n++ } END { exit !n }'; fi
    ;;
lava-send) send "$@" ;;
lava-wait)
    [ $# -eq 1 ] || fail "usage: lava-wait MESSAGE-ID"
    printf 'wait %s\n' "$1" | into "$cache"
    ;;
lava-wait-all) wait_all "$cache" "$1" "$2" ;;
lava-sync)
    [ $# -eq 1 ] || fail "usage: lava-sync MESSAGE-ID"
    if (printf 'sync %s\n' "$1" | call); then
        result "lava-sync-$1" pass
    else
        result "lava-sync-$1" fail
        exit 1
    fi
    ;;
lava-network) network "$@" ;;
lava-echo-ipv4)
    [ $# -eq 1 ] || fail "usage: lava-echo-ipv4 INTERFACE"
    network_info "$1" | sed -n 's/^ipv4=//p'
    ;;
lava-test-case) test_case "$@" ;;
lava-test-set) test_set "$@" ;;
lava-test-raise) echo "<LAVA_SIGNAL_TESTRAISE $(one_line "$*" | tr '<>' '()')>" ;;
*) fail "there is no such call" ;;
esac
