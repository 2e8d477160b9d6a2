// SPDX-License-Identifier: GPL-2.0
/*
 * A block that may not change its state stays as it was, in every respect, and
 * can change it as soon as the reason is gone.
 */
#include <sys/uio.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(4 * block_bytes())
#define INJECT		"/sys/kernel/debug/notifier-error-inject/memory/actions"
#define INJECT_ONLINE	INJECT "/MEM_GOING_ONLINE/error"
#define INJECT_OFFLINE	INJECT "/MEM_GOING_OFFLINE/error"
#define PIPES		40
#define TOUCH_BYTES	(24UL << 20)
#define WATCH_SECONDS	10
#define TIMEOUT		3600	/* as for BLOCK_SECONDS */
/* Mappings, each with an object of its own in a slab */
#define MAPPINGS	30000
#define MAX_MAP_COUNT	"/proc/sys/vm/max_map_count"
#define KPF_SLAB	(1ULL << 7)
#define SLAB_SECONDS	30
/* What others may allocate meanwhile, in pages */
#define SLAB_SLACK	1024

FIXTURE(refused)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	unsigned long *mem;
	int b;
};

FIXTURE_SETUP(refused)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	self->mem = memory_map(TOUCH_BYTES);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "r", DIMM_BYTES, self->policy,
				 sizeof(self->policy), &self->base));
	self->b = self->dimm.first;
}

