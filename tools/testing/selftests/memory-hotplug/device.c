// SPDX-License-Identifier: GPL-2.0
/*
 * A DIMM goes as a whole or not at all: what is in use moves once, and when one
 * of its blocks cannot go nothing moves and every block is what it was.
 */
#include <sys/uio.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(512UL << 20)
#define USED_BYTES	(200UL << 20)
#define INJECT		"/sys/kernel/debug/notifier-error-inject/memory/actions"
#define INJECT_OFFLINE	INJECT "/MEM_GOING_OFFLINE/error"
#define PIPES		8
#define TIMEOUT		BLOCK_SECONDS

FIXTURE(device)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	unsigned long *mem;
	int pipes[PIPES][2];
	int last;
	bool stays;
};

static int online_all_but_last(const struct dimm *d)
{
	int b, err = 0;

	for_each_block(b, d)
		if (b < d->first + d->count - 1 && !err)
			err = block_set(b, "online_movable");
	return err;
}

FIXTURE_SETUP(device)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (events_start("migrate/mm_migrate_pages"))
		SKIP(return, NO_EVENTS);
	self->mem = memory_map(USED_BYTES);
	ASSERT_NE(NULL, self->mem);
	madvise(self->mem, USED_BYTES, MADV_DONTNEED);
	ASSERT_EQ(0, pipes_open(self->pipes, PIPES));
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "w", DIMM_BYTES, self->policy,
				 sizeof(self->policy), &self->base));
	self->last = self->dimm.first + self->dimm.count - 1;
}

FIXTURE_TEARDOWN(device)
{
	char path[96];

	events_stop();
	pipes_close(self->pipes, PIPES);
	/* With its page tables, which may be in the last block */
	munmap(self->mem, USED_BYTES);
	if (!access(INJECT, F_OK))
		EXPECT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d", self->last);
	if (!self->stays && !access(path, F_OK))
		EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/* Pages, in all calls of migrate_pages() since events_clear(), and the most in one */
static unsigned long pages_migrated(unsigned long *most)
{
	FILE *trace = fopen(TRACE_INSTANCE "/trace", "r");
	unsigned long sum = 0, nr;
	char line[512];

	if (most)
		*most = 0;
	while (trace && fgets(line, sizeof(line), trace))
		if (parse_field(line, "nr_succeeded=", &nr)) {
			sum += nr;
			if (most && nr > *most)
				*most = nr;
		}
	if (trace)
		fclose(trace);
	return sum;
}

static void fill(unsigned long *mem)
{
	for (unsigned long i = 0; i < USED_BYTES / sizeof(*mem); i++)
		mem[i] = i * 0x9e3779b97f4a7c15UL;
}

static bool intact(const unsigned long *mem)
{
	for (unsigned long i = 0; i < USED_BYTES / sizeof(*mem); i++)
		if (mem[i] != i * 0x9e3779b97f4a7c15UL)
			return false;
	return true;
}

static unsigned long pages_used(const char *name)
{
	struct counters c;
	const struct zone *zone;

	if (counters_read(NODE, &c))
		return 0;
	zone = zone_find(&c, name);
	return zone->managed - zone->free;
}

static bool unchanged(const struct dimm *d, const struct counters *before)
{
	struct counters after;
	int b, bad = 0;

	for_each_block(b, d)
		bad += block_online(b) != 1;
	return !bad && !counters_read(NODE, &after) &&
	       !counters_differ(before, &after);
}

TEST_F_TIMEOUT(device, moves_once, TIMEOUT)
{
	unsigned long used, migrated, most;
	int blocks = blocks_present(NULL) - self->dimm.count;
	struct counters after;

	ASSERT_EQ(0, online_all_but_last(&self->dimm));
	ASSERT_EQ(0, block_set(self->last, "online_movable"));
	fill(self->mem);
	used = pages_used("Movable");
	ASSERT_LE(USED_BYTES / getpagesize() / 4 * 3, used);
	ASSERT_EQ(0, events_clear());
	ASSERT_EQ(0, host_request(NULL, 0, "del %s", self->dimm.id));
	ASSERT_EQ(0, wait_for_blocks(blocks, BLOCK_SECONDS));
	migrated = pages_migrated(&most);
	/* 512 are isolated at a time, and the last folio of them may be a large one. */
	EXPECT_LE(512UL, most);
	EXPECT_GT(1024UL, most);
	/* The kernel's own threads and other programs go on meanwhile. */
	EXPECT_LE(migrated, used + used / 20)
		TH_LOG("%lu pages in use were migrated %lu times", used, migrated);
	EXPECT_LE(used / 2, migrated);
	EXPECT_TRUE(intact(self->mem));
	ASSERT_EQ(0, counters_read(NODE, &after));
	EXPECT_EQ(0, counters_differ(&self->base, &after));
}

/*
 * A page stays pinned: that is found when others have moved. No block is offline
 * by then, and as no signal can reach the kernel's thread it gives up by itself.
 */
TEST_F_TIMEOUT(device, pinned, TIMEOUT)
{
	size_t size = 16 * getpagesize();
	struct counters before;
	struct iovec iov;
	int pipes[2];

	ASSERT_EQ(0, block_set(self->last, "online_movable"));
	iov = (struct iovec){ .iov_base = self->mem, .iov_len = size };
	memset(self->mem, 1, size);
	ASSERT_EQ(self->last, block_of(self->mem));
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)size, vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_EQ(0, online_all_but_last(&self->dimm));
	fill(self->mem);
	ASSERT_EQ(0, counters_read(NODE, &before));

	EXPECT_EQ(-EIO, host_request(NULL, 0, "del %s", self->dimm.id));
	EXPECT_TRUE(unchanged(&self->dimm, &before));
	EXPECT_EQ(self->last, block_of(self->mem));
	EXPECT_TRUE(intact(self->mem));
	close(pipes[0]);
	close(pipes[1]);
}

