#!/bin/sh
# What runs on a board that has only busybox: it registers, says that it is there, asks for work, runs it and reports.
# The same conversation as client.py, over MQTT 3.1.1 (OASIS standard of 29 October 2014), spoken through nc.
#
# POSIX sh and busybox applets only: awk base64 cat cut dd head hexdump (or od) ip mkfifo nc printf rm sed setsid
# sha256sum sleep sort sync tr uname wc.
#
# How it is put together: one main loop owns all state and takes lines from one fifo, `events`. Three kinds of
# background processes write to it, each line short enough to be atomic, with a number that tells the generations
# apart, so that nothing late is taken for something new:
#   packet GEN TYPE FLAGS NUMBER   a whole MQTT packet; its body is the file in.NUMBER
#   closed GEN                     the connection is gone
#   log JOB NUMBER                 a piece of output; it is the file log.NUMBER
#   logend JOB / ended JOB CODE    the step's output / the step itself has ended
#   call NAME                      a program of the step asks the broker something; it is the file calls/NAME
# At most one QoS 1 message is under way; the others wait in files q.N. So what is written to nc always fits into
# the fifo's 64 KiB, and a frozen server cannot block the main loop.

REGISTER_AGAIN=500 REFUSED_AGAIN=6000 ASK_AGAIN=3000 OUTCOME_AGAIN=500 # hundredths of a second, as all times here
ANSWER_WITHIN=1000 PING_AFTER=1500 KEEPALIVE_S=30 KILL_GRACE=200 DRAIN=200 STABLE=500 CALL_AGAIN=500
PIECE_BYTES=36000    # of an artifact: as base64, with its head, below 64 KiB, see above
MAX_ARTIFACTS=1000
MAX_LOG_BACKLOG=512  # pieces of 8 KiB kept while the server is away
MAX_PACKET=1048576   # four times the largest payload of the contract
CLIENT="client.sh 1.2"

# --- JSON, in awk: bytes come in as one decimal number a line, so that NUL and broken UTF-8 survive ----------------

# Parses one JSON text (RFC 8259). For each scalar, S[path] is where its text starts in B, T[path] its type
# (s n t f z). Strings are decoded when they are printed, straight to the output, so nothing long is ever joined.
# mode=dump prints every scalar; mode=fields prints shell assignments of what the client uses; mode=env prints exports.
AWK_PARSE='
function bad(why) { failed = 1; exit 3 }
function blank() { while (B[i] == 32 || B[i] == 9 || B[i] == 10 || B[i] == 13) i++ }
function hexdigit(c) { return c >= 48 && c <= 57 ? c - 48 : c >= 65 && c <= 70 ? c - 55 : c >= 97 && c <= 102 ? c - 87 : -1 }
function hex4(at,  k, d, v) {
    v = 0
    for (k = 0; k < 4; k++) { d = hexdigit(B[at + k]); if (d < 0) return -1; v = v * 16 + d }
    return v
}
# Skips the string that starts at i (behind its quote); says in `nul` whether a NUL is in it.
function skip_string() {
    nul = 0
    for (;; i++) {
        if (i > n || B[i] < 32) bad("string")
        if (B[i] == 34) { i++; return }
        if (B[i] == 92) {
            i++
            if (B[i] == 117) {
                if (hex4(i + 1) < 0) bad("escape")
                if (hex4(i + 1) == 0) nul = 1
                i += 4
            } else if (!(B[i] in ESC)) bad("escape")
        }
    }
}
function put(c) {
    if (mode == "dump") printf "%02x", c
    else if (capture) text = text CHR[c]
    else if (c == 39) printf "\047\\\047\047"
    else printf "%c", c
}
function put_code(u) {
    if (u < 128) put(u)
    else if (u < 2048) { put(192 + int(u / 64)); put(128 + u % 64) }
    else if (u < 65536) { put(224 + int(u / 4096)); put(128 + int(u / 64) % 64); put(128 + u % 64) }
    else { put(240 + int(u / 262144)); put(128 + int(u / 4096) % 64); put(128 + int(u / 64) % 64); put(128 + u % 64) }
}
# Prints the string that starts at `at`, decoded.
function emit(at,  u, low) {
    for (; B[at] != 34; at++) {
        if (B[at] != 92) { put(B[at]); continue }
        at++
        if (B[at] != 117) { put(ESC[B[at]]); continue }
        u = hex4(at + 1); at += 4
        if (u >= 55296 && u < 56320 && B[at + 1] == 92 && B[at + 2] == 117) {
            low = hex4(at + 3)
            if (low >= 56320 && low < 57344) { put_code(65536 + (u - 55296) * 1024 + low - 56320); at += 6; continue }
        }
        put_code(u >= 55296 && u < 57344 ? 65533 : u)
    }
}
# The string at `at` as it stands in the source, escapes and all: it can be put into JSON again as it is.
function emit_raw(at) {
    for (; B[at] != 34; at++) {
        if (B[at] == 92) { put(92); at++ }
        put(B[at])
    }
}
function number(  t) {
    t = ""
    while (B[i] == 43 || B[i] == 45 || B[i] == 46 || (B[i] >= 48 && B[i] <= 57) || B[i] == 69 || B[i] == 101) { t = t CHR[B[i]]; i++ }
    if (t !~ /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$/) bad("number")
    return t
}
function word(w,  k) {
    for (k = 1; k <= length(w); k++) if (B[i + k - 1] != ORD[substr(w, k, 1)]) bad("word")
    i += length(w)
}
function scalar(path, type, at) {
    if (!(path in T)) P[++count] = path
    T[path] = type; S[path] = at; NUL[path] = nul
}
function value(path, depth,  k, key, c) {
    if (depth > 64) bad("depth")
    blank(); c = B[i]; nul = 0
    if (c == 34) { i++; k = i; skip_string(); scalar(path, "s", k) }
    else if (c == 123) {
        i++; blank(); T[path] = "o"
        if (B[i] == 125) { i++; return }
        for (;;) {
            blank(); if (B[i] != 34) bad("key")
            i++; k = i; skip_string(); capture = 1; text = ""; m = mode; mode = ""; emit(k); mode = m; capture = 0; key = text
            blank(); if (B[i] != 58) bad("colon")
            i++; value(path "/" key, depth + 1); blank()
            if (B[i] == 125) { i++; return }
            if (B[i] != 44) bad("comma")
            i++
        }
    } else if (c == 91) {
        i++; blank(); k = 0; T[path] = "a"; N[path] = 0
        if (B[i] == 93) { i++; return }
        for (;;) {
            value(path "/" k, depth + 1); k++; N[path] = k; blank()
            if (B[i] == 93) { i++; return }
            if (B[i] != 44) bad("comma")
            i++
        }
    }
    else if (c == 116) { word("true"); scalar(path, "t", 0) }
    else if (c == 102) { word("false"); scalar(path, "f", 0) }
    else if (c == 110) { word("null"); scalar(path, "z", 0) }
    else scalar(path, "n", number())
}
function assign(name, path) {
    if (T[path] == "s" && !NUL[path]) { printf "%s=\047", name; emit(S[path]); print "\047" }
}
function assign_raw(name, path) {
    if (T[path] == "s") { capture = 1; text = ""; emit_raw(S[path]); capture = 0; gsub(/\047/, "\047\\\047\047", text); printf "%s=\047%s\047\n", name, text }
}
function fields(  k, good, limit) {
    assign("m_kind", "/kind"); assign("m_job", "/job"); assign("m_boot_id", "/boot_id"); assign("m_board", "/board")
    assign("m_reason", "/reason"); assign_raw("m_reason_raw", "/reason"); assign("m_error", "/error/message")
    assign("m_call", "/call"); assign("m_text", "/text")
    if (T["/token"] == "n" && S["/token"] ~ /^[1-9][0-9]*$/ && length(S["/token"]) <= 16) print "m_token=" S["/token"]
    print "m_ok=" ("/ok" in T ? T["/ok"] : "")
    if (T["/artifacts/paths"] == "a" && S["/artifacts/max_bytes"] ~ /^[1-9][0-9]*$/) {
        print "m_patterns=" N["/artifacts/paths"]; print "m_room=" S["/artifacts/max_bytes"]
        for (k = 0; k < N["/artifacts/paths"]; k++) assign("m_pattern_" k, "/artifacts/paths/" k)
    }
    if (T["/steps"] != "a") return
    good = N["/steps"]
    for (k = 0; k < N["/steps"]; k++) {
        p = "/steps/" k
        if (T[p "/name"] != "s" || T[p "/run"] != "s" || NUL[p "/run"] || ((p "/timeout_s") in T && T[p "/timeout_s"] != "n")) good = 0
        limit = T[p "/timeout_s"] == "n" ? S[p "/timeout_s"] + 0 : 600
        if (limit > 604800) limit = 604800
        assign_raw("m_name_" k, p "/name"); assign("m_run_" k, p "/run")
        printf "m_timeout_%d=%d\nm_limit_%d=%s\n", k, limit * 100, k, limit
        codes = T[p "/exit_codes"] == "a" ? "" : " 0"
        for (c = 0; c < N[p "/exit_codes"]; c++) codes = codes " " S[p "/exit_codes/" c]
        if (codes !~ /^[0-9 ]*$/) { good = 0; codes = "" }
        printf "m_codes_%d=\047%s \047\nm_go_on_%d=%s\n", k, codes, k, T[p "/continue_on_fail"] == "t" ? 1 : ""
    }
    print "m_steps=" good
}
function env(  k, name) {
    for (k = 1; k <= count; k++) {
        name = P[k]
        if (name !~ /^\/env\/[A-Za-z_][A-Za-z0-9_]*$/ || T[name] != "s" || NUL[name]) continue
        printf "export %s=\047", substr(name, 6); emit(S[name]); print "\047"
    }
}
function dump(  k) {
    for (k = 1; k <= count; k++) {
        printf "%s %s ", P[k], T[P[k]]
        if (T[P[k]] == "s") emit(S[P[k]]); else if (T[P[k]] == "n") printf "%s", S[P[k]]
        print ""
    }
}
BEGIN {
    for (k = 1; k < 256; k++) { CHR[k] = sprintf("%c", k); ORD[CHR[k]] = k }
    ESC[34] = 34; ESC[92] = 92; ESC[47] = 47; ESC[98] = 8; ESC[102] = 12; ESC[110] = 10; ESC[114] = 13; ESC[116] = 9
}
{ B[++n] = $1 + 0 }
END {
    if (failed) exit 3
    i = 1; B[n + 1] = -1
    value("", 0); blank()
    if (i <= n) bad("rest")
    if (mode == "dump") dump(); else if (T[""] != "o") exit 3; else if (mode == "env") env(); else fields()
}'