FIXTURE_TEARDOWN(refused)
{
	if (!access(INJECT, F_OK)) {
		EXPECT_EQ(0, write_line(INJECT_ONLINE, "0"));
		EXPECT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	}
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

static bool unchanged(int b, bool online, const struct counters *before)
{
	struct counters after;

	return block_online(b) == online && !counters_read(NODE, &after) &&
	       !counters_differ(before, &after);
}

static unsigned long zone_free(const char *zone)
{
	struct counters c;

	return counters_read(NODE, &c) ? 0 : zone_find(&c, zone)->free;
}

/*
 * Memory of the zone can be allocated and keeps what is written to it.  Half
 * is enough of a proof: some pages come from the lists of the CPUs, and the
 * counter of free pages may lag a little.
 */
static bool usable(const char *zone, unsigned long *p)
{
	unsigned long nr = TOUCH_BYTES / sizeof(long), before, after, i;

	madvise(p, TOUCH_BYTES, MADV_DONTNEED);
	before = zone_free(zone);
	for (i = 0; i < nr; i++)
		p[i] = i * 0x9e3779b97f4a7c15UL;
	after = zone_free(zone);
	for (i = 0; i < nr; i++)
		if (p[i] != i * 0x9e3779b97f4a7c15UL)
			break;
	madvise(p, TOUCH_BYTES, MADV_DONTNEED);
	if (i < nr)
		fprintf(stderr, "# word %lu of %lu changed\n", i, nr);
	if (after + TOUCH_BYTES / getpagesize() / 2 > before)
		fprintf(stderr, "# zone %s has %lu pages free, had %lu: not used\n",
			zone, after, before);
	else if (i == nr)
		return true;
	return false;
}

TEST_F_TIMEOUT(refused, unmovable, TIMEOUT)
{
	int pipes[PIPES][2], i, err;
	struct counters before;
	unsigned long nr_free;
	char page[4096];
	double start;
	long pages;

	/* Else there is no telling what of it is in the block. */
	if (zone_find(&self->base, "Normal")->present)
		SKIP(return, "zone Normal has memory from boot: give the guest at most 2G");
	ASSERT_EQ(0, pipes_open(pipes, PIPES));
	ASSERT_EQ(0, block_set(self->b, "online_kernel"));
	ASSERT_EQ(0, counters_read(NODE, &before));
	nr_free = zone_free("Normal");
	pages = pipes_fill(pipes, PIPES);
	ASSERT_LE(PIPES * 256, pages);
	ASSERT_LE(zone_free("Normal") + pages / 2, nr_free)
		TH_LOG("the pipes are not in the block");

	start = now();
	err = block_set(self->b, "offline");
	EXPECT_EQ(-EBUSY, err)
		TH_LOG("after %.1f s: %s", now() - start, strerror(-err));
	EXPECT_TRUE(unchanged(self->b, true, &before));
	EXPECT_TRUE(usable("Normal", self->mem));
	for (i = 0; i < PIPES; i++)
		while (read(pipes[i][0], page, sizeof(page)) > 0)
			pages -= !strcmp(page, "pipe");
	EXPECT_EQ(0, pages);

	pipes_close(pipes, PIPES);
	EXPECT_EQ(0, block_offline_retry(self->b, RETRY_SECONDS));
	EXPECT_TRUE(unchanged(self->b, false, &self->base));
}

static double cpu_seconds(clockid_t clock)
{
	struct timespec t;

	return clock_gettime(clock, &t) ? -1 : t.tv_sec + t.tv_nsec / 1e9;
}

/*
 * Memory that is pinned only for a while keeps the kernel trying: what ends
 * that is a signal.
 */
TEST_F_TIMEOUT(refused, interrupted, TIMEOUT)
{
	size_t size = 16 * getpagesize(), i;
	struct counters before;
	unsigned char *p, byte;
	struct iovec iov;
	int pipes[2];
	double start, cpu;
	clockid_t clock;
	pid_t pid;
	int err;

	if (events_start("migrate/mm_migrate_pages"))
		SKIP(return, NO_EVENTS);
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	ASSERT_EQ(0, counters_read(NODE, &before));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	memset(p, 0x5a, size);
	ASSERT_EQ(self->b, block_of(p));
	ASSERT_EQ(0, pipe(pipes));
	iov = (struct iovec){ .iov_base = p, .iov_len = size };
	ASSERT_EQ((ssize_t)size, vmsplice(pipes[1], &iov, 1, 0));

	/* Not shared with the child: what is written below must reach the pipe. */
	ASSERT_EQ(0, madvise(p, size, MADV_DONTFORK));
	ASSERT_EQ(0, events_clear());
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(block_set_within(self->b, "offline", TIMEOUT) != -EINTR);

	/* At first the kernel tries at once again, in case the pins are short. */
	ASSERT_TRUE(wait_until(events() > 0, BLOCK_SECONDS));
	ASSERT_EQ(0, clock_getcpuclockid(pid, &clock));
	start = now();
	cpu = cpu_seconds(clock);
	sleep(WATCH_SECONDS);
	cpu = cpu_seconds(clock) - cpu;
	start = now() - start;
	/* That is over after a second. Then it sleeps nearly all the time. */
	TH_LOG("%.1f s of CPU time in %.1f s", cpu, start);
	EXPECT_GT(start / 2, cpu)
		TH_LOG("it spins");
	kill(pid, SIGALRM);
	ASSERT_EQ(pid, waitpid(pid, &err, 0));
	EXPECT_EQ(0, err);
	events_stop();
	EXPECT_TRUE(unchanged(self->b, true, &before));
	EXPECT_TRUE(usable("Movable", self->mem));
	EXPECT_EQ(self->b, block_of(p));

	/* The pipe gets to see what is written now: it has the pages still. */
	memset(p, 0xa5, size);
	for (i = 0; i < size; i++) {
		if (read(pipes[0], &byte, 1) != 1 || byte != 0xa5)
			break;
	}
	EXPECT_EQ(size, i);
	close(pipes[0]);
	close(pipes[1]);
	EXPECT_EQ(0, block_set(self->b, "offline"));
	EXPECT_EQ(0x5a ^ 0xff, p[size - 1]);
	EXPECT_TRUE(unchanged(self->b, false, &self->base));
}

/* Each error comes back as it is, and nothing else happens. */
TEST_F_TIMEOUT(refused, notifier, TIMEOUT)
{
	static const int error[] = { ENOMEM, EBUSY, EINVAL, EPERM, EIO };
	struct counters before;
	int zone, err;
	char text[16];
	size_t i;

	if (access(INJECT, F_OK))
		SKIP(return, "no %s: build with CONFIG_MEMORY_NOTIFIER_ERROR_INJECT, mount debugfs",
		     INJECT);
	for (i = 0; i < 2 * ARRAY_SIZE(error); i++) {
		/* Into an empty zone, and into one that has to grow for it */
		zone = i < ARRAY_SIZE(error) ? NORMAL : MOVABLE;
		if (i == ARRAY_SIZE(error)) {
			err = block_set(self->b + 1, "online_movable");
			ASSERT_EQ(0, err);
		}
		snprintf(text, sizeof(text), "%d", -error[i % ARRAY_SIZE(error)]);
		ASSERT_EQ(0, counters_read(NODE, &before));
		ASSERT_EQ(0, write_line(INJECT_ONLINE, text));
		EXPECT_EQ(atoi(text), block_set(self->b, online_as[zone]));
		EXPECT_TRUE(unchanged(self->b, false, &before));
		ASSERT_EQ(0, write_line(INJECT_ONLINE, "0"));
	}

	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	ASSERT_EQ(0, counters_read(NODE, &before));
	for (i = 0; i < ARRAY_SIZE(error); i++) {
		snprintf(text, sizeof(text), "%d", -error[i]);
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, text));
		EXPECT_EQ(-error[i], block_set(self->b, "offline"));
		EXPECT_TRUE(unchanged(self->b, true, &before));
		EXPECT_TRUE(usable("Movable", self->mem));
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	}
	EXPECT_EQ(0, block_set(self->b, "offline"));
	EXPECT_EQ(0, block_set(self->b + 1, "offline"));
	EXPECT_TRUE(unchanged(self->b, false, &self->base));
}

