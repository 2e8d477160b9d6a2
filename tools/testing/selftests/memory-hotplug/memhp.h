/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What programs that plug, online and offline memory have in common.
 *
 * Functions return 0 (or what they were asked for) or -errno.  What cannot be
 * read is reported on stderr, with its path; that a block refuses to change
 * its state is for the caller to judge and not reported.
 */
#ifndef _MEMHP_H
#define _MEMHP_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"

#define MEMORY_SYSFS	"/sys/devices/system/memory"
#define AUTO_ONLINE	MEMORY_SYSFS "/auto_online_blocks"
#define TRACE_INSTANCE	"/sys/kernel/tracing/instances/memory-hotplug"
#define NO_EVENTS	"no " TRACE_INSTANCE ": build with CONFIG_FTRACE, mount tracefs"
#define MAX_BLOCKS	16384
#define MAX_ZONES	6
/*
 * How long to wait for what has to come.  The host limits the time that a program
 * has: only it knows how fast the machine is, and the clock of a guest under
 * QEMU -icount jumps ahead whenever it is idle.
 */
#define BLOCK_SECONDS	3600
/* For a block that other kernel memory may keep from going offline */
#define RETRY_SECONDS	60

/* What becomes of a block: also an index of zone_name[] and online_as[]. */
enum { OFFLINE, NORMAL, MOVABLE };

static __maybe_unused const char * const zone_name[] = {
	"none", "Normal", "Movable"
};

static __maybe_unused const char * const online_as[] = {
	"offline", "online_kernel", "online_movable"
};

struct zone {
	char name[16];
	unsigned long free, pcp, spanned, present, managed, start_pfn;
};

/* Everything that has to follow the blocks exactly, in pages. */
struct counters {
	unsigned long total, node_total;
	int nr_zones;
	struct zone zones[MAX_ZONES];
};

struct dimm {
	char id[16];
	int first, count, node;
};

static inline bool dimm_block(const struct dimm *d, int n, int *b)
{
	*b = d->first + n;
	return n < d->count;
}

#define for_each_block(b, d)	\
	for (int __n = 0; dimm_block(d, __n++, &(b)); )

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Poll @cond for at most @seconds; the value is whether it became true. */
#define wait_until(cond, seconds) ({			\
	double __end = now() + (seconds);		\
	bool __true;					\
							\
	while (!(__true = (cond)) && now() < __end)	\
		usleep(20000);				\
	__true;						\
})

int complain(const char *what, int err);
int read_line(const char *path, char *buf, size_t size);
int write_line(const char *path, const char *text);
int auto_online_set(const char *policy, char *old, size_t size);
bool parse_field(const char *line, const char *field, unsigned long *value);
long read_field(const char *path, const char *field);

static inline int cpus_online(void)
{
	return sysconf(_SC_NPROCESSORS_ONLN);
}

int events_start(const char *event);
void events_stop(void);
long events(void);
int events_clear(void);
unsigned long block_bytes(void);
unsigned long block_pages(void);
unsigned long block_memmap_pages(void);
int blocks_present(bool *map);
int wait_for_blocks(int count, int seconds);
int block_read(int block, const char *file, char *buf, size_t size);
int block_of(const void *p);
int block_online(int block);

/* The state files of plugged blocks, 0 for none: opened by dimm_plug() */
extern int block_fds[MAX_BLOCKS];

int block_open(int block);
void ignore_signal(int sig);
int block_set_within(int block, const char *state, int seconds);
int block_set(int block, const char *state);
void shrink_kernel_memory(void);
int block_offline_retry(int block, int seconds);
int zones_read(int node, struct zone *zones);
const struct zone *zone_find(const struct counters *c, const char *name);
long buddy_pages(int node, const char *zone);
int counters_read(int node, struct counters *c);
void counters_expect(struct counters *c, const struct counters *base,
		     const unsigned char *as);
int differs(const char *zone, const char *what, unsigned long expected,
	    unsigned long seen);
int counters_differ(const struct counters *expected,
		    const struct counters *seen);
bool have_host(void);
void profile_mark(void);
__printf(3, 4)
int host_request(char *reply, size_t size, const char *fmt, ...);
int dimm_plug(struct dimm *d, unsigned long bytes);
int dimm_set_up(struct dimm *d, const char *id, unsigned long bytes,
		char *policy, size_t size, struct counters *c);
bool block_movable(int block);
int dimm_offline(const struct dimm *d);
int dimm_unplug(const struct dimm *d);
int pipes_open(int (*pipes)[2], int nr);
long pipes_fill(int (*pipes)[2], int nr);
void pipes_close(int (*pipes)[2], int nr);
void *memory_map(size_t bytes);
unsigned long crash_kernel(void);
int kmsg_open(void);
bool kmsg_trouble(int fd);

#endif /* _MEMHP_H */
