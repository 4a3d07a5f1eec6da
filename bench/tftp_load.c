/* A load of TFTP clients in one process: RFC 1350, 2347, 2348, 7440. Every octet is compared with the file.
 *
 *   tftp_load HOST PORT NAME FILE CLIENTS BLKSIZE WINDOW DROP_PER_10000 ACK_DELAY_US TIMER_MS LIMIT_S SEED FROM
 *
 * Client n sends from the address FROM + n. BLKSIZE 512 and WINDOW 1 ask for no option. DROP applies to each packet in both
 * directions but the request: that one no server can make come sooner. ACKs leave ACK_DELAY_US
 * late, which is the round trip time that a server sees. A client that hears nothing for TIMER_MS repeats its last
 * packet. Out of order packets of a window are each answered, as many boot loaders do. Prints one JSON object; ends
 * with 1 when an octet was wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, DATA = 3, ACK = 4, ERROR = 5, OACK = 6, BATCH = 64, PACKET = 2048 };

struct client {
    int fd, connected, done, started, window, in_window;
    uint64_t expected; /* block that comes next, from 1 */
    uint64_t last_ack;
    double heard_at, done_at;
    size_t block;
};
struct late { double at; int client; uint16_t number; };

static const unsigned char *file;
static size_t size, block_asked;
static int window_asked, clients, left;
static uint32_t drop;
static double delay, timer;
static struct client *all;
static struct late *queue;
static size_t queue_head, queue_tail, queue_room;
static struct sockaddr_storage server, local;
static socklen_t server_length, local_length;
static char name[256];
static uint64_t random_state, datagrams, repeated, timeouts, errors;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static int lost(void) {
    if (!drop)
        return 0;
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 20) % 10000 < drop;
}

static void put(struct client *c, uint16_t number) {
    unsigned char ack[4] = {0, ACK, (unsigned char)(number >> 8), (unsigned char)number};
    if (!lost() && send(c->fd, ack, 4, 0) < 0 && errno != ECONNREFUSED && errno != EAGAIN)
        fail("send");
}

static void acknowledge(struct client *c, uint64_t block, double at) {
    c->last_ack = block;
    c->in_window = 0;
    if (delay <= 0) {
        put(c, (uint16_t)block);
        return;
    }
    if (queue_tail - queue_head == queue_room) {
        fprintf(stderr, "too many late ACKs\n");
        exit(2);
    }
    queue[queue_tail++ % queue_room] = (struct late){at + delay, (int)(c - all), (uint16_t)block};
}

static void request(struct client *c) {
    char packet[512];
    int n = 2;
    packet[0] = 0;
    packet[1] = RRQ;
    n += sprintf(packet + n, "%s", name) + 1;
    n += sprintf(packet + n, "octet") + 1;
    if (block_asked != 512 || window_asked != 1) {
        n += sprintf(packet + n, "blksize") + 1;
        n += sprintf(packet + n, "%zu", block_asked) + 1;
    }
    if (window_asked != 1) {
        n += sprintf(packet + n, "windowsize") + 1;
        n += sprintf(packet + n, "%d", window_asked) + 1;
    }
    if (sendto(c->fd, packet, (size_t)n, 0, (struct sockaddr *)&server, server_length) < 0)
        fail("sendto");
}

static void options(struct client *c, const char *text, const char *end) {
    while (text < end) {
        const char *value = text + strnlen(text, (size_t)(end - text)) + 1;
        if (value >= end)
            return;
        if (!strcasecmp(text, "blksize"))
            c->block = (size_t)atol(value);
        else if (!strcasecmp(text, "windowsize"))
            c->window = atoi(value);
        text = value + strnlen(value, (size_t)(end - value)) + 1;
    }
}