# Bytes as the inside of a JSON string. What is no UTF-8 becomes U+FFFD, one for each maximal part (Unicode 15,
# section 3.9). A sequence that is cut at the end goes to the file `rest`, to stand before the next piece;
# without `rest` it is U+FFFD too.
AWK_ESCAPE='
function broken() { printf "\\ufffd" }
function lead(c) {
    seen = c; need = 0; lo = 128; hi = 191
    if (c >= 194 && c <= 223) need = 1
    else if (c >= 224 && c <= 239) { need = 2; if (c == 224) lo = 160; if (c == 237) hi = 159 }
    else if (c >= 240 && c <= 244) { need = 3; if (c == 240) lo = 144; if (c == 244) hi = 143 }
    else broken()
}
{
    c = $1 + 0
    if (need > 0) {
        if (c >= lo && c <= hi) {
            seen = seen "\n" c; lo = 128; hi = 191; need--
            if (need == 0) { k = split(seen, part, "\n"); for (j = 1; j <= k; j++) printf "%c", part[j] + 0 }
            next
        }
        need = 0; broken()
    }
    if (c == 34) printf "\\\""
    else if (c == 92) printf "\\\\"
    else if (c == 10) printf "\\n"
    else if (c < 32 || c == 127) printf "\\u%04x", c
    else if (c < 128) printf "%c", c
    else lead(c)
}
END { if (need > 0) { if (rest == "") broken(); else print seen > rest } }'

# bytes -> one decimal number a line
if printf a | hexdump -v -e '/1 "%u\n"' >/dev/null 2>&1; then
    decimal() { hexdump -v -e '/1 "%u\n"'; }
else
    decimal() { od -An -v -tu1 | tr -s ' ' '\n' | sed '/^$/d'; }
fi
parse() { decimal | LC_ALL=C awk -v mode="$1" "$AWK_PARSE"; }
escape() { decimal | LC_ALL=C awk -v rest="$1" "$AWK_ESCAPE"; }
quote() { printf '"%s"' "$(printf %s "$1" | escape)"; }

# --- HMAC-SHA256 (RFC 2104) with a key of 64 hexadecimal digits: exactly one block, so the pads are a translation --

hmac() { # key; message on stdin
    inner=$({
        printf %s "$1" | tr '0123456789abcdef' '\006\007\004\005\002\003\000\001\016\017WTURSP' # xor 0x36
        cat
    } | sha256sum | cut -c 1-64)
    octal=$(printf %s "$inner" | awk '{ for (i = 1; i < 64; i += 2) printf "\\%03o", 16 * (index("0123456789abcdef", substr($0, i, 1)) - 1) + index("0123456789abcdef", substr($0, i + 1, 1)) - 1 }')
    {
        printf %s "$1" | tr '0123456789abcdef' 'lmnohijkde=>?89:' # xor 0x5c
        # shellcheck disable=SC2059  # the digest as bytes is the format
        printf "$octal"
    } | sha256sum | cut -c 1-64
}

# --- the command line ----------------------------------------------------------------------------------------------

say() { echo "boardhand: $*"; }
die() {
    echo "boardhand: $*" >&2
    exit 2
}

