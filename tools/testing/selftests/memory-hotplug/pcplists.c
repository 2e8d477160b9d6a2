// SPDX-License-Identifier: GPL-2.0
/*
 * The lists of free pages that each CPU keeps (pcplists) are empty and stay so
 * while a block of their zone goes offline: no page freed meanwhile hides there
 * and keeps the kernel trying. Whoever else needs them empty does not wait, and
 * does not bring them back before the last one is done.
 */
#include <sched.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif

#define NODE		0
#define DIMM_BYTES	(256UL << 20)
#define PASSES		"page_isolation/test_pages_isolated"
#define FRACTION	"/proc/sys/vm/percpu_pagelist_high_fraction"
#define TIMEOUT		3600	/* as for BLOCK_SECONDS */
#define MAX_CPUS	8

/*
 * The kernel tries at once for a second and then sleeps between tries, for up to a
 * second: an offline that sleeps that often with all CPUs idle waits for a page that
 * hides.
 */
#define SLEEPS_MAX	12
/* For the signal that ends the offline if those that must not wait for it do. */
#define OVERLAP_SECONDS	100
#define ROUNDS		300
#define STORM_PAGES	1024
#define STORM_US	30000

/* What pagesets of a zone have in common: -1 where they differ. */
struct limits {
	long high_min, high_max, batch;
	int cpus;
};

FIXTURE(pcplists)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	int b;
};

FIXTURE_SETUP(pcplists)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "p", DIMM_BYTES, self->policy,
				 sizeof(self->policy), &self->base));
	self->b = self->dimm.first;
}

FIXTURE_TEARDOWN(pcplists)
{
	events_stop();
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		complain("sched_setaffinity", -errno);
}

/*
 * Wait for a round, take pages, free them at a moment that the offline cannot
 * know, all at once or again and again, say so, and then leave this CPU's
 * pcplists alone until the next round.
 */
static void storm(int cpu, int rounds, int done)
{
	size_t size = STORM_PAGES * getpagesize(), i;
	char round, *p;

	srand(cpu);
	run_on(cpu);
	while (read(rounds, &round, 1) == 1) {
		double end = now() + rand() % STORM_US / 1e6;

		do {
			p = mmap(NULL, size, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (p == MAP_FAILED)
				_exit(1);
			for (i = 0; i < size; i += getpagesize())
				p[i] = 1;
			while (round % 2 && now() < end)
				;
			munmap(p, size);
		} while (now() < end);
		if (write(done, &round, 1) != 1)
			_exit(2);
	}
	_exit(0);
}

/* How often @pid has given up its CPU of its own accord. */
static long sleeps(pid_t pid)
{
	char path[64], line[128];
	long nr = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "voluntary_ctxt_switches: %ld", &nr) == 1)
			break;
	if (f)
		fclose(f);
	return nr;
}

/*
 * Does @pid, which takes a block offline, end once none of @cpus has pages under way?
 * A slow machine may stop one of them in the middle of a free for any time.
 */
static bool nothing_hides(pid_t pid, int done, int cpus, long *passes, int *status)
{
	long before;
	char round;

	while (cpus--)
		if (read(done, &round, 1) != 1)
			return false;
	before = sleeps(pid);
	while (waitpid(pid, status, WNOHANG) != pid) {
		if (sleeps(pid) > before + SLEEPS_MAX) {
			*passes = events();
			kill(pid, SIGKILL);
			waitpid(pid, status, 0);
			return false;
		}
		usleep(1000);
	}
	*passes = events();
	return true;
}

