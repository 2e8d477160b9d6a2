// SPDX-License-Identifier: GPL-2.0
/*
 * The balloon of a Xen domain: it grows past the memory of the boot, by blocks that
 * are hot-added, and shrinks again, and every counter is exact at each step.  In
 * dom0, as it needs no toolstack there.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define XEN		"/sys/devices/system/xen_memory/xen_memory0"
#define BALLOON_SECONDS	3000	/* for a step: the host gives up before */
#define TIMEOUT		10000

/* What the test was started with, in KiB where the name says so. */
static struct {
	struct counters counters;
	long current_kb, balloon_kb;
	int blocks;
} boot;

static long read_kb(const char *file)
{
	char text[32];

	if (read_line(file, text, sizeof(text)))
		return -EIO;
	return strtol(text, NULL, 10);
}

static long current_kb(void)
{
	return read_kb(XEN "/info/current_kb");
}

static long balloon_kb(void)
{
	return read_kb(XEN "/info/low_kb") + read_kb(XEN "/info/high_kb");
}

static int set_target(long kb)
{
	char text[32];

	snprintf(text, sizeof(text), "%ld", kb);
	return write_line(XEN "/target_kb", text);
}

/* Blocks come offline, and their pages go to the balloon when they go online. */
static int online_new_blocks(void)
{
	static bool present[MAX_BLOCKS];
	int b, err;

	if (blocks_present(present) < 0)
		return -EIO;
	for (b = 0; b < MAX_BLOCKS; b++) {
		if (!present[b] || block_online(b) == 1)
			continue;
		err = block_set(b, "online_kernel");
		if (err)
			return complain("online_kernel", err);
	}
	return 0;
}

static bool reached(long kb)
{
	return !online_new_blocks() && current_kb() == kb;
}

/*
 * Only pages move between the balloon and the zones: what a domain has grew by
 * as much as what its zones manage, and the balloon has the rest of all blocks.
 */
static int counters_wrong(void)
{
	const long kb = getpagesize() >> 10, block_kb = block_bytes() >> 10;
	long grown = (current_kb() - boot.current_kb) / kb;
	long added = (blocks_present(NULL) - boot.blocks) * block_kb;
	long managed = 0, present = 0, base_present = 0;
	long balloon = balloon_kb(), node_balloon;
	struct counters seen;
	int i, bad;

	/* Each CPU has some pages of "Balloon" that it has not added yet. */
	if (write_line("/proc/sys/vm/stat_refresh", "1"))
		return -1;
	if (counters_read(NODE, &seen))
		return -1;
	for (i = 0; i < seen.nr_zones; i++) {
		managed += seen.zones[i].managed;
		present += seen.zones[i].present;
		base_present += boot.counters.zones[i].present;
	}
	node_balloon = read_field("/sys/devices/system/node/node0/meminfo", "Balloon:");
	bad = differs("all", "MemTotal", boot.counters.total + grown, seen.total);
	bad += differs("node", "MemTotal", boot.counters.node_total + grown, seen.node_total);
	bad += differs("node", "sum of managed", seen.node_total, managed);
	bad += differs("node", "present", base_present + added / kb, present);
	bad += differs("balloon", "pages",
		       (boot.balloon_kb + added) / kb - grown, balloon / kb);
	return bad + differs("node", "Balloon", balloon / kb, node_balloon / kb);
}

/* As much as can be used without going near the last page. */
static size_t available(void)
{
	return (read_field("/proc/meminfo", "MemAvailable:") - (64 << 10)) << 10;
}

/* Every page has a frame of its own, or one would show what another was given. */
static bool usable(size_t bytes)
{
	size_t page = getpagesize(), at;
	bool right = true;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		return false;
	for (at = 0; at < bytes; at += page)
		*(size_t *)(p + at) = at;
	for (at = 0; at < bytes; at += page)
		right &= *(size_t *)(p + at) == at;
	munmap(p, bytes);
	return right;
}

FIXTURE(xen_balloon)
{
	char policy[32];
};

FIXTURE_SETUP(xen_balloon)
{
	if (access(XEN "/target_kb", W_OK))
		SKIP(return, "no " XEN ": run as a Xen domain");
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, counters_read(NODE, &boot.counters));
	boot.current_kb = current_kb();
	boot.balloon_kb = balloon_kb();
	boot.blocks = blocks_present(NULL);
	ASSERT_LT(0, boot.current_kb);
	ASSERT_EQ(boot.current_kb, read_kb(XEN "/target_kb"));
}

FIXTURE_TEARDOWN(xen_balloon)
{
	EXPECT_EQ(0, set_target(boot.current_kb));
	EXPECT_TRUE(wait_until(reached(boot.current_kb), BALLOON_SECONDS));
	EXPECT_EQ(0, counters_wrong());
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/* Each time further, so that blocks are added each time, by odd numbers of pages. */
TEST_F_TIMEOUT(xen_balloon, up_and_down, TIMEOUT)
{
	const long mib[] = { 160, 700, 1536 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mib); i++) {
		long top = boot.current_kb + (mib[i] << 10) - 4 * (long)i;
		int blocks = blocks_present(NULL);

		ASSERT_EQ(0, set_target(top));
		ASSERT_TRUE(wait_until(reached(top), BALLOON_SECONDS))
			TH_LOG("%ld KiB instead of %ld", current_kb(), top);
		EXPECT_LT(blocks, blocks_present(NULL));
		ASSERT_EQ(0, counters_wrong())
			TH_LOG("up to %ld KiB", top);
		ksft_print_msg("up to %ld KiB\n", top);
		/* All of it once, as faults are slow; then what was freed last. */
		EXPECT_TRUE(usable(i ? 128UL << 20 : available()));

		ASSERT_EQ(0, set_target(boot.current_kb + 4));
		ASSERT_TRUE(wait_until(reached(boot.current_kb + 4), BALLOON_SECONDS))
			TH_LOG("%ld KiB instead of %ld", current_kb(), boot.current_kb + 4);
		ASSERT_EQ(0, counters_wrong())
			TH_LOG("down from %ld KiB", top);
		ksft_print_msg("down from %ld KiB\n", top);
	}
}

TEST_HARNESS_MAIN