root=/ cmdline_file='' dry='' shell=/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    --root) root=${2%/}/ && shift ;;
    --cmdline-file) cmdline_file=$2 && shift ;;
    --shell) shell=$2 && shift ;;
    --dry-orders) dry=1 ;;
    json-parse) parse "${2:-dump}" && exit 0 || exit 3 ;; # these three are for the tests
    json-escape) escape "$2" && exit 0 ;;
    hmac) hmac "$2" && exit 0 ;;
    *) die "$1 is no option; there are --root DIR, --cmdline-file FILE, --shell PROGRAM and --dry-orders" ;;
    esac
    shift
done
cmdline_file=${cmdline_file:-${root}proc/cmdline}
[ -r "$cmdline_file" ] || die "$cmdline_file: cannot be read"

server='' board='' agent='' prefix=boardhand secret='' bootif=''
set -f
# shellcheck disable=SC2013  # words are wanted
for word in $(cat "$cmdline_file"); do
    case $word in
    boardhand.mqtt=*) server=${word#*=} ;;
    boardhand.board=*) board=${word#*=} ;;
    boardhand.agent=*) agent=${word#*=} ;;
    boardhand.prefix=*) prefix=${word#*=} ;;
    boardhand.secret=*) secret=${word#*=} ;;
    BOOTIF=??-*) bootif=$(echo "${word#BOOTIF=??-}" | tr 'A-F-' 'a-f:') ;;
    esac
done
set +f
host=${server%:*} port=${server##*:}
case $port in '' | *[!0-9]*) host='' ;; esac
if [ -z "$host" ] || [ "$host" = "$server" ]; then
    die "boardhand.mqtt='$server' on the kernel command line: write boardhand.mqtt=HOST:PORT"
fi
case $secret in *[!0-9a-f]*) secret=bad ;; esac
[ -z "$secret" ] || [ ${#secret} -eq 64 ] || die "boardhand.secret on the kernel command line is not 64 hexadecimal digits"
case $prefix in '' | *[!A-Za-z0-9_/-]*) die "boardhand.prefix='$prefix' on the kernel command line: use letters, digits, '_', '-' and '/'" ;; esac
case $board$agent in *[!a-z0-9-]*) die "boardhand.board and boardhand.agent on the kernel command line: use a-z, 0-9 and '-'" ;; esac

# --- who this board is ---------------------------------------------------------------------------------------------

line_of() { [ -r "$root$1" ] && head -n 1 "$root$1"; }
# Firmware strings end in NUL.
text_of() { [ -r "$root$1" ] && tr -d '\000\n' <"$root$1" | cut -c 1-256; }

inventory() { # what jobs may ask for: what is not known is left out
    model=$(text_of proc/device-tree/model || text_of sys/class/dmi/id/product_name)
    case $model in
    '' | 'Default string' | 'System Product Name' | 'To '[Bb]'e '[Ff]'illed '[Bb]'y O.E.M.') ;;
    *) printf ',"model":%s' "$(quote "$model")" ;;
    esac
    cpu=$(cat "$root"proc/device-tree/cpus/cpu@*/compatible 2>/dev/null | tr '\000' '\n' | head -n 1 | cut -c 1-256)
    if [ -r "${root}proc/cpuinfo" ]; then
        [ -n "$cpu" ] || cpu=$(sed -n 's/^model name[^:]*: *//p' "${root}proc/cpuinfo" | head -n 1 | cut -c 1-256)
        cpus=$(grep -c '^processor' "${root}proc/cpuinfo")
    fi
    [ -z "$cpu" ] || printf ',"cpu":%s' "$(quote "$cpu")"
    [ "${cpus:-0}" -eq 0 ] || printf ',"cpus":%d' "$cpus"
    nics=0 sectors=0 kinds=''
    for file in "$root"sys/class/net/*/device; do
        [ ! -e "$file" ] || nics=$((nics + 1))
    done
    [ $nics -eq 0 ] || printf ',"nics":%d' $nics
    for file in "$root"sys/block/*/size; do
        disk=${file%/size} disk=${disk##*/}
        case $disk in
        *boot* | *rpmb*) continue ;;
        mmcblk*) kind=mmc ;;
        nvme*) kind=nvme ;;
        sd* | hd*) kind=disk ;;
        vd* | xvd*) kind=virtual ;;
        *) continue ;;
        esac
        read -r size <"$file" && [ "$size" -gt 0 ] 2>/dev/null || continue
        sectors=$((sectors + size))
        case ,$kinds, in *,$kind,*) ;; *) kinds=$kinds${kinds:+,}$kind ;; esac
    done
    [ $((sectors / 1953125)) -eq 0 ] || printf ',"storage_gb":%d' $((sectors / 1953125))
    [ -z "$kinds" ] || printf ',"storage":"%s"' "$kinds"
}

boot_id=$(line_of proc/sys/kernel/random/boot_id)
boot_id=${boot_id:-unknown}
cards=$(for file in "$root"sys/class/net/*/address; do
    card=${file%/address}
    [ "${card##*/}" = lo ] || [ ! -r "$file" ] || echo "${card##*/} $(tr 'A-F' 'a-f' <"$file")"
done | awk 'length($2) == 17 && $2 != "00:00:00:00:00:00"')
macs=$(echo "$cards" | awk 'NF { print $2 }' | sort)

