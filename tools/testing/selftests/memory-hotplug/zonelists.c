// SPDX-License-Identifier: GPL-2.0
/*
 * Zonelists are rebuilt when a zone gets its first memory or loses its last. An
 * allocation that has begun before takes no page that it may not take. An ordinary
 * kernel rebuilds them in the middle of one only by chance, so this proves something on
 * a kernel that delays the allocations of tasks called delay-search and delay-zone.
 */
#include <sys/prctl.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define DIMM_BYTES	(256UL << 20)
#define TIMEOUT		BLOCK_SECONDS
#define OFFLINE_SECONDS	40
#define ROUNDS		4
/* Several allocations, even of 20 ms each */
#define A_WHILE_US	200000
/* Pages for all rounds */
#define PIPES		64

FIXTURE(zonelists)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	int b, kmsg;
};

FIXTURE_SETUP(zonelists)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "z", DIMM_BYTES, self->policy,
				 sizeof(self->policy), &self->base));
	self->b = self->dimm.first;
	self->kmsg = kmsg_open();
	ASSERT_LE(0, self->kmsg);
	ASSERT_EQ(0UL, zone_find(&self->base, "Movable")->present);
}

FIXTURE_TEARDOWN(zonelists)
{
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
	EXPECT_FALSE(kmsg_trouble(self->kmsg));
}

/* Allocates unmovable pages one by one, and keeps most of them, until it is killed. */
static pid_t allocate(const char *name)
{
	int pipes[PIPES][2], i;
	char page[4096];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (pipes_open(pipes, PIPES))
		_exit(1);
	prctl(PR_SET_NAME, name);
	for (i = 0;; i = (i + 1) % PIPES) {
		pipes_fill(pipes, PIPES);
		while (read(pipes[i][0], page, sizeof(page)) > 0)
			;
	}
}

/* False if it has ended by itself. */
static bool end(pid_t pid)
{
	int status;

	/* A fault in the kernel ends it with SIGKILL as well. */
	if (waitpid(pid, &status, WNOHANG))
		return false;
	kill(pid, SIGKILL);
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	       WTERMSIG(status) == SIGKILL;
}

/* Unmovable pages stay out of a zone that appears. */
TEST_F_TIMEOUT(zonelists, appears, TIMEOUT)
{
	pid_t pid = allocate("delay-search");
	int round, err = 0;

	ASSERT_LT(0, pid);
	for (round = 0; round < ROUNDS && !err; round++) {
		usleep(A_WHILE_US);
		EXPECT_EQ(0, block_set(self->b, "online_movable"));
		usleep(A_WHILE_US);
		kill(pid, SIGSTOP);
		usleep(A_WHILE_US);
		err = block_set_within(self->b, "offline", OFFLINE_SECONDS);
		kill(pid, SIGCONT);
	}
	EXPECT_TRUE(end(pid));
	if (err == -EBUSY || err == -EINTR)
		TH_LOG("an unmovable page is in ZONE_MOVABLE, round %d", round);
	ASSERT_EQ(0, err);
}

/* An allocation goes on when the first zone of its zonelist goes away. */
TEST_F_TIMEOUT(zonelists, goes, TIMEOUT)
{
	int round;
	pid_t pid;

	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, block_set(self->b, "online_movable"));
		pid = allocate("delay-zone");
		ASSERT_LT(0, pid);
		usleep(A_WHILE_US);
		EXPECT_EQ(0, block_set_within(self->b, "offline", OFFLINE_SECONDS));
		usleep(A_WHILE_US);
		ASSERT_TRUE(end(pid));
	}
}

TEST_HARNESS_MAIN
