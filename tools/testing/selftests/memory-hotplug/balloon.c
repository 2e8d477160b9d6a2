// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio-balloon when memory is short, and when its pages are migrated.  Memory
 * that tasks need comes back from a balloon with deflate-on-oom before one is killed,
 * and after few rounds of reclaim.  Pages that move to another node are counted there.
 */
#include <sched.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define MIB		(1UL << 20)
/* What a task needs and the balloon has */
#define NEEDED_MB	400L
/* What is left when the balloon is inflated */
#define LEFT_MB		100L
/* What fails before each call of the OOM notifier, at least once */
#define RECLAIM		"vmscan/mm_vmscan_direct_reclaim_begin"
#define RECLAIMS_MAX	60	/* a MiB each time, there are more than 400 */
#define NODE_DIMM_MB	512L
#define NODE_HELD_MB	128L
#define SECONDS		600
#define SETTLE_SECONDS	30	/* CPUs keep some of what they count for a second or two */

static long meminfo_mb(const char *field)
{
	return read_field("/proc/meminfo", field) >> 10;
}

static long balloon_mb(void)
{
	return meminfo_mb("Balloon:");
}

static long node_balloon_pages(int node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/vmstat", node);
	return read_field(path, "nr_balloon_pages");
}

/* A child that writes to @mb MiB, and waits to be killed if @hold. */
static pid_t user_start(long mb, bool hold)
{
	pid_t pid = fork();

	if (!pid) {
		volatile char *mem = mmap(NULL, mb * MIB, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		unsigned long at;

		if (mem == MAP_FAILED)
			_exit(1);
		madvise((void *)mem, mb * MIB, MADV_NOHUGEPAGE);
		for (at = 0; at < mb * MIB; at += getpagesize())
			mem[at] = 1;
		while (hold)
			pause();
		_exit(0);
	}
	return pid;
}

static void child_end(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

FIXTURE(balloon)
{
	long ram_mb, total_mb;
	pid_t user;
};

FIXTURE_SETUP(balloon)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	self->ram_mb = blocks_present(NULL) * (long)(block_bytes() / MIB);
	self->total_mb = meminfo_mb("MemTotal:");
	ASSERT_EQ(0, balloon_mb());
}

FIXTURE_TEARDOWN(balloon)
{
	child_end(&self->user);
	EXPECT_EQ(0, host_request(NULL, 0, "balloon 64G"));
	EXPECT_TRUE(wait_until(!balloon_mb(), SECONDS));
}

TEST_F_TIMEOUT(balloon, deflate_on_oom, BLOCK_SECONDS)
{
	long mb = meminfo_mb("MemFree:") - LEFT_MB;
	long reclaims, deflated;
	int status;

	if (events_start(RECLAIM))
		SKIP(return, NO_EVENTS);
	if (mb < NEEDED_MB + LEFT_MB)
		SKIP(return, "a guest with less than %ld MiB", NEEDED_MB + 2 * LEFT_MB);
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %ldM", self->ram_mb - mb));
	ASSERT_TRUE(wait_until(balloon_mb() == mb, SECONDS));
	if (meminfo_mb("MemTotal:") != self->total_mb)
		SKIP(return, "a balloon without deflate-on-oom");

	mb = meminfo_mb("MemFree:") + NEEDED_MB;
	deflated = balloon_mb();
	ASSERT_EQ(0, events_clear());
	self->user = user_start(mb, false);
	ASSERT_LT(0, self->user);
	ASSERT_EQ(self->user, waitpid(self->user, &status, 0));
	self->user = 0;
	reclaims = events();
	deflated -= balloon_mb();
	events_stop();
	printf("# %ld MiB: %ld times direct reclaim, %ld MiB deflated, %s\n", NEEDED_MB,
	       reclaims, deflated, status ? "killed" : "not killed");
	EXPECT_EQ(0, status);
	EXPECT_GE(RECLAIMS_MAX, reclaims);
	/* At most as much again as was needed, and what the kernel keeps free */
	EXPECT_GE(2 * NEEDED_MB + LEFT_MB, deflated);
}

TEST_F_TIMEOUT(balloon, migrate_to_another_node, BLOCK_SECONDS)
{
	long mb, page_mb = MIB / getpagesize(), near, far;
	struct dimm dimm = { .id = "balloon" };
	char policy[32];
	int b;

	if (access("/sys/devices/system/node/node1", F_OK))
		SKIP(return, "a guest of one node");

	/* Fill node 0, so that pages of the balloon come from the DIMM on node 1. */
	ASSERT_EQ(0, auto_online_set("online_movable", policy, sizeof(policy)));
	b = blocks_present(NULL);
	dimm.count = NODE_DIMM_MB * MIB / block_bytes();
	ASSERT_EQ(0, host_request(NULL, 0, "add dimm %s %ldM 1", dimm.id, NODE_DIMM_MB));
	ASSERT_EQ(0, wait_for_blocks(b + dimm.count, SECONDS));
	mb = (read_field("/sys/devices/system/node/node0/meminfo", "MemFree:") >> 10);
	self->user = user_start(mb - LEFT_MB, true);
	ASSERT_LT(0, self->user);
	ASSERT_TRUE(wait_until(read_field("/sys/devices/system/node/node0/meminfo", "MemFree:") >>
			       10 < LEFT_MB + 10, SECONDS));
	mb = LEFT_MB + NODE_HELD_MB;
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %ldM",
				  self->ram_mb + NODE_DIMM_MB - mb));
	ASSERT_TRUE(wait_until(balloon_mb() == mb, SECONDS));
	child_end(&self->user);
	EXPECT_TRUE(wait_until(node_balloon_pages(0) + node_balloon_pages(1) == mb * page_mb,
			       SETTLE_SECONDS));
	near = node_balloon_pages(0);
	far = node_balloon_pages(1);
	ASSERT_LT(16 * page_mb, far);

	/* Without the DIMM, node 1 has only what it had from the boot. */
	ASSERT_EQ(0, host_request(NULL, 0, "del %s", dimm.id));
	TH_LOG("pages of the balloon: %ld and %ld, without the DIMM %ld and %ld", near, far,
	       node_balloon_pages(0), node_balloon_pages(1));
	EXPECT_TRUE(wait_until(node_balloon_pages(0) + node_balloon_pages(1) == near + far,
			       SETTLE_SECONDS));
	EXPECT_LT(near, node_balloon_pages(0));

	ASSERT_EQ(0, host_request(NULL, 0, "balloon 64G"));
	ASSERT_TRUE(wait_until(!balloon_mb(), SECONDS));
	EXPECT_TRUE(wait_until(!node_balloon_pages(0) && !node_balloon_pages(1),
			       SETTLE_SECONDS))
		TH_LOG("deflated: %ld and %ld pages", node_balloon_pages(0),
		       node_balloon_pages(1));
	EXPECT_EQ(0, auto_online_set(policy, NULL, 0));
}

TEST_HARNESS_MAIN