address='' device=''
find_route() { # the interface and the address with which we reach the server
    # shellcheck disable=SC2046  # fields
    set -- $(ip -4 route get "$host" 2>/dev/null)
    while [ $# -gt 1 ]; do
        case $1 in dev) device=$2 ;; src) address=$2 ;; esac
        shift
    done
}
find_route
mac=$(echo "$cards" | awk -v boot="$bootif" -v device="$device" '
    $2 == boot { a = $2 } $1 == device { b = $2 } NR == 1 { c = $2 } END { print a ? a : b ? b : c }')
[ -n "$mac" ] || die "${root}sys/class/net: no network interface with a MAC address"

identity=$(
    printf '"macs":[%s]' "$(echo "$macs" | awk '{ printf "%s\"%s\"", (NR > 1 ? "," : ""), $1 }')"
    [ -z "$agent" ] || printf ',"agent":"%s"' "$agent"
    serial=$(text_of proc/device-tree/serial-number || text_of sys/class/dmi/id/product_serial)
    [ -z "$serial" ] || printf ',"serial":%s' "$(quote "$serial")"
    uuid=$(text_of sys/class/dmi/id/product_uuid | tr 'A-F' 'a-f')
    [ -z "$uuid" ] || printf ',"uuid":%s' "$(quote "$uuid")"
    if [ -r "${root}proc/device-tree/compatible" ]; then
        tr '\000' '\n' <"${root}proc/device-tree/compatible" | {
            separator='' list=''
            while read -r name; do
                list="$list$separator$(quote "$name")" separator=,
            done
            printf ',"compatible":[%s]' "$list"
        }
    fi
    printf ',"arch":%s' "$(quote "$(uname -m)")"
    [ ! -r "${root}proc/meminfo" ] || awk '/^MemTotal:/ { printf ",\"memory_mb\":%d", $2 / 1024 }' "${root}proc/meminfo"
    inventory=$(inventory)
    [ -z "$inventory" ] || printf ',"inventory":{%s}' "${inventory#,}"
    kernel=$(line_of proc/sys/kernel/osrelease)
    [ -z "$kernel" ] || printf ',"kernel":%s' "$(quote "$kernel")"
)
os=$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*[^"\\]\).*/\1/p' "${root}etc/os-release" 2>/dev/null)
os=$(quote "${os:-Linux}")

# --- files, fifos, time --------------------------------------------------------------------------------------------

dir=$(mktemp -d "${TMPDIR:-/tmp}/boardhand-XXXXXX") || die "no folder can be made below ${TMPDIR:-/tmp}"
mkfifo "$dir/events" "$dir/output"
exec 5<>"$dir/events"

now=0
get_now() { # hundredths of a second since the kernel started
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}
    now=${now#0} # "0.08" would be octal
    now=${now#0}
}
octets() { # each argument as one byte
    format=''
    for octet; do format="$format\\$((octet >> 6))$((octet >> 3 & 7))$((octet & 7))"; done
    # shellcheck disable=SC2059  # the bytes are the format
    printf "$format"
}
remaining_length() { # section 2.2.3: seven bits a byte, low ones first
    left=$1 coded=''
    while [ "$left" -gt 127 ]; do
        coded="$coded $((left & 127 | 128))" left=$((left >> 7))
    done
    # shellcheck disable=SC2086  # numbers
    octets $coded "$left"
}
string() { # an ASCII string with its length
    octets $((${#1} >> 8)) $((${#1} & 255))
    printf %s "$1"
}

# --- MQTT ----------------------------------------------------------------------------------------------------------

generation=0 connection='' link=down work=idle registered='' attempt=0 next_attempt=0
packet_id=0 last_sent=0 ping_at='' up_since=''
first=1000000 last=1000000 # the queue is q.$first up to, but without, q.$last; it grows at both ends
in_flight='' sent_at=0

reader() { # packets from stdin to events
    number=0
    while :; do
        # shellcheck disable=SC2046  # numbers
        set -- $(dd bs=1 count=2 2>/dev/null | decimal)
        [ $# -eq 2 ] || break
        head=$1 byte=$2 length=$(($2 & 127)) shift=7
        while [ "$byte" -gt 127 ]; do
            byte=$(dd bs=1 count=1 2>/dev/null | decimal)
            [ -n "$byte" ] && [ $shift -le 21 ] || break 2
            length=$((length | (byte & 127) << shift)) shift=$((shift + 7))
        done
        [ $length -le $MAX_PACKET ] || break
        number=$((number + 1))
        file=$dir/in.$generation.$number
        dd bs=1 count=$length of="$file" 2>/dev/null
        [ "$(wc -c <"$file")" -eq $length ] || break
        echo "packet $generation $((head >> 4)) $((head & 15)) $number" >&5
    done
    echo "closed $generation" >&5
}

mqtt_connect() {
    generation=$((generation + 1)) in_flight='' ping_at='' up_since=''
    rm -f "$dir/to-server" "$dir"/in.*
    mkfifo "$dir/to-server"
    exec 4<>"$dir/to-server"
    {
        nc "$host" "$port" <"$dir/to-server" 2>/dev/null 4>&- 5>&- &
        echo $! >"$dir/nc.pid"
        wait $!
    } 4>&- | reader 4>&- &
    connection=opening link=down
    # Name and will only after the agent said yes: who only says to be a board must neither throw it off nor speak for it.
    if [ -n "$registered" ]; then name=bh-$board; else name=bh-mac-$(echo "$mac" | tr -d :); fi
    will="{\"state\":\"offline\",\"boot_id\":\"$boot_id\"}" topic=$prefix/board/$board/self
    flags=2 length=$((12 + ${#name})) # clean session
    [ -z "$registered" ] || flags=$((2 | 4 | 8 | 32)) length=$((length + 4 + ${#topic} + ${#will})) # will, QoS 1, retained
    {
        octets 16
        remaining_length $length
        string MQTT
        octets 4 $flags $((KEEPALIVE_S >> 8)) $((KEEPALIVE_S & 255))
        string "$name"
        [ -z "$registered" ] || string "$topic"
        [ -z "$registered" ] || string "$will"
    } >&4
    last_sent=$now sent_at=$now
}

mqtt_drop() { # why
    say "connection lost: $1"
    mqtt_end
    [ -z "$up_since" ] || [ $((now - up_since)) -lt $STABLE ] || attempt=0
    up_since=''
    # 0.5 s doubled up to 30 s, times a half to one, so that a farm's boards do not come all at once
    dice=$(dd if=/dev/urandom bs=1 count=1 2>/dev/null | decimal)
    pause=$((50 << (attempt > 6 ? 6 : attempt)))
    [ $pause -le 3000 ] || pause=3000
    next_attempt=$((now + pause / 2 + pause * dice / 510)) attempt=$((attempt + 1))
    [ $link = leaving ] || link=down
    queue_keep_logs
}

mqtt_end() {
    read -r pid <"$dir/nc.pid" && kill "$pid" 2>/dev/null
    exec 4>&-
    connection='' in_flight='' ping_at=''
    generation=$((generation + 1)) # what the reader still says is for nobody
}

mqtt_subscribe() {
    topic_a=$prefix/register/$(echo "$mac" | tr : -) topic_b=$prefix/board/$board/work topic_c=$prefix/board/$board/work/answer
    length=$((5 + ${#topic_a}))
    [ -z "$registered" ] || length=$((length + 6 + ${#topic_b} + ${#topic_c}))
    next_id
    {
        octets 130
        remaining_length $length
        octets $((packet_id >> 8)) $((packet_id & 255))
        string "$topic_a"
        octets 1
        [ -z "$registered" ] || string "$topic_b"
        [ -z "$registered" ] || octets 1
        [ -z "$registered" ] || string "$topic_c"
        [ -z "$registered" ] || octets 1
    } >&4
    connection=subscribing last_sent=$now sent_at=$now
}

next_id() { packet_id=$((packet_id % 65535 + 1)); }

# Sends the first message of the queue when none is under way.
pump() {
    [ "$connection" = up ] && [ -z "$in_flight" ] && [ $first -lt $last ] || return
    eval "topic=\$q_topic_$first retain=\$q_retain_$first"
    next_id
    size=$(wc -c <"$dir/q.$first")
    {
        octets $((50 + retain))
        remaining_length $((4 + ${#topic} + size))
        string "$topic"
        octets $((packet_id >> 8)) $((packet_id & 255))
        cat "$dir/q.$first"
    } >"$dir/packet"
    cat "$dir/packet" >&4 # in one piece: nc cannot switch Nagle's algorithm off, and small pieces wait 40 ms each
    in_flight=$packet_id last_sent=$now sent_at=$now
}

# --- the queue: messages that wait. Logs outlive a connection, the others are made anew ----------------------------

enqueue() { # topic retain(0 or 1) kind(log or msg); the payload was written to q.$last
    eval "q_topic_$last=\$1 q_retain_$last=\$2 q_kind_$last=\$3"
    last=$((last + 1))
}
queue_forget() { # its first message
    eval "kind=\$q_kind_$first"
    if [ "$kind" = log ]; then
        logs_gone=$((logs_gone + 1))
        echo $logs_gone >"$dir/logs-gone"
    fi
    unset "q_topic_$first" "q_retain_$first" "q_kind_$first"
    rm -f "$dir/q.$first"
    first=$((first + 1))
}
queue_keep_logs() {
    in_flight='' end=$last
    while [ $first -lt $end ]; do
        eval "topic=\$q_topic_$first kind=\$q_kind_$first"
        if [ "$kind" = log ] || [ "$kind" = file ]; then
            mv "$dir/q.$first" "$dir/q.$last"
            eval "q_topic_$last=\$topic q_retain_$last=0 q_kind_$last=\$kind"
            last=$((last + 1))
            [ "$kind" = file ] || logs_gone=$((logs_gone - 1))
        fi
        queue_forget
    done
}
queue_clear() {
    while [ $first -lt $last ]; do queue_forget; done
    in_flight=''
}

enqueue_result() { enqueue "$prefix/board/$board/work/result" 0 msg; }
enqueue_self() { enqueue "$prefix/board/$board/self" 1 msg; }

announce() {
    up=$(line_of proc/uptime)
    {
        printf '{"state":"online","boot_id":"%s","os":%s,"client":"%s"' "$boot_id" "$os" "$CLIENT"
        [ -z "$address" ] || printf ',"address":"%s"' "$address"
        [ -z "$up" ] || printf ',"uptime_s":%s' "${up%% *}"
        [ $work = idle ] || printf ',"work":"%s"' "$job"
        printf '}'
    } >"$dir/q.$last"
    enqueue_self
}

# --- the connection's states: down registering refused online leaving ----------------------------------------------

due=''

register() {
    {
        printf '{"mac":"%s","boot_id":"%s",%s,"client":"%s"' "$mac" "$boot_id" "$identity" "$CLIENT"
        [ -z "$address" ] || printf ',"address":"%s"' "$address"
        [ -z "$board" ] || printf ',"board":"%s"' "$board"
        [ -z "$board" ] || [ -z "$secret" ] ||
            printf ',"proof":"%s"' "$(printf 'boardhand-register\n%s\n%s\n%s' "$board" "$boot_id" "$mac" | hmac "$secret")"
        printf '}'
    } >"$dir/q.$last"
    enqueue "$prefix/register" 0 msg
    link=registering due=$((now + REGISTER_AGAIN))
}

connected() {
    connection=up up_since=$now
    find_route
    if [ -n "$registered" ]; then resume; else register; fi
}

resume() {
    link=online
    # Presence and what we work on go before the log that waited; what waited is put behind again.
    end=$last
    announce
    case $work in running | stopping | collecting) accept ;; esac
    while [ $first -lt $end ]; do
        eval "topic=\$q_topic_$first"
        mv "$dir/q.$first" "$dir/q.$last"
        eval "q_topic_$last=\$topic q_retain_$last=0 q_kind_$last=\$q_kind_$first"
        last=$((last + 1))
        eval "[ \$q_kind_$first != log ]" || logs_gone=$((logs_gone - 1))
        queue_forget
    done
    repeat
    say_calls
}

repeat() {
    due=''
    case $work in
    idle)
        printf '{"kind":"ask","boot_id":"%s"}' "$boot_id" >"$dir/q.$last"
        enqueue_result
        due=$((now + ASK_AGAIN))
        ;;
    done) report ;;
    esac
}

on_due() {
    due=''
    case $link in
    registering | refused) register ;;
    online) repeat ;;
    esac
}

on_answer() {
    [ "$m_boot_id" = "$boot_id" ] || return # for an earlier boot
    [ $link = registering ] || return
    if [ "$m_ok" != t ]; then
        say "registration refused: ${m_error:-no reason given}"
        link=refused due=$((now + REFUSED_AGAIN))
        return
    fi
    case $m_board in *[!a-z0-9-]* | -*) return ;; esac
    board=${m_board:-$board}
    [ -n "$board" ] || return
    say "registered as $board"
    octets 224 0 >&4 # the will carries the name, so it takes a new connection
    queue_clear
    mqtt_end
    registered=1 link=down due='' next_attempt=$now
}

leave() { # for: reboot, poweroff, exit
    [ $link != leaving ] || return
    leaving_for=$1 due=''
    queue_clear
    [ $work = idle ] || kill_step KILL
    if [ -n "$registered" ] && [ "$connection" = up ]; then
        link=leaving leave_by=$((now + ANSWER_WITHIN))
        printf '{"state":"offline","boot_id":"%s"}' "$boot_id" >"$dir/q.$last"
        enqueue_self
    else
        finish_leaving
    fi
}

finish_leaving() {
    if [ "$connection" = up ]; then
        octets 224 0 >&4
        # The server hangs up when it has read that; to go before would make it send the will.
        until=$((now + 200))
        while get_now && [ "$now" -lt $until ] && read -r -t 2 event number _ <&5; do
            [ "$event $number" != "closed $generation" ] || break
        done
    fi
    clean_up
    case $leaving_for in
    exit) exit 0 ;;
    esac
    if [ -n "$dry" ]; then
        case $leaving_for in reboot) say "would reboot" ;; poweroff) say "would power down" ;; esac
        exit 0
    fi
    sync
    # Under systemd it is its business; in an initramfs nobody would hear the polite form.
    if [ -d /run/systemd/system ]; then "$leaving_for"; else "$leaving_for" -f; fi
    sleep 120
    exit 1
}

clean_up() {
    [ -z "$step_pid" ] || kill -KILL "-$step_pid" 2>/dev/null
    read -r pid <"$dir/nc.pid" && kill "$pid" 2>/dev/null
    rm -rf "$dir"
} 2>/dev/null

# --- the work's states: idle running stopping dropping collecting done --------------------------------------------------------

job='' token='' step=0 steps=0 step_pid='' step_run=0 results='' log_seq=0 logs_gone=0 logs_made=0 stopped=''
why='' kill_at='' deadline='' ended_code='' drain_by='' log_ended='' problem='' name_raw=''
calls='' calls_due='' # names of what programs of the step ask, and when to say it again
finished=' ' # " job:token" of what was done, newest last; their outcomes are the files done.JOB.TOKEN

accept() {
    printf '{"kind":"accept","job":"%s","token":%s,"boot_id":"%s"}' "$job" "$token" "$boot_id" >"$dir/q.$last"
    enqueue_result
}

on_work() { # of a message in $dir/message
    case $m_kind in
    reboot | poweroff)
        say "ordered to $m_kind: ${m_reason:-no reason given}"
        leave "$m_kind"
        return
        ;;
    esac
    [ $link = online ] || return
    case $m_kind in
    offer) on_offer ;;
    answer)
        [ $work = running ] && [ "$m_job" = "$job" ] && [ "$m_token" = "$token" ] || return
        case " $calls " in *" $m_call "*) on_call_answer ;; esac
        ;;
    ack | stop)
        [ $work != idle ] && [ "$m_job" = "$job" ] && [ "$m_token" = "$token" ] || return
        case $m_kind:$m_ok:$work in
        stop:*:running)
            stopped="stopped: ${m_reason_raw:-no reason given}" work=stopping
            kill_step TERM
            ;;
        stop:*:collecting)
            stopped="stopped: ${m_reason_raw:-no reason given}"
            finish_job
            ;;
        stop:*:done) report ;;
        stop:*) ;;
        *:f:running)
            work=dropping
            kill_step TERM
            ;;
        *:f:stopping) work=dropping ;;
        *:f:collecting) drop ;;
        *:done) forget ;;
        esac
        ;;
    esac
}

