/* A load client that costs little: one thread, epoll, and no parsing beyond what counting needs.
 *
 * load PORT REQUEST_FILE CONNECTIONS REQUESTS STARTS_PER_SECOND [FROM TO]
 *
 * Opens CONNECTIONS to 127.0.0.1:PORT, at STARTS_PER_SECOND (0: at once), and sends the bytes of REQUEST_FILE REQUESTS
 * times: at once on each connection, and again when it is free. Prints a JSON object:
 *
 *   events         lines that begin with "data: {"; a response that is no stream counts as one
 *   requests, errors, seconds
 *   cpu_seconds    what this client itself has used
 *   tokens         spaces in the texts of all events: the words of the synthetic sources have one each
 *   usage_tokens   the sum of "completion_tokens" in events without text
 *   gap_ms         p50, p90 and p99 of the times between two events with text of a stream, in milliseconds
 *   began_s        for each request, in the order of their ends: when it began,
 *   first_ms       the time from there to its first text (-1: none),
 *   last_ms        to its last text, and
 *   total_ms       to its end;
 *   texts          its events with text
 *   window_tokens  for each connection: the tokens that came between FROM and TO seconds after the start
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

#define CARRY 8192
#define READ (256 * 1024)
#define GAP_BUCKETS 40000
#define GAP_BUCKET_MS 0.05

typedef struct {
    int fd, busy, headed, chunked, failed;
    long left, texts, window_tokens;
    double began, first, last;
    char *carry;
    int carried;
} Connection;

typedef struct {
    double began, first, last, total;
    long texts;
} Ended;

static char *request;
static long request_size, events, tokens, usage_tokens, done, failures, to_send;
static long gaps[GAP_BUCKETS], all_gaps;
static double start_time, window_from, window_to;
static Ended *ended;
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

static void hang_up(Connection *c) {
    close(c->fd);
    c->fd = -1;
}

static void begin(Connection *c, int port, int poll) {
    if (to_send <= 0) return;
    to_send--;
    if (c->fd < 0) open_connection(c, port, poll);
    c->busy = 1;
    c->headed = c->chunked = c->carried = c->failed = 0;
    c->left = -1;
    c->texts = 0;
    c->first = c->last = 0;
    c->began = now();
    for (long sent = 0; sent < request_size;) {
        ssize_t size = write(c->fd, request + sent, request_size - sent);
        if (size > 0) sent += size;
        else if (errno != EAGAIN) fail("write");
    }
}

static void finish(Connection *c, int port, int poll) {
    double end = now();
    failures += c->failed;
    Ended *e = &ended[done++];
    e->began = c->began - start_time;
    e->first = c->first ? (c->first - c->began) * 1000 : -1;
    e->last = c->last ? (c->last - c->began) * 1000 : -1;
    e->total = (end - c->began) * 1000;
    e->texts = c->texts;
    c->busy = 0;
    if (c->failed) hang_up(c);
    begin(c, port, poll);
}

/* Return the beginning of the first string after `key` in an event, or NULL. Some servers write a space before it. */
static char *text_after(char *at, char *stop, const char *key) {
    size_t length = strlen(key);
    while ((at = memmem(at, stop - at, key, length))) {
        at += length;
        if (*at == ' ') at++;
        if (*at == '"') return at + 1;
    }
    return NULL;
}

/* Return the number of spaces in the text of an event; -1 if it has no text. */
static long spaces(char *at, char *stop) {
    char *text = text_after(at, stop, "content\":");
    if (!text) text = text_after(at, stop, "\"text\":");
    if (!text || *text == '"') return -1;
    long count = 0;
    for (; text < stop && *text != '"'; text++) {
        if (*text == '\\') text++;
        else count += *text == ' ';
    }
    return count;
}

static void note_text(Connection *c, double time, long words) {
    if (!c->first) {
        c->first = time;
    } else {
        long bucket = (time - c->last) * 1000 / GAP_BUCKET_MS;
        gaps[bucket < GAP_BUCKETS ? bucket : GAP_BUCKETS - 1]++;
        all_gaps++;
    }
    c->last = time;
    c->texts++;
    tokens += words;
    if (time - start_time >= window_from && time - start_time < window_to) c->window_tokens += words;
}