static void take(struct client *c, const unsigned char *packet, size_t length, double at) {
    datagrams++;
    if (lost() || length < 4)
        return;
    unsigned opcode = (unsigned)packet[0] << 8 | packet[1], number = (unsigned)packet[2] << 8 | packet[3];
    if (opcode == ERROR) {
        if (!errors++)
            fprintf(stderr, "the server says %u: %.*s\n", number, (int)(length - 4), (const char *)packet + 4);
        if (!c->done) {
            c->done = -1;
            left--;
        }
        return;
    }
    c->heard_at = at;
    if (opcode == OACK) {
        if (c->expected == 1 && !c->in_window) {
            options(c, (const char *)packet + 2, (const char *)packet + length);
            c->started = 1;
            acknowledge(c, 0, at);
        }
        return;
    }
    if (opcode != DATA)
        return;
    if (!c->started) { /* options were not known to it */
        c->block = 512;
        c->window = 1;
        c->started = 1;
    }
    if (c->done || number != (unsigned)(c->expected & 0xFFFF)) {
        repeated++;
        if (c->done || c->window > 1 || number == (unsigned)((c->expected - 1) & 0xFFFF))
            acknowledge(c, c->expected - 1, at);
        return;
    }
    size_t offset = (size_t)(c->expected - 1) * c->block, wanted = size - offset < c->block ? size - offset : c->block;
    if (length - 4 != wanted || memcmp(packet + 4, file + offset, wanted)) {
        fprintf(stderr, "block %llu: %zu octets, or other ones, instead of %zu\n", (unsigned long long)c->expected,
                length - 4, wanted);
        exit(1);
    }
    c->expected++;
    c->in_window++;
    int end = wanted < c->block;
    if (end || c->in_window >= c->window)
        acknowledge(c, c->expected - 1, at);
    if (end) {
        c->done = 1;
        c->done_at = at;
        left--;
    }
}

static void receive(struct client *c, double at) {
    static unsigned char space[BATCH][PACKET];
    static struct iovec vectors[BATCH];
    static struct mmsghdr messages[BATCH];
    struct sockaddr_storage peer;
    if (!c->connected) { /* the first answer tells the server's TID */
        socklen_t length = sizeof peer;
        ssize_t n = recvfrom(c->fd, space[0], PACKET, 0, (struct sockaddr *)&peer, &length);
        if (n < 0)
            return;
        if (connect(c->fd, (struct sockaddr *)&peer, length))
            fail("connect");
        c->connected = 1;
        take(c, space[0], (size_t)n, at);
        return;
    }
    if (c->window == 1) {
        ssize_t n = recv(c->fd, space[0], PACKET, 0);
        if (n >= 0)
            take(c, space[0], (size_t)n, at);
        return;
    }
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){space[i], PACKET};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    int n = recvmmsg(c->fd, messages, BATCH, 0, NULL);
    for (int i = 0; i < n; i++)
        take(c, space[i], messages[i].msg_len, at);
}

static void timers(double at) {
    for (int i = 0; i < clients; i++) {
        struct client *c = &all[i];
        if (c->done || at - c->heard_at < timer)
            continue;
        timeouts++;
        c->heard_at = at;
        if (!c->started)
            request(c);
        else
            put(c, (uint16_t)c->last_ack);
    }
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int report(double begun, double ended, int finished, double *times) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(times, (size_t)finished, sizeof *times, by_time);
    double p50 = finished ? times[(finished - 1) / 2] : 0, p99 = finished ? times[(finished * 99 + 99) / 100 - 1] : 0;
    printf("{\"seconds\": %.6f, \"finished\": %d, \"bytes\": %.0f, \"p50_s\": %.6f, \"p99_s\": %.6f, \"datagrams\": %llu, "
           "\"repeated\": %llu, \"timeouts\": %llu, \"errors\": %llu, \"client_cpu_s\": %.3f}\n",
           ended - begun, finished, (double)size * finished, p50, p99, (unsigned long long)datagrams,
           (unsigned long long)repeated, (unsigned long long)timeouts, (unsigned long long)errors,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
    return 0;
}

static socklen_t address(const char *host, const char *port, struct sockaddr_storage *where) {
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICHOST}, *found;
    if (getaddrinfo(host, port, &hints, &found)) {
        fprintf(stderr, "%s port %s is no address\n", host, port);
        exit(2);
    }
    memcpy(where, found->ai_addr, found->ai_addrlen);
    socklen_t length = found->ai_addrlen;
    freeaddrinfo(found);
    return length;
}