on_offer() {
    case $m_job in '' | -* | *[!a-z0-9-]*) m_steps=0 ;; esac
    if [ -z "$m_token" ] || [ "${m_steps:-0}" -eq 0 ]; then
        say "a message on work was not taken: job, token or steps are missing or of a wrong type"
        return
    fi
    if [ $work = idle ]; then
        case $finished in
        *" $m_job:$m_token "*) enqueue_outcome "$m_job.$m_token" ;;
        *) start_job ;;
        esac
        return
    fi
    case $work in # the same one again, or another: both times it is said what we are at
    running | collecting) accept ;;
    done) report ;;
    esac
}

MAX_CALL=32768 MAX_CALLS=32

on_call() { # name
    [ $work = running ] || return
    case $1 in '' | .* | *[!A-Za-z0-9._-]*) return ;; esac
    [ -f "$dir/calls/$1" ] || return
    # shellcheck disable=SC2086  # words
    set -- "$1" $calls
    m_call=$1 m_ok=f m_text="more than $MAX_CALL bytes, or than $MAX_CALLS calls at a time"
    if [ $# -gt $MAX_CALLS ] || [ "$(wc -c <"$dir/calls/$1")" -gt $MAX_CALL ]; then
        on_call_answer
        return
    fi
    calls="$calls $1"
    [ $link != online ] || say_call "$1"
}

