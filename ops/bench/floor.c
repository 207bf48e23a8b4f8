/* The floor: the least a relay can do with two sockets a session, epoll and read/write.
 *
 *     cc -O2 floor.c -o floor && ./floor LISTEN_PORT SERVER_PORT
 *
 * No timeouts, no limits, no counters, one server; not for use. What it needs for a unit of work,
 * the kernel needs: no relay of this shape can need less.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 1 << 18, EVENTS = 256, ACCEPTS = 64, FDS = 1 << 20 };

struct end {           /* one socket of a session, at the index of its fd */
    struct end *other;
    char *parked;      /* what this end has received and the other has not taken */
    size_t from, to;
    int fd, ended, connecting;
    unsigned mask;
};

static struct end ends[FDS];
static char hot[CHUNK];
static int ep, closing_count, closing[EVENTS * 2];

static void want(struct end *e) {
    unsigned mask = 0;
    if (!e->other->connecting && !e->ended && !e->parked) mask |= EPOLLIN;
    if (e->connecting || e->other->parked) mask |= EPOLLOUT;
    if (mask == e->mask) return;
    struct epoll_event event = {.events = e->mask = mask, .data.fd = e->fd};
    epoll_ctl(ep, EPOLL_CTL_MOD, e->fd, &event);
}

static void finish(struct end *e) { /* fds are closed at the end of the turn */
    struct end *o = e->other;
    if (e->fd < 0) return;
    closing[closing_count++] = e->fd;
    closing[closing_count++] = o->fd;
    free(e->parked);
    free(o->parked);
    e->parked = o->parked = NULL;
    e->fd = o->fd = -1;
}

static void park(struct end *e, size_t sent, size_t got) {
    e->parked = malloc(got - sent);
    memcpy(e->parked, hot + sent, got - sent);
    e->from = 0;
    e->to = got - sent;
}

static int pull(struct end *e) { /* receive and pass on; 0 when the session has ended */
    ssize_t got = recv(e->fd, hot, CHUNK, 0);
    if (got < 0) return errno == EAGAIN;
    if (!got) {
        e->ended = 1;
        shutdown(e->other->fd, SHUT_WR);
        return !e->other->ended;
    }
    ssize_t sent = send(e->other->fd, hot, got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) return 0;
    if (sent < got) park(e, sent < 0 ? 0 : sent, got);
    return 1;
}

static int push(struct end *e) { /* pass on what was parked for e; 0 when the session has ended */
    struct end *o = e->other;
    if (e->connecting) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        e->connecting = 0;
        return !error;
    }
    if (!o->parked) return 1;
    ssize_t sent = send(e->fd, o->parked + o->from, o->to - o->from, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    if ((o->from += sent) == o->to) {
        free(o->parked);
        o->parked = NULL;
    }
    return 1;
}

static void add(int fd, int other, int connecting) {
    struct end *e = &ends[fd];
    *e = (struct end){.other = &ends[other], .fd = fd, .connecting = connecting};
    e->mask = connecting ? EPOLLOUT : 0;
    struct epoll_event event = {.events = e->mask, .data.fd = fd};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event);
}

static void take_clients(int listener, struct sockaddr_in *server) {
    int one = 1;
    for (int n = 0; n < ACCEPTS; n++) {
        int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (client < 0) return;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        int done = connect(fd, (struct sockaddr *)server, sizeof *server);
        if (fd < 0 || fd >= FDS || (done < 0 && errno != EINPROGRESS)) {
            close(client);
            close(fd);
            continue;
        }
        add(fd, client, 1);
        add(client, fd, 0);
    }
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in server = here;
    here.sin_port = htons(atoi(arguments[1]));
    server.sin_port = htons(atoi(arguments[2]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* clients inherit it */
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) {
        perror("floor: cannot listen");
        return 1;
    }
    ep = epoll_create1(0);
    struct epoll_event events[EVENTS], own = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &own);
    for (;;) {
        int ready = epoll_wait(ep, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) {
                take_clients(listener, &server);
                continue;
            }
            struct end *e = &ends[events[i].data.fd];
            unsigned got = events[i].events;
            if (e->fd < 0) continue;
            if ((got & EPOLLOUT && !push(e)) || (got & EPOLLIN && !pull(e)) ||
                (got & (EPOLLERR | EPOLLHUP) && !(got & (EPOLLIN | EPOLLOUT)))) {
                finish(e);
                continue;
            }
            want(e);
            want(e->other);
        }
        while (closing_count) close(closing[--closing_count]);
    }
}
