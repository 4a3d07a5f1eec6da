/* The optional pump of the TFTP worker: the packets of transfers that run in stride, and nothing else.
 *
 * A lane is what netboot/tftp_pump.py wrote into the table for one socket: full windows that follow each other in
 * memory, ready to leave as they are, and the ACK that is awaited now. While each packet that comes is exactly that
 * ACK, the next window is sent from here. Everything else closes the lane and is handed up with what was received:
 * another packet, an error, the end of the lane, a socket that has none. No timers, no parsing, no memory of its own,
 * and no decisions: those are netboot/tftp_transfer.py's.
 *
 * A socket with an open lane is watched edge-triggered: that saves epoll to look at each socket once more after each
 * packet, 6 % of all. A second packet behind the one that was read waits for the next one then, and comes up with it;
 * closing the lane makes the watch level-triggered again, which tells of all that still waits.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64     /* events of one turn; reports must hold as many */
#define DATA_BYTES 8 /* tftp_session._ACK_BYTES */
#define VERSION 1    /* of these structures; the loader asks */

struct lane { /* at index fd of the table */
    uint64_t next;    /* address of the window to send when `awaited` comes */
    double sent_at;   /* monotonic s, of the window that is on its way */
    uint32_t bytes;   /* of one window */
    uint32_t left;    /* windows from `next` on */
    uint16_t awaited; /* number of the ACK */
    uint16_t step;    /* blocks of one window */
    uint32_t open;    /* 0: none, the rest means nothing */
};

struct report { /* something for Python to decide upon */
    int32_t fd;
    int32_t kind;     /* NOT_READ, READ, NOT_SENT */
    int32_t number;   /* octets of data, or errno */
    uint16_t awaited; /* as the lane left it */
    uint16_t reserved;
    double sent_at;
    uint8_t data[DATA_BYTES];
};

enum { NOT_READ = 0, READ = 1, READ_FAILED = 2, NOT_SENT = 3 };

uint32_t pump_version(void) {
    return VERSION << 24 | BATCH << 16 | (uint32_t)sizeof(struct lane) << 8 | (uint32_t)sizeof(struct report);
}

static double monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* One packet of one socket, which `epoll` watches. Returns 1 when `report` was filled in. */
static int attend(struct lane *lane, int epoll, int fd, double at, struct report *report) {
    uint8_t data[DATA_BYTES];
    ssize_t got = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return 0; /* the kernel dropped it: a bad checksum */
    int kind = READ, number = (int)got;
    if (got < 0) {
        kind = READ_FAILED;
        number = errno;
    } else if (lane->left && got == 4 && data[0] == 0 && data[1] == 4 && data[2] == lane->awaited >> 8 &&
               data[3] == (lane->awaited & 0xFF)) {
        const void *window = (const void *)(uintptr_t)lane->next;
        lane->left--;
        lane->next += lane->bytes;
        lane->awaited = (uint16_t)(lane->awaited + lane->step);
        lane->sent_at = at;
        if (send(fd, window, lane->bytes, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        kind = NOT_SENT;
        number = errno;
        got = 0;
    }
    struct epoll_event level = {.events = EPOLLIN, .data.fd = fd};
    lane->open = 0;
    epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &level); /* it is registered, or there were no event */
    *report = (struct report){.fd = fd, .kind = kind, .number = number, .awaited = lane->awaited,
                              .sent_at = lane->sent_at};
    if (got > 0)
        memcpy(report->data, data, (size_t)got);
    return 1;
}

/* Serve the lanes of `table`, which has `lanes` of them, until something else happens or the time `until` (monotonic s,
 * negative: for ever) has come. `now` < 0: by the clock; else one turn at that time, for tests. Returns the number of
 * reports, at most BATCH, or -errno.
 */
int pump_run(int epoll, struct lane *table, uint32_t lanes, double until, double now, struct report *reports) {
    struct epoll_event events[BATCH];
    double at = now < 0 ? monotonic() : now;
    for (;;) {
        int wait_ms = -1;
        if (now >= 0)
            wait_ms = 0;
        else if (until >= 0) {
            double left_ms = (until - at) * 1e3;
            wait_ms = left_ms <= 0 ? 0 : left_ms > 60000 ? 60000 : (int)left_ms + 1;
        }
        int count = epoll_wait(epoll, events, BATCH, wait_ms), filled = 0;
        if (count < 0)
            return errno == EINTR ? 0 : -errno;
        if (now < 0)
            at = monotonic();
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd >= 0 && (uint32_t)fd < lanes && table[fd].open)
                filled += attend(&table[fd], epoll, fd, at, &reports[filled]);
            else
                reports[filled++] = (struct report){.fd = fd, .kind = NOT_READ};
        }
        if (filled || now >= 0 || (until >= 0 && at >= until))
            return filled;
    }
}