say_call() { # name
    {
        printf '{"kind":"call","job":"%s","token":%s,"call":"%s","text":"' "$job" "$token" "$1"
        escape <"$dir/calls/$1"
        printf '"}'
    } >"$dir/q.$last"
    enqueue "$prefix/board/$board/work/call" 0 msg
    [ -n "$calls_due" ] || calls_due=$((now + CALL_AGAIN))
}

say_calls() {
    calls_due=''
    for call in $calls; do say_call "$call"; done
}

on_call_answer() { # m_call, m_ok, m_text
    ending=no
    [ "$m_ok" != t ] || ending=ok
    printf %s "$m_text" >"$dir/calls/$m_call.new"
    mv "$dir/calls/$m_call.new" "$dir/calls/$m_call.$ending"
    left_calls=''
    for call in $calls; do [ "$call" = "$m_call" ] || left_calls="$left_calls $call"; done
    calls=$left_calls
}

start_job() {
    job=$m_job token=$m_token steps=$m_steps step=0 results='' log_seq=0 stopped='' due='' problem=''
    : >"$dir/carry"
    parse env <"$dir/message" >"$dir/env"
    step=0
    while [ $step -lt "$steps" ]; do # m_ variables are overwritten by the next message
        eval "s_name_$step=\$m_name_$step s_run_$step=\$m_run_$step s_timeout_$step=\$m_timeout_$step s_limit_$step=\$m_limit_$step"
        eval "s_codes_$step=\$m_codes_$step s_go_on_$step=\$m_go_on_$step"
        step=$((step + 1))
    done
    a_patterns=${m_patterns:-0} a_room=${m_room:-0} a_n=0 failed='' failed_raw='' failed_why=''
    while [ $a_n -lt "$a_patterns" ]; do
        eval "a_pattern_$a_n=\$m_pattern_$a_n"
        a_n=$((a_n + 1))
    done
    step=0 work=running
    rm -rf "$dir/work" "$dir/bin" "$dir/calls"
    mkdir "$dir/work" "$dir/bin" "$dir/calls"
    ln -s ../events "$dir/calls/new"
    accept
    announce
    start_step
}

start_step() {
    eval "name_raw=\$s_name_$step run=\$s_run_$step timeout=\$s_timeout_$step"
    step_run=$((step_run + 1)) began=$now deadline=$((now + timeout)) why='' kill_at='' ended_code='' drain_by='' log_ended=''
    say "job $job: step $name_raw"
    rm -f "$dir/ended" "$dir/output" "$dir/step.pid"
    mkfifo "$dir/output"
    chunker <"$dir/output" 4>&- &
    (
        exec 4>&- 3>"$dir/output" >/dev/null 2>&1 </dev/null # the shell's own "Terminated" is nobody's output
        trap '' TERM
        (
            exec >&3 2>&1 3>&-
            # shellcheck disable=SC1091  # made from the offer
            . "$dir/env"
            BOARDHAND_JOB=$job BOARDHAND_BOARD=$board BOARDHAND_BIN=$dir/bin BOARDHAND_CALLS=$dir/calls
            PATH=$dir/bin:${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}
            export BOARDHAND_JOB BOARDHAND_BOARD BOARDHAND_BIN BOARDHAND_CALLS PATH
            trap - TERM
            cd "$dir/work" && exec 5>&- && exec setsid "$shell" -c "$run"
        ) &
        exec 3>&-
        echo $! >"$dir/step.pid.new" && mv "$dir/step.pid.new" "$dir/step.pid"
        wait $!
        code=$?
        kill -KILL "-$(cat "$dir/step.pid")" 2>/dev/null # what it left behind would disturb the next job
        : >"$dir/ended"
        echo "ended $step_run $code" >&5
    ) &
    until [ -s "$dir/step.pid" ]; do :; done
    read -r step_pid <"$dir/step.pid"
}

chunker() { # output from stdin, cut into pieces, to events
    lost=0 number=$logs_made
    while :; do
        piece=$dir/log.$number
        dd bs=8192 count=1 of="$piece.new" 2>/dev/null
        size=$(wc -c <"$piece.new")
        [ "$size" -gt 0 ] || break
        read -r gone <"$dir/logs-gone"
        if [ $((number - gone)) -ge $MAX_LOG_BACKLOG ]; then
            lost=$((lost + size))
        else
            lost_note | cat - "$piece.new" >"$piece"
            lost=0 number=$((number + 1))
            echo "log $step_run ${piece##*.}" >&5
        fi
        # What comes within half a second goes into one piece; a full one means that there is more already.
        [ "$size" -ge 8192 ] || for _ in 1 2 3 4 5; do
            [ ! -e "$dir/ended" ] || break
            sleep 0.1 2>/dev/null || sleep 1
        done
    done
    rm -f "$dir"/log.*.new
    if [ $lost -gt 0 ]; then
        lost_note >"$dir/log.$number"
        echo "log $step_run $number" >&5
    fi
    echo "logend $step_run" >&5
}
lost_note() { [ $lost -eq 0 ] || printf '\n[boardhand: %d bytes of output lost, the server was away]\n' $lost; }

