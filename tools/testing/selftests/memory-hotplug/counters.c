// SPDX-License-Identifier: GPL-2.0
/*
 * Every counter is exact across online, offline, online in another zone,
 * removal and adding again.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(8 * block_bytes())
#define TOUCH_BYTES	(24UL << 20)
#define TIMEOUT		3600	/* as for BLOCK_SECONDS */

static unsigned char as[MAX_BLOCKS];
static struct counters base;

/* The counters follow the map as[], and nothing else. */
static int counters_wrong(void)
{
	struct counters expected, seen;

	counters_expect(&expected, &base, as);
	if (counters_read(NODE, &seen))
		return -1;
	return counters_differ(&expected, &seen);
}

/*
 * Bring a block to a state of zone_name[] and check all there is to see.  False
 * when some kernel memory that has nothing to do with the test, say the stack
 * of a new kworker, came to lie in a kernel block: that one stays.
 */
static bool move(struct __test_metadata *_metadata, int b, int to)
{
	char zones[64];
	int err;

	if (as[b] == NORMAL)
		err = block_offline_retry(b, RETRY_SECONDS);
	else
		err = block_set(b, online_as[to]);
	if (as[b] == NORMAL && (err == -EBUSY || err == -EINTR))
		SKIP(return false, "memory%d has kernel memory for more than %d s",
		     b, RETRY_SECONDS);
	ASSERT_EQ(0, err)
		TH_LOG("memory%d: %s: %s", b, online_as[to], strerror(-err));
	as[b] = to;
	ASSERT_EQ(to != OFFLINE, block_online(b));
	ASSERT_EQ(0, counters_wrong())
		TH_LOG("after memory%d: %s", b, online_as[to]);
	ASSERT_EQ(0, block_read(b, "valid_zones", zones, sizeof(zones)));
	if (to == OFFLINE) {
		EXPECT_NE(NULL, strstr(zones, "Normal"));
		EXPECT_NE(NULL, strstr(zones, "Movable"));
	} else {
		EXPECT_STREQ(zone_name[to], zones);
	}
	return true;
}

FIXTURE(dimm)
{
	struct dimm dimm;
	char policy[32];
};

FIXTURE_VARIANT(dimm)
{
	int zone;
};

/* First: debug kernels keep the page tables of what describes the blocks. */
FIXTURE_VARIANT_ADD(dimm, movable) {
	.zone = MOVABLE,
};

FIXTURE_VARIANT_ADD(dimm, kernel) {
	.zone = NORMAL,
};

FIXTURE_SETUP(dimm)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	snprintf(self->dimm.id, sizeof(self->dimm.id), "d%d", getpid());
	memset(as, OFFLINE, sizeof(as));
	ASSERT_EQ(0, auto_online_set("offline", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, counters_read(NODE, &base));
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	ASSERT_GE(self->dimm.count, 6)
		TH_LOG("the blocks are too large for a DIMM of 1 GiB");
	/* Adding alone gives no memory. */
	ASSERT_EQ(0, counters_wrong());
}

FIXTURE_TEARDOWN(dimm)
{
	int err = dimm_unplug(&self->dimm);

	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
	if (variant->zone == NORMAL && (err == -EBUSY || err == -EINTR)) {
		TH_LOG("kernel memory: %s stays plugged", self->dimm.id);
		return;
	}
	EXPECT_EQ(0, err);
	memset(as, OFFLINE, sizeof(as));
	EXPECT_EQ(0, counters_wrong());
}

TEST_F_TIMEOUT(dimm, all_blocks, TIMEOUT)
{
	int b;

	for_each_block(b, &self->dimm)
		move(_metadata, b, variant->zone);
	while (b-- > self->dimm.first)
		if (!move(_metadata, b, OFFLINE))
			return;
}

/*
 * The span grows at the end and at the start, takes in the hole between, and
 * shrinks when an edge goes: past the hole, down to nothing.  Then, a block
 * goes to the other zone and comes back.  Blocks go offline in the reverse
 * order, as debug kernels allocate from one what describes the next.
 */
TEST_F_TIMEOUT(dimm, span, TIMEOUT)
{
	const int zone = variant->zone, other = NORMAL + MOVABLE - zone;
	const struct {
		int block, to;
	} step[] = {
		{ 3, zone }, { 5, zone }, { 5, OFFLINE }, { 1, zone },
		{ 2, zone }, { 2, OFFLINE }, { 1, OFFLINE }, { 3, OFFLINE },
		{ 4, zone }, { 2, zone }, { 2, OFFLINE }, { 2, other },
		{ 2, OFFLINE }, { 2, zone },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(step); i++)
		if (!move(_metadata, self->dimm.first + step[i].block,
			  step[i].to))
			return;
}

