/* A load client that costs little: one thread, epoll, and no parsing beyond what counting needs.
 *
 * load PORT REQUEST_FILE CONNECTIONS REQUESTS STARTS_PER_SECOND
 *
 * Opens CONNECTIONS to 127.0.0.1:PORT, and sends the bytes of REQUEST_FILE REQUESTS times, each time when a connection
 * is free; the first request of each connection begins at STARTS_PER_SECOND (0: at once). Prints a JSON object: events
 * (lines that begin with "data: {"), requests, errors, seconds, and for each request the milliseconds to its first
 * text and to its end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CARRY 32
#define READ (256 * 1024)

typedef struct {
    int fd, busy, headed, chunked, failed;
    long left;
    double began, first;
    char carry[CARRY];
    int carried;
} Connection;

static char *request;
static long request_size, events, done, failures, to_send;
static double *firsts, *totals;
static char buffer[CARRY + READ + 1];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void open_connection(Connection *c, int port, int poll) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) fail("connect");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, c->fd, &event)) fail("epoll_ctl");
}

static void begin(Connection *c) {
    if (to_send <= 0) return;
    to_send--;
    c->busy = 1;
    c->headed = c->chunked = c->carried = c->failed = 0;
    c->left = -1;
    c->first = 0;
    c->began = now();
    if (write(c->fd, request, request_size) != request_size) fail("write");
}

static void finish(Connection *c, int port, int poll) {
    double end = now();
    failures += c->failed;
    firsts[done] = c->first ? (c->first - c->began) * 1000 : -1;
    totals[done] = (end - c->began) * 1000;
    done++;
    c->busy = 0;
    if (c->failed) {
        close(c->fd);
        if (to_send > 0) open_connection(c, port, poll);
    }
    begin(c);
}

static void take(Connection *c, int port, int poll) {
    memcpy(buffer, c->carry, c->carried);
    ssize_t size = read(c->fd, buffer + c->carried, READ);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        c->failed = 1;
        if (c->busy) finish(c, port, poll);
        else epoll_ctl(poll, EPOLL_CTL_DEL, c->fd, NULL);
        return;
    }
    if (!c->busy) return;
    char *start = buffer, *end = buffer + c->carried + size;
    *end = 0;
    if (!c->headed) {
        char *body = memmem(start, end - start, "\r\n\r\n", 4);
        if (!body) fail("the headers came in parts");
        *body = 0;
        c->headed = 1;
        c->failed = strncmp(start, "HTTP/1.1 200", 12) != 0;
        char *length = strcasestr(start, "content-length: ");
        if (length) c->left = atol(length + 16);
        else c->chunked = 1;
        start = body + 4;
        c->carried = 0;
    }
    if (!c->chunked) {
        if (!c->first) c->first = now();
        c->left -= end - start;
        if (c->left <= 0) {
            events++;
            finish(c, port, poll);
        }
        return;
    }
    /* A marker that ends in the new bytes is counted now; the carry is shorter than any marker by design below. */
    char *fresh = start + c->carried;
    for (char *at = start; (at = memmem(at, end - at, "data: {", 7)); at += 7)
        if (at + 7 > fresh) {
            events++;
            char *stop = memmem(at, end - at, "\n\n", 2);
            size_t length = (stop ? stop : end) - at;
            int has_text = memmem(at, length, "content\":\"", 10) && !memmem(at, length, "\"role\"", 6);
            if (!c->first && has_text) c->first = now();
        }
    if (end - start >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5) && (end - start == 5 || end[-6] == '\n')) {
        finish(c, port, poll);
        return;
    }
    c->carried = end - start < CARRY - 1 ? end - start : CARRY - 1;
    memcpy(c->carry, end - c->carried, c->carried);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: load PORT REQUEST_FILE CONNECTIONS REQUESTS STARTS_PER_SECOND\n");
        return 2;
    }
    int port = atoi(argv[1]), connections = atoi(argv[3]);
    long requests = atol(argv[4]);
    double rate = atof(argv[5]);
    FILE *file = fopen(argv[2], "rb");
    if (!file) fail(argv[2]);
    request = malloc(1 << 24);
    request_size = fread(request, 1, 1 << 24, file);
    firsts = calloc(requests, sizeof *firsts);
    totals = calloc(requests, sizeof *totals);
    to_send = requests;
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    int poll = epoll_create1(0);
    Connection *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) open_connection(&all[i], port, poll);
    double start = now();
    int begun = 0;
    struct epoll_event ready[256];
    while (done < requests) {
        while (begun < connections && (rate == 0 || now() - start >= begun / rate)) begin(&all[begun++]);
        int count = epoll_wait(poll, ready, 256, begun < connections ? 1 : 1000);
        for (int i = 0; i < count; i++) take(ready[i].data.ptr, port, poll);
    }
    double seconds = now() - start;
    printf("{\"events\": %ld, \"requests\": %ld, \"errors\": %ld, ", events, done, failures);
    printf("\"seconds\": %.4f, \"first_ms\": [", seconds);
    for (long i = 0; i < done; i++) printf("%s%.3f", i ? ", " : "", firsts[i]);
    printf("], \"total_ms\": [");
    for (long i = 0; i < done; i++) printf("%s%.3f", i ? ", " : "", totals[i]);
    printf("]}\n");
    return 0;
}