static void take(Connection *c, int port, int poll) {
    memcpy(buffer, c->carry, c->carried);
    ssize_t size = read(c->fd, buffer + c->carried, READ);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        c->failed = 1;
        if (c->busy) finish(c, port, poll);
        else hang_up(c);
        return;
    }
    if (!c->busy) return;
    double time = now();
    char *at = buffer, *end = buffer + c->carried + size;
    *end = 0;
    if (!c->headed) {
        char *body = memmem(at, end - at, "\r\n\r\n", 4);
        if (!body) {
            errno = EPROTO;
            fail("the headers came in parts");
        }
        *body = 0;
        c->headed = 1;
        c->failed = strncmp(at, "HTTP/1.1 200", 12) != 0;
        char *length = strcasestr(at, "content-length: ");
        if (length) c->left = atol(length + 16);
        else c->chunked = 1;
        at = body + 4;
    }
    if (!c->chunked) {
        c->carried = 0;
        if (!c->first) c->first = c->last = time;
        c->left -= end - at;
        if (c->left <= 0) {
            events++;
            finish(c, port, poll);
        }
        return;
    }
    /* Only complete events are counted; what follows the last one is kept for the next read. */
    for (char *stop; (stop = memmem(at, end - at, "\n\n", 2)); at = stop + 2) {
        char *event = memmem(at, stop - at, "data: {", 7);
        if (!event) continue;
        events++;
        long words = spaces(event, stop);
        if (words >= 0) {
            note_text(c, time, words);
        } else {
            char *usage = memmem(event, stop - event, "completion_tokens\":", 19);
            if (usage) usage_tokens += atol(usage + 19);
        }
    }
    if (end - at >= 5 && !memcmp(end - 5, "0\r\n\r\n", 5) && (end - at == 5 || end[-6] == '\n')) {
        finish(c, port, poll);
        return;
    }
    c->carried = end - at;
    if (c->carried > CARRY) {
        errno = EMSGSIZE;
        fail("an event");
    }
    memcpy(c->carry, at, c->carried);
}

static double gap(double share) {
    long seen = 0, bucket = 0;
    while (bucket < GAP_BUCKETS - 1 && (seen += gaps[bucket]) < share * all_gaps) bucket++;
    return (bucket + 0.5) * GAP_BUCKET_MS;
}

#define PRINT_ALL(name, format, field) do { \
        printf(", \"" name "\": ["); \
        for (long i = 0; i < done; i++) printf("%s" format, i ? ", " : "", ended[i].field); \
        printf("]"); \
    } while (0)

int main(int argc, char **argv) {
    if (argc != 6 && argc != 8) {
        fprintf(stderr, "usage: load PORT REQUEST_FILE CONNECTIONS REQUESTS STARTS_PER_SECOND [FROM TO]\n");
        return 2;
    }
    int port = atoi(argv[1]), connections = atoi(argv[3]);
    long requests = atol(argv[4]);
    double rate = atof(argv[5]);
    if (argc == 8) window_from = atof(argv[6]), window_to = atof(argv[7]);
    FILE *file = fopen(argv[2], "rb");
    if (!file) fail(argv[2]);
    request = malloc(1 << 24);
    request_size = fread(request, 1, 1 << 24, file);
    ended = calloc(requests, sizeof *ended);
    to_send = requests;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int poll = epoll_create1(0);
    Connection *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) {
        all[i].carry = malloc(CARRY);
        all[i].fd = -1;
    }
    start_time = now();
    int begun = 0;
    struct epoll_event ready[256];
    while (done < requests) {
        while (begun < connections && (rate == 0 || now() - start_time >= begun / rate))
            begin(&all[begun++], port, poll);
        int count = epoll_wait(poll, ready, 256, begun < connections ? 1 : 1000);
        for (int i = 0; i < count; i++) take(ready[i].data.ptr, port, poll);
    }
    double seconds = now() - start_time;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"events\": %ld, \"tokens\": %ld, \"usage_tokens\": %ld, ", events, tokens, usage_tokens);
    printf("\"requests\": %ld, \"errors\": %ld, ", done, failures);
    printf("\"seconds\": %.4f, \"cpu_seconds\": %.4f, ", seconds, cpu);
    printf("\"gap_ms\": [%.3f, %.3f, %.3f]", gap(0.5), gap(0.9), gap(0.99));
    PRINT_ALL("began_s", "%.3f", began);
    PRINT_ALL("first_ms", "%.3f", first);
    PRINT_ALL("last_ms", "%.3f", last);
    PRINT_ALL("total_ms", "%.3f", total);
    PRINT_ALL("texts", "%ld", texts);
    printf(", \"window_tokens\": [");
    for (int i = 0; i < connections; i++) printf("%s%ld", i ? ", " : "", all[i].window_tokens);
    printf("]}\n");
    return 0;
}
