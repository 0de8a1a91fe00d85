/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source: the kernel's Documentation/networking/tuntap.rst, netdevice(7).
 */
#include "devices/tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
    TAP_FLAGS = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
    OFFLOADS_ALL = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO,
};

_Static_assert(TAP_NAME_MAX + 1 == IFNAMSIZ, "netdevice(7)");

struct tap {
    char name[IFNAMSIZ];
    unsigned nr_pairs;
    unsigned nr_attached; /* that the kernel spreads frames over */
    bool multi_queue;
    unsigned offloads; /* that the kernel takes */
    int fds[TAP_PAIRS_MAX];
};

/* --- Descriptors ------------------------------------------------------------- */

static int open_pair(struct tap *t, const struct tap_params *p, unsigned i, struct err *err)
{
    struct ifreq ifr = {.ifr_flags = TAP_FLAGS};
    auto_close int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    const char *name = t->name[0] ? t->name : p->name ? p->name : "vmtap%d";
    int rc;

    if (fd < 0)
        return err_set(err, -errno, "tap %s: /dev/net/tun: %s", name, strerror(errno));
    if (t->multi_queue)
        ifr.ifr_flags |= IFF_MULTI_QUEUE;
    if (strlen(name) > TAP_NAME_MAX)
        return err_set(err, -EINVAL, "tap %s: the name is longer than %d bytes", name,
                       TAP_NAME_MAX);
    memcpy(ifr.ifr_name, name, strlen(name));
    rc = ioctl(fd, TUNSETIFF, &ifr);
    if (rc < 0 && errno == EINVAL && !t->multi_queue) {
        /* One that was made for several queues is good for one, too. */
        ifr.ifr_flags |= IFF_MULTI_QUEUE;
        rc = ioctl(fd, TUNSETIFF, &ifr);
    }
    if (rc < 0)
        return err_set(err, -errno, "tap %s: TUNSETIFF: %s%s", name, strerror(errno),
                       errno == EINVAL ? " (does it exist, made for one queue?)" : "");
    memcpy(t->name, ifr.ifr_name, sizeof(t->name));
    t->fds[i] = steal_fd(&fd);
    return 0;
}