static void arguments(char **argv) {
    server_length = address(argv[1], argv[2], &server);
    local_length = address(argv[13], "0", &local);
    snprintf(name, sizeof name, "%s", argv[3]);
    struct stat info;
    int fd = open(argv[4], O_RDONLY);
    if (fd < 0 || fstat(fd, &info))
        fail(argv[4]);
    size = (size_t)info.st_size;
    file = mmap(NULL, size ? size : 1, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (file == MAP_FAILED)
        fail("mmap");
    left = clients = atoi(argv[5]);
    block_asked = (size_t)atol(argv[6]);
    window_asked = atoi(argv[7]);
    drop = (uint32_t)atoi(argv[8]);
    delay = atof(argv[9]) * 1e-6;
    timer = atof(argv[10]) * 1e-3;
    random_state = 88172645463325252ULL + (uint64_t)atoll(argv[12]) * 2654435761u;
}

int main(int argc, char **argv) {
    if (argc != 14) {
        fprintf(stderr, "tftp_load: see the head of tftp_load.c\n");
        return 2;
    }
    arguments(argv);
    prctl(PR_SET_TIMERSLACK, 1000);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    queue_room = (size_t)clients * 256 + 1024;
    all = calloc((size_t)clients, sizeof *all);
    queue = calloc(queue_room, sizeof *queue);
    double *times = calloc((size_t)clients, sizeof *times);
    int epoll = epoll_create1(0), buffer = 1 << 20;
    if (!all || !queue || !times || epoll < 0)
        fail("start");
    double begun = now(), end = begun + atof(argv[11]), next_timers = begun + 0.02;
    for (int i = 0; i < clients; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        int fd = socket(server.ss_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer);
        struct sockaddr_storage from = local;
        if (from.ss_family == AF_INET) {
            struct sockaddr_in *v4 = (struct sockaddr_in *)&from;
            v4->sin_addr.s_addr = htonl(ntohl(v4->sin_addr.s_addr) + (uint32_t)i);
        } else {
            struct in6_addr *v6 = &((struct sockaddr_in6 *)&from)->sin6_addr;
            v6->s6_addr[14] = (uint8_t)(v6->s6_addr[14] + (i >> 8));
            v6->s6_addr[15] = (uint8_t)(v6->s6_addr[15] + i);
        }
        if (bind(fd, (struct sockaddr *)&from, local_length))
            fail("bind");
        if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
            fail("socket");
        all[i] = (struct client){.fd = fd, .expected = 1, .window = 1, .block = 512, .heard_at = begun};
        request(&all[i]);
    }
    double at = begun;
    while (left && at < end) {
        struct epoll_event events[BATCH];
        double until = next_timers;
        if (queue_head != queue_tail && queue[queue_head % queue_room].at < until)
            until = queue[queue_head % queue_room].at;
        double wait = until - at > 0 ? until - at : 0;
        struct timespec timeout = {(time_t)wait, (long)((wait - (double)(time_t)wait) * 1e9)};
        int n = epoll_pwait2(epoll, events, BATCH, &timeout, NULL);
        at = now();
        for (int i = 0; i < n; i++)
            receive(&all[events[i].data.u32], at);
        for (; queue_head != queue_tail && queue[queue_head % queue_room].at <= at; queue_head++)
            put(&all[queue[queue_head % queue_room].client], queue[queue_head % queue_room].number);
        if (at >= next_timers) {
            timers(at);
            next_timers = at + 0.02;
        }
    }
    for (; queue_head != queue_tail; queue_head++) /* the last ACKs */
        put(&all[queue[queue_head % queue_room].client], queue[queue_head % queue_room].number);
    int finished = 0;
    for (int i = 0; i < clients; i++)
        if (all[i].done > 0)
            times[finished++] = all[i].done_at - begun;
    return report(begun, at, finished, times);
}