kill_step() { # signal
    [ -z "$step_pid" ] || kill "-$1" "-$step_pid" 2>/dev/null
    kill_at=$((now + KILL_GRACE))
}

log_head() { printf '{"kind":"log","job":"%s","token":%s,"seq":%d,"step":"%s","text":"' "$job" "$token" $log_seq "$name_raw"; }
enqueue_log() {
    enqueue "$prefix/board/$board/work/result" 0 log
    log_seq=$((log_seq + 1))
}

on_log() { # number
    logs_made=$(($1 + 1))
    mv "$dir/carry" "$dir/carried"
    : >"$dir/carry"
    {
        log_head
        { cat "$dir/carried" && decimal <"$dir/log.$1"; } | LC_ALL=C awk -v rest="$dir/carry" "$AWK_ESCAPE"
        printf '"}'
    } >"$dir/q.$last"
    enqueue_log
    rm -f "$dir/log.$1"
}

step_over() {
    calls='' calls_due='' # who asked is gone
    took=$((now - began)) code=$ended_code step_pid='' kill_at='' deadline='' drain_by='' ended_code='' log_ended=''
    if [ -s "$dir/carry" ]; then
        { log_head && printf '\\ufffd"}'; } >"$dir/q.$last"
        enqueue_log
        : >"$dir/carry"
    fi
    [ -z "$stopped" ] || why=$stopped
    result=$(printf '{"name":"%s","took_s":%d.%02d' "$name_raw" $((took / 100)) $((took % 100)))
    [ -n "$why" ] || result="$result,\"exit_code\":$code"
    [ -z "$why" ] || result="$result,\"problem\":\"$why\""
    results="$results${results:+,}$result}"
    eval "codes=\$s_codes_$step go_on=\$s_go_on_$step"
    case "${why:+no}$codes" in
    no*) passed='' ;;
    *" $code "*) passed=1 go_on=1 ;;
    *) passed='' ;;
    esac
    if [ -z "$passed" ] && [ -z "$failed" ]; then failed=1 failed_raw=$name_raw failed_why=$why; fi
    step=$((step + 1))
    if [ $work = dropping ]; then
        drop
    elif [ $work = running ] && [ -n "$go_on" ] && [ $step -lt "$steps" ]; then
        start_step
    elif [ $work = running ] && [ "$a_patterns" -gt 0 ]; then
        collect
    else
        finish_job
    fi
}

finish_job() {
    last_raw=$name_raw
    while [ $step -lt "$steps" ]; do
        eval "name_raw=\$s_name_$step"
        results="$results,{\"name\":\"$name_raw\",\"problem\":\"not run: step $last_raw did not pass\"}"
        step=$((step + 1))
    done
    outcome=passed
    [ -z "$failed" ] || outcome=failed
    [ -z "$stopped" ] || outcome=error
    {
        printf '{"kind":"outcome","job":"%s","token":%s,"outcome":"%s","log_chunks":%d,"steps":[%s]' "$job" "$token" $outcome $log_seq "$results"
        if [ -n "$failed_why" ]; then
            printf ',"problem":"step %s: %s"' "$failed_raw" "$failed_why"
        elif [ -n "$stopped" ]; then
            printf ',"problem":"%s"' "$stopped"
        fi
        printf '}'
    } >"$dir/done.$job.$token"
    say "job $job $outcome"
    work=done
    remember
    [ $link != online ] || report
}

# The files that the job leaves: their names first, then piece by piece, one under way at a time.
collect() {
    work=collecting a_n=0 a_offset=0 a_size=''
    (
        cd "$dir/work" || exit
        IFS='' number=0
        while [ $number -lt "$a_patterns" ]; do
            eval "pattern=\$a_pattern_$number" found=''
            for name in $pattern; do # the shell finds what fits; without IFS no name falls to pieces
                [ -f "$name" ] || continue
                found=1
                printf '+%s\n' "$name"
            done
            [ -n "$found" ] || printf '%s\n' "-$pattern"
            number=$((number + 1))
        done
    ) | awk '!seen[$0]++' | head -n $MAX_ARTIFACTS >"$dir/artifacts"
}