static int adopt_pair(struct tap *t, int given, unsigned i, struct err *err)
{
    struct ifreq ifr = {0};
    int flags = fcntl(given, F_GETFL);

    if (flags < 0 || ioctl(given, TUNGETIFF, &ifr) < 0)
        return err_set(err, -EINVAL, "tap: descriptor %d is not a tap: %s", given, strerror(errno));
    if ((ifr.ifr_flags & TAP_FLAGS) != TAP_FLAGS) {
        return err_set(err, -EINVAL,
                       "tap %s: descriptor %d lacks IFF_TAP, IFF_NO_PI or "
                       "IFF_VNET_HDR",
                       ifr.ifr_name, given);
    }
    if (i && strncmp(t->name, ifr.ifr_name, sizeof(t->name)) != 0)
        return err_set(err, -EINVAL, "tap %s: descriptor %d is that of %s", t->name, given,
                       ifr.ifr_name);
    if (fcntl(given, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_set(err, -errno, "tap: descriptor %d: %s", given, strerror(errno));
    memcpy(t->name, ifr.ifr_name, sizeof(t->name));
    t->fds[i] = given;
    return 0;
}

/* The header's length and byte order, and which offloads there are. */
static int set_header(struct tap *t, unsigned i, struct err *err)
{
    static const unsigned sets[] = {OFFLOADS_ALL, OFFLOADS_ALL & ~TUN_F_UFO, TUN_F_CSUM, 0};
    int len = TAP_VNET_HDR_LEN, little_endian = 1;
    int fd = t->fds[i], rc = -1;

    if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0 || ioctl(fd, TUNSETVNETLE, &little_endian) < 0)
        return err_set(err, -errno, "tap %s: header: %s", t->name, strerror(errno));
    for (size_t k = 0; i == 0 && rc < 0 && k < ARRAY_LEN(sets); k++) {
        rc = ioctl(fd, TUNSETOFFLOAD, (unsigned long)sets[k]);
        t->offloads = sets[k];
    }
    return 0;
}

int tap_set_offloads(struct tap *t, unsigned flags)
{
    /* One setting for the whole interface. */
    return ioctl(t->fds[0], TUNSETOFFLOAD, (unsigned long)flags) < 0 ? -errno : 0;
}

int tap_set_pairs(struct tap *t, unsigned nr)
{
    if (!t->multi_queue)
        return 0;
    while (t->nr_attached != nr) {
        bool more = t->nr_attached < nr;
        unsigned i = more ? t->nr_attached : t->nr_attached - 1;
        struct ifreq ifr = {.ifr_flags = more ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

        if (ioctl(t->fds[i], TUNSETQUEUE, &ifr) < 0)
            return -errno;
        t->nr_attached = more ? i + 1 : i;
    }
    return 0;
}

/* --- The interface -------------------------------------------------------------- */

static int ifr_set(const struct tap *t, int sock, unsigned long request, struct ifreq *ifr,
                   const char *what, struct err *err)
{
    memcpy(ifr->ifr_name, t->name, sizeof(ifr->ifr_name));
    if (ioctl(sock, request, ifr) < 0)
        return err_set(err, -errno, "tap %s: %s: %s", t->name, what, strerror(errno));
    return 0;
}

static int set_ipv4(const struct tap *t, int sock, unsigned long request, const char *text,
                    struct err *err)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct ifreq ifr = {0};

    if (inet_pton(AF_INET, text, &sin.sin_addr) != 1)
        return err_set(err, -EINVAL, "tap %s: %s is not an IPv4 address", t->name, text);
    memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
    return ifr_set(t, sock, request, &ifr, text, err);
}

/* Length of an IPv6 mask's run of ones; -EINVAL if there is more in it. */
static int prefix_of(const char *mask)
{
    struct in6_addr a;
    int n = 0;

    if (inet_pton(AF_INET6, mask, &a) != 1)
        return -EINVAL;
    while (n < 128 && a.s6_addr[n / 8] >> (7 - n % 8) & 1)
        n++;
    for (int i = n; i < 128; i++)
        if (a.s6_addr[i / 8] >> (7 - i % 8) & 1)
            return -EINVAL;
    return n;
}

static int set_ipv6(const struct tap *t, const char *ip, const char *mask, struct err *err)
{
    auto_close int sock = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {0};
    struct in6_ifreq req = {.ifr6_prefixlen = 64};
    int prefix = mask ? prefix_of(mask) : 64;
    int rc;

    if (prefix < 0 || inet_pton(AF_INET6, ip, &req.ifr6_addr) != 1)
        return err_set(err, -EINVAL, "tap %s: %s: bad address or mask", t->name, ip);
    if (sock < 0)
        return err_set(err, -errno, "tap %s: socket: %s", t->name, strerror(errno));
    rc = ifr_set(t, sock, SIOCGIFINDEX, &ifr, "index", err);
    if (rc < 0)
        return rc;
    req.ifr6_prefixlen = (uint32_t)prefix;
    req.ifr6_ifindex = ifr.ifr_ifindex;
    /* An address that is there already is as good. */
    if (ioctl(sock, SIOCSIFADDR, &req) < 0 && errno != EEXIST)
        return err_set(err, -errno, "tap %s: %s: %s", t->name, ip, strerror(errno));
    return 0;
}

static int set_addresses(const struct tap *t, int sock, const struct tap_params *p, struct err *err)
{
    int rc = 0;

    if (p->ip && strchr(p->ip, ':'))
        return set_ipv6(t, p->ip, p->mask, err);
    if (p->ip)
        rc = set_ipv4(t, sock, SIOCSIFADDR, p->ip, err);
    if (rc >= 0 && p->mask)
        rc = set_ipv4(t, sock, SIOCSIFNETMASK, p->mask, err);
    return rc;
}

static int set_interface(const struct tap *t, const struct tap_params *p, struct err *err)
{
    auto_close int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq ifr = {0};
    int rc = 0;

    if (sock < 0)
        return err_set(err, -errno, "tap %s: socket: %s", t->name, strerror(errno));
    if (p->host_mac) {
        ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
        memcpy(ifr.ifr_hwaddr.sa_data, p->host_mac, TAP_MAC_LEN);
        rc = ifr_set(t, sock, SIOCSIFHWADDR, &ifr, "host_mac", err);
    }
    if (rc >= 0)
        rc = set_addresses(t, sock, p, err);
    if (rc >= 0 && p->mtu) {
        ifr = (struct ifreq){.ifr_mtu = (int)p->mtu};
        rc = ifr_set(t, sock, SIOCSIFMTU, &ifr, "mtu", err);
    }
    if (rc < 0 || p->fds)
        return rc;
    ifr = (struct ifreq){0};
    rc = ifr_set(t, sock, SIOCGIFFLAGS, &ifr, "flags", err);
    if (rc < 0 || (ifr.ifr_flags & IFF_UP && ifr.ifr_flags & IFF_RUNNING))
        return rc;
    ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
    return ifr_set(t, sock, SIOCSIFFLAGS, &ifr, "up", err);
}

/* --- Life cycle -------------------------------------------------------------------- */

static bool wants_interface(const struct tap_params *p)
{
    return !p->fds || p->ip || p->mask || p->host_mac || p->mtu;
}

static int fill(struct tap *t, const struct tap_params *p, struct err *err)
{
    int rc = 0;

    if (!p->nr_pairs || p->nr_pairs > TAP_PAIRS_MAX)
        return err_set(err, -EINVAL, "tap: %u pairs of queues, must be 1 to %d", p->nr_pairs,
                       TAP_PAIRS_MAX);
    t->multi_queue = p->nr_pairs > 1;
    for (unsigned i = 0; i < p->nr_pairs && rc >= 0; i++) {
        rc = p->fds ? adopt_pair(t, p->fds[i], i, err) : open_pair(t, p, i, err);
        if (rc >= 0)
            rc = set_header(t, i, err);
    }
    t->nr_pairs = t->nr_attached = p->nr_pairs;
    return rc >= 0 && wants_interface(p) ? set_interface(t, p, err) : rc;
}

int tap_open(const struct tap_params *p, struct tap **ret_tap, struct err *err)
{
    struct tap *t = calloc(1, sizeof(*t));
    int rc;

    if (!t)
        return err_set(err, -ENOMEM, "tap: out of memory");
    for (unsigned i = 0; i < TAP_PAIRS_MAX; i++)
        t->fds[i] = -1;
    rc = fill(t, p, err);
    if (rc < 0) {
        for (unsigned i = 0; p->fds && i < TAP_PAIRS_MAX; i++)
            t->fds[i] = -1;
        tap_close(t);
        return rc;
    }
    *ret_tap = t;
    return 0;
}

void tap_close(struct tap *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < TAP_PAIRS_MAX; i++)
        if (t->fds[i] >= 0)
            (void)close(t->fds[i]);
    free(t);
}

const char *tap_name(const struct tap *t)
{
    return t->name;
}

unsigned tap_nr_pairs(const struct tap *t)
{
    return t->nr_pairs;
}

int tap_fd(const struct tap *t, unsigned pair)
{
    return t->fds[pair];
}

unsigned tap_offloads(const struct tap *t)
{
    return t->offloads;
}