TEST_F_TIMEOUT(pcplists, no_page_hides, TIMEOUT)
{
	int pipes[MAX_CPUS][2], done[2], cpu, cpus = cpus_online(), round, b, status;
	long nr = 0, sum = 0, most = 0;
	pid_t pids[MAX_CPUS], pid;

	if (events_start(PASSES))
		SKIP(return, NO_EVENTS);
	ASSERT_LE(2, cpus)
		TH_LOG("a page can hide only on another CPU's list");
	cpus = cpus < MAX_CPUS ? cpus : MAX_CPUS;
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	ASSERT_EQ(0, block_set(self->b + 1, "online_movable"));
	ASSERT_EQ(0, pipe(done));
	for (cpu = 0; cpu < cpus; cpu++) {
		ASSERT_EQ(0, pipe(pipes[cpu]));
		pids[cpu] = fork();
		ASSERT_LE(0, pids[cpu]);
		if (!pids[cpu]) {
			close(pipes[cpu][1]);
			storm(cpu, pipes[cpu][0], done[1]);
		}
		close(pipes[cpu][0]);
	}

	for (round = 0; round < ROUNDS; round++) {
		char mode = round;
		bool free;

		b = self->b + round % 2;
		ASSERT_EQ(0, events_clear());
		for (cpu = 0; cpu < cpus; cpu++)
			ASSERT_EQ(1, write(pipes[cpu][1], &mode, 1));
		/* Somewhere within the storm */
		usleep(rand() % STORM_US);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(-block_set(b, "offline"));
		free = nothing_hides(pid, done[0], cpus, &nr, &status);
		EXPECT_TRUE(free)
			TH_LOG("round %d: %ld passes, a page was hidden", round, nr);
		if (!free)
			break;
		ASSERT_EQ(0, status);
		ASSERT_LE(1, nr);
		most = nr > most ? nr : most;
		sum += nr;
		ASSERT_EQ(0, block_set(b, "online_movable"));
	}
	TH_LOG("%d offlines, %ld passes, at most %ld for one", round, sum, most);

	/* All of them: a process has the pipes of those before it as well. */
	for (cpu = 0; cpu < cpus; cpu++)
		close(pipes[cpu][1]);
	for (cpu = 0; cpu < cpus; cpu++) {
		EXPECT_EQ(pids[cpu], waitpid(pids[cpu], &status, 0));
		EXPECT_EQ(0, status);
	}
}

/* Of the zone's pagesets in /proc/zoneinfo */
static struct limits limits_read(const char *zone)
{
	struct limits l = { .high_min = -1, .high_max = -1, .batch = -1 }, n = l;
	FILE *f = fopen("/proc/zoneinfo", "r");
	bool found = false;
	char line[256], name[16];
	int node;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone %15s", &node, name) == 2)
			found = node == NODE && !strcmp(name, zone);
		if (!found)
			continue;
		parse_field(line, "batch: ", (unsigned long *)&n.batch);
		parse_field(line, "high_min: ", (unsigned long *)&n.high_min);
		if (!parse_field(line, "high_max: ", (unsigned long *)&n.high_max))
			continue;
		/* The last of a CPU */
		if (l.cpus++ && (l.batch != n.batch || l.high_min != n.high_min ||
				 l.high_max != n.high_max))
			n.high_max = -1;
		l.high_max = n.high_max;
		l.high_min = n.high_min;
		l.batch = n.batch;
	}
	if (f)
		fclose(f);
	return l;
}

static bool disabled(const char *zone)
{
	struct limits l = limits_read(zone);

	return l.cpus == cpus_online() && !l.high_min && !l.high_max && l.batch == 1;
}

static unsigned char *page_in(int block)
{
	size_t size = 4096 * getpagesize(), i;
	unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	for (i = 0; p != MAP_FAILED && i < size; i += getpagesize()) {
		p[i] = 0x5a;
		if (block < 0 || block_of(p + i) == block)
			return p + i;
	}
	return NULL;
}

/*
 * An offline that a pinned page keeps trying is one user of the zone's pcplists,
 * soft-offlining a page another one.
 */