collect_piece() {
    line=$(sed -n "$((a_n + 1))p" "$dir/artifacts")
    if [ -z "$line" ]; then
        finish_job
        return
    fi
    name=${line#?} a_problem='' sum=''
    case $name in /*) file=$name ;; *) file=$dir/work/$name ;; esac
    : >"$dir/piece"
    if [ "$line" != "+$name" ]; then
        a_problem='nothing has that name'
    elif ! command -v base64 >/dev/null; then
        a_problem='this board has no base64 to send it with'
    elif ! [ -f "$file" ] || ! [ -r "$file" ]; then
        a_problem='it cannot be read'
    else
        read_piece
    fi
    {
        printf '{"kind":"artifact","job":"%s","token":%s,"n":%d,"offset":%d,"name":%s,"data":"' \
            "$job" "$token" "$a_n" "$a_offset" "$(quote "$name")"
        [ ! -s "$dir/piece" ] || base64 "$dir/piece" | tr -d '\n'
        printf '"'
        [ -z "$a_problem" ] || printf ',"problem":"%s"' "$a_problem"
        [ -z "$sum" ] || printf ',"sha256":"%s"' "$sum"
        printf '}'
    } >"$dir/q.$last"
    enqueue "$prefix/board/$board/work/result" 0 file
    a_offset=$((a_offset + PIECE_BYTES))
    [ -z "$a_problem$sum" ] || a_n=$((a_n + 1)) a_offset=0 a_size=''
}

read_piece() { # of $file; with its last one $sum is its checksum
    if [ -z "$a_size" ]; then # what is appended later does not count: it would never end
        a_size=$(wc -c <"$file")
        if [ "$a_size" -gt "$a_room" ]; then
            a_problem="its $a_size bytes are more than the $a_room that may still be sent"
            return
        fi
        a_room=$((a_room - a_size))
    fi
    dd if="$file" bs=$PIECE_BYTES skip=$((a_offset / PIECE_BYTES)) count=1 2>/dev/null |
        head -c $((a_size - a_offset)) >"$dir/piece"
    size=$(wc -c <"$dir/piece")
    if [ $((a_offset + size)) -ge "$a_size" ] || [ "$size" -lt $PIECE_BYTES ]; then
        sum=$(head -c "$a_size" "$file" | sha256sum | cut -c 1-64)
    fi
}

remember() { # the outcome in done.JOB.TOKEN; the oldest of more than 16 goes
    finished="$finished$job:$token "
    # shellcheck disable=SC2086  # words
    set -- $finished
    if [ $# -gt 16 ]; then
        rm -f "$dir/done.${1%:*}.${1#*:}"
        finished=" ${finished#* * }"
    fi
}

drop() { # the broker has given this job to somebody else; should it be offered again, it is not run again
    printf '{"kind":"outcome","job":"%s","token":%s,"outcome":"error","problem":"dropped: the token was old"}' \
        "$job" "$token" >"$dir/done.$job.$token"
    remember
    forget
}

enqueue_outcome() {
    cat "$dir/done.$1" >"$dir/q.$last"
    enqueue_result
}

report() {
    enqueue_outcome "$job.$token"
    due=$((now + OUTCOME_AGAIN))
}

forget() {
    work=idle job='' token=''
    if [ $link = online ]; then
        queue_drop_logs
        announce
        repeat
    else
        queue_clear
    fi
}

queue_drop_logs() { # of a job that nobody wants any more; the one under way may end
    number=$first
    [ -z "$in_flight" ] || number=$((first + 1))
    while [ $number -lt $last ]; do
        eval "kind=\$q_kind_$number"
        if [ "$kind" = log ] || [ "$kind" = file ]; then
            : >"$dir/q.$number"
            eval "q_kind_$number=dropped"
        fi
        number=$((number + 1))
    done
}

# --- the main loop -------------------------------------------------------------------------------------------------

on_packet() { # type flags number
    file=$dir/in.$generation.$3
    ping_at=''
    case $1 in
    2)
        # shellcheck disable=SC2046  # numbers
        set -- $(decimal <"$file")
        if [ "$connection" != opening ] || [ "$2" != 0 ]; then
            mqtt_drop "the server refused the connection with return code $2"
        else
            mqtt_subscribe
        fi
        ;;
    9)
        case " $(decimal <"$file" | tr '\n' ' ')" in
        *' 128 '*) mqtt_drop "the server refused a subscription" ;;
        *) [ "$connection" != subscribing ] || connected ;;
        esac
        ;;
    4)
        # shellcheck disable=SC2046  # numbers
        set -- $(decimal <"$file")
        if [ -n "$in_flight" ] && [ $(($1 * 256 + $2)) -eq "$in_flight" ]; then
            in_flight=''
            queue_forget
        fi
        ;;
    3) on_publish "$2" "$file" ;;
    13) ;;
    *) mqtt_drop "the server sent packet type $1" ;;
    esac
    rm -f "$file"
}

on_publish() { # flags file
    # shellcheck disable=SC2046  # numbers
    set -- "$1" "$2" $(dd if="$2" bs=1 count=2 2>/dev/null | decimal)
    size=$(($3 * 256 + $4))
    topic=$(dd if="$2" bs=1 skip=2 count=$size 2>/dev/null)
    start=$((2 + size))
    if [ $(($1 >> 1 & 3)) -eq 1 ]; then
        # shellcheck disable=SC2046  # numbers
        octets 64 2 $(dd if="$2" bs=1 skip=$start count=2 2>/dev/null | decimal) >&4
        last_sent=$now start=$((start + 2))
    fi
    tail -c +$((start + 1)) "$2" >"$dir/message"
    unset m_kind m_job m_token m_ok m_boot_id m_board m_reason m_reason_raw m_error m_steps m_patterns m_room m_call m_text
    if [ $(($1 & 1)) -eq 1 ]; then
        say "a message on $topic was not taken: it is retained"
    elif fields=$(parse fields <"$dir/message" 2>/dev/null); then
        eval "$fields"
        case $topic in
        "$prefix"/register/*) on_answer ;;
        "$prefix/board/$board/work" | "$prefix/board/$board/work/answer") on_work ;;
        esac
    else
        say "a message on $topic was not taken: it is no JSON object"
    fi
}

on_event() { # its words
    case $1 in
    packet) [ "$2" -ne $generation ] || on_packet "$3" "$4" "$5" ;;
    closed) [ "$2" -ne $generation ] || mqtt_drop "MQTT server $host:$port closed it, or cannot be reached" ;;
    log)
        case $2:$work in
        "$step_run:running" | "$step_run:stopping") on_log "$3" ;;
        *)
            rm -f "$dir/log.$3"
            logs_made=$(($3 + 1)) logs_gone=$((logs_gone + 1))
            echo $logs_gone >"$dir/logs-gone"
            ;;
        esac
        ;;
    call) on_call "$2" ;;
    logend) [ "$2" -ne $step_run ] || log_ended=1 ;;
    ended) [ "$2" -ne $step_run ] || ended_code=$3 drain_by=$((now + DRAIN)) ;;
    esac
    # A child that left the group may hold the output open, so that its end is not waited for for ever.
    if [ -n "$ended_code" ] && [ -n "$log_ended" ]; then step_over; fi
}

after() { # time: makes $wait no longer than until then
    [ -n "$1" ] || return
    left=$((($1 - now + 99) / 100))
    [ $left -ge $wait ] || wait=$left
    [ $wait -ge 1 ] || wait=1
}

timers() {
    wait=15
    if [ -z "$connection" ]; then
        [ $link != leaving ] || finish_leaving
        if [ "$now" -ge "$next_attempt" ]; then mqtt_connect; else after "$next_attempt"; fi
    elif [ "$connection" != up ] || [ -n "$in_flight" ]; then
        if [ $((now - sent_at)) -ge $ANSWER_WITHIN ]; then mqtt_drop "the server did not answer in time"; fi
        after $((sent_at + ANSWER_WITHIN))
    elif [ -n "$ping_at" ]; then
        if [ $((now - ping_at)) -ge $ANSWER_WITHIN ]; then mqtt_drop "the server did not answer a ping"; fi
        after $((now + ANSWER_WITHIN))
    elif [ $((now - last_sent)) -ge $PING_AFTER ]; then
        octets 192 0 >&4
        last_sent=$now ping_at=$now
        after $((now + ANSWER_WITHIN))
    else
        after $((last_sent + PING_AFTER))
    fi
    if [ -n "$due" ] && [ "$connection" = up ]; then
        [ "$now" -lt "$due" ] || on_due
        after "$due"
    fi
    if [ -n "$calls_due" ] && [ $link = online ]; then
        [ "$now" -lt "$calls_due" ] || say_calls
        after "$calls_due"
    fi
    step_timers
    if [ $link = leaving ] && { [ $first -ge $last ] || [ "$now" -ge "$leave_by" ]; }; then finish_leaving; fi
}

step_timers() {
    [ -n "$step_pid" ] || return
    if [ -n "$drain_by" ] && [ "$now" -ge "$drain_by" ]; then
        step_over
        return
    fi
    if [ -z "$ended_code" ] && [ -z "$kill_at" ] && [ "$now" -ge "$deadline" ]; then
        eval "why=\"timed out after \$s_limit_$step s\""
        kill_step TERM
    elif [ -n "$kill_at" ] && [ "$now" -ge "$kill_at" ]; then
        kill_step KILL
    fi
    if [ -n "$kill_at" ]; then after "$kill_at"; else after "$deadline"; fi
    after "$drain_by"
}

echo 0 >"$dir/logs-gone"
asked_to_end=''
trap 'asked_to_end=1' TERM INT
trap '' HUP
while :; do
    get_now
    [ -z "$asked_to_end" ] || leave exit
    timers
    if [ $work = collecting ] && [ $link = online ] && [ "$connection" = up ] && [ $first -ge $last ]; then collect_piece; fi
    pump
    if read -r -t "$wait" event a b c d <&5; then
        get_now
        # shellcheck disable=SC2086  # empty words are to vanish
        on_event "$event" $a $b $c $d
    fi
done
