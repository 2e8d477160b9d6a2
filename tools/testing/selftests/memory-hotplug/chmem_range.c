// SPDX-License-Identifier: GPL-2.0
/*
 * chmem(8) changes exactly the blocks it is told to, by size, address or
 * number, says so when it cannot, and lsmem(1) sees the same.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(1024UL << 20)
#define PIPES		40
#define PARTIAL		64	/* exit status of chmem */
#define TIMEOUT		3600	/* as for BLOCK_SECONDS */

/* What there is, and how it should be. */
static bool present[MAX_BLOCKS], online[MAX_BLOCKS];

FIXTURE(chmem)
{
	struct dimm dimm;
	char policy[32];
};

FIXTURE_SETUP(chmem)
{
	int b;

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (system("command -v chmem lsmem >/dev/null"))
		SKIP(return, "no chmem or lsmem: install util-linux");
	/* chmem -e SIZE would take other blocks that are offline. */
	blocks_present(present);
	for (b = 0; b < MAX_BLOCKS; b++) {
		if (present[b] && block_online(b) != 1)
			SKIP(return, "memory%d is offline: online all blocks", b);
	}
	snprintf(self->dimm.id, sizeof(self->dimm.id), "m%d", getpid());
	ASSERT_EQ(0, auto_online_set("offline", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	ASSERT_LE(6, self->dimm.count);
	blocks_present(present);
	memset(online, true, sizeof(online));
	for_each_block(b, &self->dimm)
		online[b] = false;
}

FIXTURE_TEARDOWN(chmem)
{
	if (dimm_unplug(&self->dimm))
		TH_LOG("%s stays plugged", self->dimm.id);
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/*
 * A process leaves kernel memory behind (its stack is kept for the next one)
 * that would be in the way of taking a kernel block offline.  So start it
 * before there is one, it then waits at the gate.
 */
static pid_t chmem_start(int *gate, const char *action, const char *what,
			 const char *blocks)
{
	char go;
	int fds[2];
	pid_t pid;

	if (pipe(fds))
		return -1;
	pid = fork();
	if (!pid) {
		close(fds[1]);
		if (read(fds[0], &go, 1) != 1)
			_exit(127);
		/* TAP is for the test. */
		dup2(STDERR_FILENO, STDOUT_FILENO);
		alarm(BLOCK_SECONDS);
		execlp("chmem", "chmem", action, what, blocks, NULL);
		_exit(127);
	}
	close(fds[0]);
	*gate = fds[1];
	return pid;
}

/* The exit status, or 128 and the signal. */
static int chmem_finish(pid_t pid, int gate)
{
	int status;

	if (write(gate, "", 1) != 1 || waitpid(pid, &status, 0) != pid)
		return -errno;
	close(gate);
	return WIFEXITED(status) ? WEXITSTATUS(status) :
				   128 + WTERMSIG(status);
}

static int chmem(const char *action, const char *what, const char *blocks)
{
	int gate;
	pid_t pid = chmem_start(&gate, action, what, blocks);

	return pid < 0 ? -errno : chmem_finish(pid, gate);
}

static char *range(int first, int last)
{
	static char text[64];

	snprintf(text, sizeof(text), "%#018lx-%#018lx", first * block_bytes(),
		 (last + 1) * block_bytes() - 1);
	return text;
}

static char *numbers(int first, int last)
{
	static char text[32];

	snprintf(text, sizeof(text), "%d-%d", first, last);
	return text;
}

static char *size(int blocks)
{
	static char text[32];

	snprintf(text, sizeof(text), "%lum", blocks * block_bytes() >> 20);
	return text;
}

/* How many blocks are not as online[] says, in sysfs or in lsmem. */
static int wrong(void)
{
	FILE *f = popen("lsmem -a -n -r -o BLOCK,STATE", "r");
	int b, bad = 0, seen = 0;
	char line[64], state[32];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%d %31s", &b, state) != 2)
			continue;
		seen++;
		if (b < 0 || b >= MAX_BLOCKS || !present[b] ||
		    strcmp(state, online[b] ? "online" : "offline")) {
			fprintf(stderr, "# lsmem: %s", line);
			bad++;
		}
	}
	if (!f || pclose(f) || seen != blocks_present(NULL)) {
		fprintf(stderr, "# lsmem: %d blocks\n", seen);
		bad++;
	}
	for (b = 0; b < MAX_BLOCKS; b++) {
		if (present[b] && block_online(b) != online[b]) {
			fprintf(stderr, "# memory%d: should be %sline\n", b,
				online[b] ? "on" : "off");
			bad++;
		}
	}
	return bad;
}

static int wrong_after(int first, int last, bool to)
{
	memset(&online[first], to, last - first + 1);
	return wrong();
}

TEST_F_TIMEOUT(chmem, numbers, TIMEOUT)
{
	int b = self->dimm.first;

	EXPECT_EQ(0, chmem("-e", numbers(b + 1, b + 3), "-b"));
	EXPECT_EQ(0, wrong_after(b + 1, b + 3, true));
	EXPECT_EQ(0, chmem("-d", numbers(b + 2, b + 2), "-b"));
	EXPECT_EQ(0, wrong_after(b + 2, b + 2, false));
}

TEST_F_TIMEOUT(chmem, addresses, TIMEOUT)
{
	int b = self->dimm.first;

	EXPECT_EQ(0, chmem("-e", range(b + 2, b + 5), NULL));
	EXPECT_EQ(0, wrong_after(b + 2, b + 5, true));
	EXPECT_EQ(0, chmem("-d", range(b + 3, b + 4), NULL));
	EXPECT_EQ(0, wrong_after(b + 3, b + 4, false));
}

/* Lowest numbers first to go online, highest first to go offline */
TEST_F_TIMEOUT(chmem, sizes, TIMEOUT)
{
	int b = self->dimm.first;

	EXPECT_EQ(0, chmem("-e", size(4), NULL));
	EXPECT_EQ(0, wrong_after(b, b + 3, true));
	EXPECT_EQ(0, chmem("-d", size(2), NULL));
	EXPECT_EQ(0, wrong_after(b + 2, b + 3, false));
	/* More than there is: as much as there is */
	EXPECT_EQ(PARTIAL, chmem("-e", size(self->dimm.count), NULL));
	EXPECT_EQ(0, wrong_after(b, b + self->dimm.count - 1, true));
}

TEST_F_TIMEOUT(chmem, busy, TIMEOUT)
{
	int b = self->dimm.first, gate[2], pipes[PIPES][2];
	struct counters c;
	pid_t pid[2];

	ASSERT_EQ(0, counters_read(NODE, &c));
	if (zone_find(&c, "Normal")->present)
		SKIP(return, "zone Normal has memory from boot: give the guest at most 2G");
	pid[0] = chmem_start(&gate[0], "-d", range(b, b), NULL);
	pid[1] = chmem_start(&gate[1], "-d", numbers(b, b + 1), "-b");
	ASSERT_EQ(0, pipes_open(pipes, PIPES));
	ASSERT_EQ(0, block_set(b, "online_kernel"));
	ASSERT_EQ(0, block_set(b + 1, "online_movable"));
	ASSERT_LE(PIPES * 256, pipes_fill(pipes, PIPES));

	EXPECT_EQ(EXIT_FAILURE, chmem_finish(pid[0], gate[0]));
	EXPECT_EQ(1, block_online(b));
	EXPECT_EQ(1, block_online(b + 1));
	EXPECT_EQ(PARTIAL, chmem_finish(pid[1], gate[1]));
	EXPECT_EQ(1, block_online(b));
	EXPECT_EQ(0, block_online(b + 1));

	pipes_close(pipes, PIPES);
	/* Other kernel memory may have come to the block and stay. */
	online[b] = block_offline_retry(b, 20) != 0;
	EXPECT_EQ(0, wrong());
}

TEST_HARNESS_MAIN
