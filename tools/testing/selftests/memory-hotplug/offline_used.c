// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in use moves away when its block goes offline, whatever free pages
 * lie between: what was written is still there, and nothing is left behind.
 */
#include <sys/mman.h>

#include "memhp.h"
#include "kselftest_harness.h"

/* It takes less than one, or never ends. */
#define OFFLINE_SECONDS	30
#define NODE		0
#define DIMM_BYTES	(128UL << 20)

FIXTURE(offline_used)
{
	struct dimm dimm;
	char policy[32];
	char *mem;
	unsigned long bytes;
};

FIXTURE_VARIANT(offline_used)
{
	unsigned long keep, of;		/* pages */
	int advice;
};

/* Of each run of pages the last ones are kept: free pages come before used ones. */
FIXTURE_VARIANT_ADD(offline_used, every_other_page) {
	.keep = 1, .of = 2, .advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(offline_used, one_page_in_64) {
	.keep = 1, .of = 64, .advice = MADV_NOHUGEPAGE,
};

FIXTURE_VARIANT_ADD(offline_used, half_of_each_2M) {
	.keep = 256, .of = 512, .advice = MADV_HUGEPAGE,
};

FIXTURE_VARIANT_ADD(offline_used, everything) {
	.keep = 1, .of = 1, .advice = MADV_HUGEPAGE,
};

FIXTURE_SETUP(offline_used)
{
	int b;

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	ASSERT_EQ(0, read_line(AUTO_ONLINE, self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, write_line(AUTO_ONLINE, "offline"));
	snprintf(self->dimm.id, sizeof(self->dimm.id), "u%d", getpid());
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	for_each_block(b, &self->dimm)
		ASSERT_EQ(0, block_set(b, "online_movable"));
	/* ZONE_MOVABLE is used first, so this fills most of the DIMM. */
	self->bytes = DIMM_BYTES / 8 * 7;
	self->mem = mmap(NULL, self->bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
}

FIXTURE_TEARDOWN(offline_used)
{
	munmap(self->mem, self->bytes);
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, write_line(AUTO_ONLINE, self->policy));
}

TEST_F_TIMEOUT(offline_used, survives, BLOCK_SECONDS)
{
	unsigned long page = getpagesize(), pages = self->bytes / page, i;
	unsigned long kept = pages / variant->of * variant->keep;
	struct counters seen;
	const struct zone *zone;
	int b;

	ASSERT_EQ(0, madvise(self->mem, self->bytes, variant->advice));
	for (i = 0; i < pages; i++)
		*(unsigned long *)(self->mem + i * page) = ~i;
	for (i = 0; i < pages; i += variant->of)
		if (variant->keep < variant->of)
			ASSERT_EQ(0, madvise(self->mem + i * page,
					     (variant->of - variant->keep) * page,
					     MADV_DONTNEED));
	ASSERT_EQ(0, counters_read(NODE, &seen));
	zone = zone_find(&seen, "Movable");
	ASSERT_LE(zone->free, zone->managed - kept / 2)
		TH_LOG("the blocks are hardly used");

	for_each_block(b, &self->dimm)
		ASSERT_EQ(0, block_set_within(b, "offline", OFFLINE_SECONDS))
			TH_LOG("memory%d", b);
	for (i = 0; i < pages; i++)
		if (i % variant->of >= variant->of - variant->keep)
			ASSERT_EQ(~i, *(unsigned long *)(self->mem + i * page));
}

TEST_HARNESS_MAIN