TEST_F_TIMEOUT(device, notifier, TIMEOUT)
{
	struct counters before;
	char text[16];

	if (access(INJECT, F_OK))
		SKIP(return, "no %s: build with CONFIG_MEMORY_NOTIFIER_ERROR_INJECT, mount debugfs",
		     INJECT);
	ASSERT_EQ(0, online_all_but_last(&self->dimm));
	ASSERT_EQ(0, block_set(self->last, "online_movable"));
	fill(self->mem);
	ASSERT_EQ(0, counters_read(NODE, &before));
	snprintf(text, sizeof(text), "%d", -EPERM);
	ASSERT_EQ(0, write_line(INJECT_OFFLINE, text));
	ASSERT_EQ(0, events_clear());
	EXPECT_EQ(-EIO, host_request(NULL, 0, "del %s", self->dimm.id));
	EXPECT_EQ(0UL, pages_migrated(NULL));
	EXPECT_TRUE(unchanged(&self->dimm, &before));
	EXPECT_TRUE(intact(self->mem));
}

/* The last block has pages that cannot move. */
TEST_F_TIMEOUT(device, unmovable, TIMEOUT)
{
	struct counters before;

	/* By then a block of ZONE_NORMAL has kernel memory that stays. */
	self->stays = true;
	if (zone_find(&self->base, "Normal")->present)
		SKIP(return, "zone Normal has memory from boot: give the guest at most 2G");
	/* The last block last, so that nothing but the pipes takes pages from it. */
	ASSERT_EQ(0, online_all_but_last(&self->dimm));
	fill(self->mem);
	ASSERT_EQ(0, block_set(self->last, "online_kernel"));
	ASSERT_LE(PIPES * 256, pipes_fill(self->pipes, PIPES));
	ASSERT_LE(PIPES * 128UL, pages_used("Normal"));
	ASSERT_EQ(0, counters_read(NODE, &before));

	ASSERT_EQ(0, events_clear());
	EXPECT_EQ(-EIO, host_request(NULL, 0, "del %s", self->dimm.id));
	EXPECT_EQ(0UL, pages_migrated(NULL));
	EXPECT_TRUE(unchanged(&self->dimm, &before));
	EXPECT_TRUE(intact(self->mem));
}

TEST_HARNESS_MAIN