static long slab_pages(int block)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long pfn = block * block_pages(), end = pfn + block_pages();
	unsigned long long flags;
	long nr = 0;

	for (; pfn < end; pfn++)
		if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) == sizeof(flags))
			nr += !!(flags & KPF_SLAB);
	close(fd);
	return nr;
}

FIXTURE(slabs) {
};

FIXTURE_SETUP(slabs)
{
}

FIXTURE_TEARDOWN(slabs)
{
}

/*
 * All that is in the block and cannot be moved are slabs of a page, with
 * slub_max_order=0: what this program needs but the mappings is there before.
 */
TEST_F_TIMEOUT(slabs, of_one_page, TIMEOUT)
{
	size_t page = getpagesize(), i;
	long free_before, free_after;
	struct dimm d = { .id = "slab" };
	struct counters before;
	char line[1024] = "";
	double start;
	char *p;
	int err;

	read_line("/proc/cmdline", line, sizeof(line));
	if (!have_host() || !strstr(line, "slub_max_order=0"))
		SKIP(return, "needs slub_max_order=0");
	ASSERT_EQ(0, auto_online_set("offline", line, sizeof(line)));
	ASSERT_EQ(0, dimm_plug(&d, block_bytes()));
	ASSERT_EQ(0, counters_read(NODE, &before));
	if (zone_find(&before, "Normal")->present)
		SKIP(return, "zone Normal has memory from boot: give the guest at most 2G");
	ASSERT_EQ(0, write_line(MAX_MAP_COUNT, "200000"));
	p = mmap(NULL, MAPPINGS * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, block_set(d.first, "online_kernel"));
	for (i = 0; i < MAPPINGS; i += 2)
		ASSERT_EQ(0, mprotect(p + i * page, page, PROT_READ));
	/* Leave free pages before them. */
	ASSERT_EQ(0, mprotect(p, MAPPINGS / 4 * page, PROT_NONE));
	ASSERT_LT(0, slab_pages(d.first));

	free_before = buddy_pages(NODE, "Normal");
	start = now();
	err = block_set_within(d.first, "offline", SLAB_SECONDS);
	EXPECT_EQ(-EBUSY, err)
		TH_LOG("after %.1f s: %s", now() - start, strerror(-err));
	EXPECT_EQ(1, block_online(d.first));
	/* The pcplists are drained meanwhile. */
	free_after = buddy_pages(NODE, "Normal");
	EXPECT_LE(free_before, free_after + SLAB_SLACK)
		TH_LOG("%ld free pages were not put back", free_before - free_after);
}

TEST_HARNESS_MAIN
