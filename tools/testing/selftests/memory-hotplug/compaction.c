// SPDX-License-Identifier: GPL-2.0
/*
 * Compaction of a zone that shrinks meanwhile ends, and reads no memmap that is
 * gone: while the last memory of the zone goes offline, and while a DIMM at the
 * end of the zone, where compaction looks for free pages, is removed.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(512UL << 20)
#define TOUCH_BYTES	(32UL << 20)
#define COMPACT		"/proc/sys/vm/compact_memory"
#define ROUNDS		"5"

/* Compaction takes milliseconds, or for ever. */
#define END_SECONDS	60

FIXTURE(compaction)
{
	struct dimm dimm[2];
	struct counters base;
	char policy[32];
	volatile unsigned long *runs;	/* how often compaction ended */
	pid_t pid;
	int kmsg;
};

FIXTURE_SETUP(compaction)
{
	int i;

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (access(COMPACT, W_OK))
		SKIP(return, "no " COMPACT ": build with CONFIG_COMPACTION");
	for (i = 0; i < 2; i++)
		snprintf(self->dimm[i].id, sizeof(self->dimm[i].id), "k%d.%d", getpid(), i);
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	if (zone_find(&self->base, "Movable")->spanned)
		SKIP(return, "zone Movable has memory from boot: no movablecore");
	self->kmsg = kmsg_open();
	ASSERT_LE(0, self->kmsg);
	self->runs = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->runs);
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, dimm_plug(&self->dimm[0], DIMM_BYTES));

	self->pid = fork();
	ASSERT_LE(0, self->pid);
	while (!self->pid) {
		if (write_line(COMPACT, "1"))
			_exit(1);
		++*self->runs;
	}
}

FIXTURE_TEARDOWN(compaction)
{
	if (self->pid > 0) {
		/* It does not end while compaction does not. */
		kill(self->pid, SIGKILL);
		ASSERT_TRUE(wait_until(waitpid(self->pid, NULL, WNOHANG) == self->pid,
				       END_SECONDS));
	}
	EXPECT_EQ(0, dimm_unplug(&self->dimm[0]));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/* A run that starts after now ends; one that began before does so, too. */
#define compaction_ends() do {							\
	unsigned long before = *self->runs;					\
										\
	ASSERT_TRUE(wait_until(*self->runs > before + 1, END_SECONDS))	\
		TH_LOG("compaction did not end: %lu runs", *self->runs);	\
	ASSERT_FALSE(kmsg_trouble(self->kmsg));					\
} while (0)

TEST_F_TIMEOUT(compaction, emptied, BLOCK_SECONDS)
{
	int i, b = self->dimm[0].first, rounds = atoi(getenv("ROUNDS") ?: ROUNDS);

	for (i = 0; i < rounds; i++) {
		unsigned long before = *self->runs;

		ASSERT_EQ(0, block_set(b, "online_movable"));
		/* A kernel that waits for the block to go is in the zone by then. */
		wait_until(*self->runs > before + 1, 1);
		ASSERT_EQ(0, block_set(b, "offline"));
		compaction_ends();
	}
	TH_LOG("%d rounds, %lu runs of compaction", rounds, *self->runs);
}

TEST_F_TIMEOUT(compaction, removed, BLOCK_SECONDS)
{
	int i, b, rounds = atoi(getenv("ROUNDS") ?: ROUNDS);
	struct counters c;
	unsigned char *mem;

	for_each_block(b, &self->dimm[0])
		ASSERT_EQ(0, block_set(b, "online_movable"));
	/* What compaction wants to move is at the start of the zone. */
	mem = memory_map(TOUCH_BYTES);
	ASSERT_NE(NULL, mem);
	memset(mem, 0x5a, TOUCH_BYTES);
	ASSERT_EQ(0, counters_read(NODE, &self->base));

	for (i = 0; i < rounds; i++) {
		unsigned long before;

		ASSERT_EQ(0, dimm_plug(&self->dimm[1], DIMM_BYTES));
		ASSERT_EQ(self->dimm[0].first + self->dimm[0].count, self->dimm[1].first);
		for_each_block(b, &self->dimm[1])
			ASSERT_EQ(0, block_set(b, "online_movable"));
		before = *self->runs;
		wait_until(*self->runs > before + 1, 1);
		ASSERT_EQ(0, dimm_unplug(&self->dimm[1]));
		compaction_ends();
	}
	ASSERT_EQ(0, counters_read(NODE, &c));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
	munmap(mem, TOUCH_BYTES);
	TH_LOG("%d rounds, %lu runs of compaction", rounds, *self->runs);
}

TEST_HARNESS_MAIN