/* "online" without a zone goes where valid_zones says first. */
TEST_F_TIMEOUT(dimm, default_zone, TIMEOUT)
{
	int b = self->dimm.first + 1, to;
	char zones[64];

	move(_metadata, b - 1, variant->zone);
	move(_metadata, b + 1, variant->zone);
	ASSERT_EQ(0, block_read(b, "valid_zones", zones, sizeof(zones)));
	to = !strncmp(zones, "Normal", 6) ? NORMAL : MOVABLE;
	ASSERT_EQ(0, block_set(b, "online"));
	as[b] = to;
	EXPECT_EQ(0, counters_wrong());
	ASSERT_EQ(0, block_read(b, "valid_zones", zones, sizeof(zones)));
	EXPECT_STREQ(zone_name[to], zones);
}

/*
 * buddyinfo counts the free lists and zoneinfo has a counter of its own for
 * them, both without what lies on the lists of the CPUs ("count" in zoneinfo).
 * The counter lags behind by what each CPU has not added yet: stat_refresh
 * makes them add it.  What is left is that somebody allocates between the two
 * reads; so an equal pair has to come up soon, if with tolerance 0.
 */
TEST_F_TIMEOUT(dimm, free_lists, TIMEOUT)
{
	const char *name = zone_name[variant->zone];
	struct counters c;
	const struct zone *z;
	long buddy;
	char *p = memory_map(TOUCH_BYTES);

	ASSERT_NE(NULL, p);
	move(_metadata, self->dimm.first, variant->zone);

	/* Leave free areas of many orders, and pages on the CPUs' lists. */
	memset(p, 1, TOUCH_BYTES);
	EXPECT_EQ(0, madvise(p + (1357 << 12), 5 << 20, MADV_DONTNEED));

	EXPECT_TRUE(wait_until(({
		write_line("/proc/sys/vm/stat_refresh", "1");
		buddy = buddy_pages(NODE, name);
		counters_read(NODE, &c);
		z = zone_find(&c, name);
		(long)z->free == buddy;
	}), BLOCK_SECONDS))
		TH_LOG("zone %s: %lu pages free, but %ld on the free lists",
		       name, z->free, buddy);
	EXPECT_LE(z->free + z->pcp, z->managed);
	EXPECT_GT(z->free, z->managed / 2);
	EXPECT_LE(z->free + TOUCH_BYTES / getpagesize() / 2, z->managed);
	EXPECT_EQ(0, madvise(p, TOUCH_BYTES, MADV_DONTNEED));
}

/* Not in Normal: the processes would leave kernel memory there. */
TEST_F_TIMEOUT(dimm, lsmem, TIMEOUT)
{
	static bool present[MAX_BLOCKS];
	unsigned long online = 0, offline = 0, seen[2] = { 0 };
	char line[128];
	FILE *f;
	int b;

	for (b = 0; b < 3; b++)
		move(_metadata, self->dimm.first + 2 * b, MOVABLE);
	ASSERT_LT(0, blocks_present(present));
	for (b = 0; b < MAX_BLOCKS; b++) {
		if (!present[b])
			continue;
		*(block_online(b) ? &online : &offline) += block_bytes();
	}
	f = popen("lsmem --summary=only -b", "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		parse_field(line, " online memory:", &seen[0]);
		parse_field(line, " offline memory:", &seen[1]);
	}
	EXPECT_EQ(0, pclose(f));
	EXPECT_EQ(online, seen[0]);
	EXPECT_EQ(offline, seen[1]);
}

/* Ejecting takes offline what still is online; kernel memory may refuse. */
TEST_F_TIMEOUT(dimm, remove_and_add, TIMEOUT)
{
	int i, left = blocks_present(NULL) - self->dimm.count;
	int b = self->dimm.first + 1;

	for (i = 0; i < 2; i++) {
		move(_metadata, b, variant->zone);
		if ((i == 0 || variant->zone == NORMAL) &&
		    !move(_metadata, b, OFFLINE))
			return;
		ASSERT_EQ(0, host_request(NULL, 0, "del %s", self->dimm.id));
		ASSERT_EQ(0, wait_for_blocks(left, BLOCK_SECONDS));
		memset(as, OFFLINE, sizeof(as));
		ASSERT_EQ(0, counters_wrong());
		ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
		ASSERT_EQ(0, counters_wrong());
	}
}

TEST_HARNESS_MAIN