TEST_F_TIMEOUT(pcplists, users_overlap, TIMEOUT)
{
	unsigned char *elsewhere, *pinned, *moved;
	struct limits before, fraction, after;
	struct iovec iov;
	int pipes[2], status;
	char state[32];
	pid_t pid;

	/* Of a zone that the DIMM has no part in */
	elsewhere = page_in(-1);
	ASSERT_NE(NULL, elsewhere);
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	pinned = page_in(self->b);
	ASSERT_NE(NULL, pinned);
	moved = page_in(self->b);
	ASSERT_NE(NULL, moved);
	ASSERT_EQ(0, pipe(pipes));
	iov = (struct iovec){ .iov_base = pinned, .iov_len = 1 };
	ASSERT_EQ(1, vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_EQ(0, block_set(self->b + 1, "online_movable"));
	before = limits_read("Movable");
	ASSERT_LT(0, before.high_max);

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(-block_set_within(self->b, "offline", OVERLAP_SECONDS));
	ASSERT_TRUE(wait_until(disabled("Movable") &&
			       block_of(moved) != self->b, BLOCK_SECONDS));

	/* Each of the three would have to wait for the child's signal. */
	EXPECT_EQ(0, madvise(elsewhere, getpagesize(), MADV_SOFT_OFFLINE));
	EXPECT_EQ(0, madvise(moved, getpagesize(), MADV_SOFT_OFFLINE));
	EXPECT_TRUE(disabled("Movable"))
		TH_LOG("the soft-offline brought the pcplists back");
	EXPECT_EQ(0, write_line(FRACTION, "8"));
	EXPECT_TRUE(disabled("Movable"))
		TH_LOG("new limits brought the pcplists back");
	ASSERT_EQ(0, block_read(self->b, "state", state, sizeof(state)));
	EXPECT_STREQ("going-offline", state)
		TH_LOG("had to wait for the offline");

	kill(pid, SIGALRM);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFEXITED(status));
	EXPECT_EQ(EINTR, WEXITSTATUS(status));
	fraction = limits_read("Movable");
	EXPECT_EQ(fraction.high_max, fraction.high_min);
	EXPECT_LT(before.high_max, fraction.high_max + 1);
	EXPECT_EQ(before.batch, fraction.batch);
	EXPECT_EQ(0, write_line(FRACTION, "0"));
	after = limits_read("Movable");
	EXPECT_EQ(before.high_min, after.high_min);
	EXPECT_EQ(before.high_max, after.high_max);
	EXPECT_EQ(before.batch, after.batch);
	EXPECT_EQ(cpus_online(), after.cpus);
	close(pipes[0]);
	close(pipes[1]);
}

/*
 * Make free pages of the block bad, from its end, for as long as it is there. The
 * first one is reported through the pipe @began. The exit status is how many, up to
 * 255.
 */
static void spoil(int block, const char *how, int began)
{
	unsigned long pages = block_pages(), pfn = (block + 1) * pages;
	int fd = open(how, O_WRONLY | O_CLOEXEC);
	int spoiled = 0;
	char text[32];

	for (; fd >= 0 && pfn > block * pages; pfn -= 32) {
		snprintf(text, sizeof(text), "0x%lx", (pfn - 1) * getpagesize());
		if (write(fd, text, strlen(text)) > 0) {
			if (!spoiled && write(began, "", 1) != 1)
				break;
			spoiled += spoiled < 255;
		}
		else if (errno == EIO || errno == ENXIO)
			break;
	}
	_exit(spoiled);
}

/*
 * Pages that turn bad while their block goes offline and is removed: each is
 * handled while it is there, or not at all.
 */
TEST_F_TIMEOUT(pcplists, bad_pages, TIMEOUT)
{
	static const char * const how[] = {
		MEMORY_SYSFS "/soft_offline_page", MEMORY_SYSFS "/hard_offline_page",
	};
	int round, status, err, spoiled[2] = {}, began[2];
	char byte;
	struct counters after;
	pid_t pid;

	if (access(how[0], W_OK))
		SKIP(return, "no soft_offline_page: build with CONFIG_MEMORY_FAILURE");
	for (round = 0; round < 8; round++) {
		ASSERT_EQ(0, block_set(self->dimm.first, "online_movable"));
		ASSERT_EQ(0, pipe(began));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			spoil(self->dimm.first, how[round % 2], began[1]);
		close(began[1]);
		ASSERT_EQ(1, read(began[0], &byte, 1))
			TH_LOG("no page turned bad");
		close(began[0]);
		usleep(rand() % STORM_US);
		/* The kernel waits a second for memory failures to end, then gives up. */
		while ((err = block_set(self->dimm.first, "offline")) == -EBUSY)
			;
		EXPECT_EQ(0, err);
		/* A block with bad pages does not go online again. */
		ASSERT_EQ(0, dimm_unplug(&self->dimm));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFEXITED(status));
		spoiled[round % 2] += WEXITSTATUS(status);
		ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	}
	EXPECT_LT(0, spoiled[0])
		TH_LOG("no page was soft-offlined");
	EXPECT_LT(0, spoiled[1])
		TH_LOG("no page was hard-offlined");
	ASSERT_EQ(0, counters_read(NODE, &after));
	EXPECT_EQ(0, counters_differ(&self->base, &after));
}

TEST_HARNESS_MAIN
