// SPDX-License-Identifier: GPL-2.0
/*
 * What zones keep in reserve follows from how much memory there is, whatever
 * computed it last: here a sysctl, or memory that went online meanwhile. And it
 * follows soon when a balloon changes how much memory there is.
 */
#include <sched.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define RATIOS		"/proc/sys/vm/lowmem_reserve_ratio"
#define DIMM_BYTES	(1UL << 30)
#define ROUNDS		5
#define HOLD_SECONDS	600
#define SETTLE_SECONDS	60	/* the kernel takes a tenth of a second */
#define BALLOON_MB	256L
#define EVENT		"kmem/mm_setup_per_zone_lowmem_reserve"

/* The reserves of node 0, a zone a line, as /proc/zoneinfo prints them. */
static int reserves_read(unsigned long reserve[MAX_ZONES][MAX_ZONES])
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	char line[256], *at;
	int zone = -1, node = -1, i;

	if (!f)
		return complain("/proc/zoneinfo", -errno);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone", &node) == 1)
			zone++;
		at = strchr(line, '(');
		if (node != NODE || zone >= MAX_ZONES || !at || !strstr(line, "protection: "))
			continue;
		for (i = 0; i < MAX_ZONES && (*at == '(' || *at == ','); i++)
			reserve[zone][i] = strtoul(at + 1, &at, 10);
	}
	fclose(f);
	return zone < 0 ? -ENOENT : 0;
}

/* How many are not what managed pages and ratios make of them. */
static int reserves_differ(const char *ratios, bool say)
{
	unsigned long reserve[MAX_ZONES][MAX_ZONES] = {}, ratio, pages;
	struct zone zones[MAX_ZONES];
	int nr = zones_read(NODE, zones), i, j, differ = 0;
	char *at = (char *)ratios;

	if (nr < 0 || reserves_read(reserve))
		return -EIO;
	for (i = 0; i < nr - 1; i++) {
		ratio = strtoul(at, &at, 10);
		for (j = i + 1, pages = 0; j < nr; j++) {
			unsigned long want;

			pages += zones[j].managed;
			want = ratio && zones[i].managed ? pages / ratio : 0;
			if (reserve[i][j] != want && !differ++ && say)
				printf("# zone %s keeps %lu pages from those who may use zone %s, not %lu\n",
				       zones[i].name, reserve[i][j], zones[j].name, want);
		}
	}
	return differ;
}

/* They may be computed a little later; says the first that stays wrong. */
static int reserves_wrong(const char *ratios)
{
	return wait_until(!reserves_differ(ratios, false), SETTLE_SECONDS) ?
		0 : reserves_differ(ratios, true);
}

static unsigned long managed_pages(void)
{
	struct zone zones[MAX_ZONES];
	unsigned long pages = 0;
	int nr = zones_read(NODE, zones);

	while (nr-- > 0)
		pages += zones[nr].managed;
	return pages;
}

/* Waits for something that no signal ends, or has ended. */
static bool task_stuck_or_done(pid_t pid)
{
	char path[64], line[512], *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (read_line(path, line, sizeof(line)))
		return false;
	at = strrchr(line, ')');
	return at && (at[2] == 'D' || at[2] == 'Z');
}

FIXTURE(reserves)
{
	struct dimm dimm;
	char policy[32], ratios[128];
	/* Shared: the writer is kept from going on; it went on. */
	volatile struct {
		bool held, done;
	} *writer;
	int pipe;
	pid_t pid, onliner;
};

FIXTURE_SETUP(reserves)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (cpus_online() < 2)
		SKIP(return, "two CPUs are needed");
	self->writer = mmap(NULL, sizeof(*self->writer), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->writer);
	ASSERT_EQ(0, read_line(RATIOS, self->ratios, sizeof(self->ratios)));
	snprintf(self->dimm.id, sizeof(self->dimm.id), "s%d", getpid());
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	if (events_start(EVENT))
		SKIP(return, NO_EVENTS);
	/* Lower zones have been told of some zones above this one, but not of all. */
	ASSERT_EQ(0, write_line(TRACE_INSTANCE "/events/" EVENT "/filter",
				"upper_name == \"Normal\""));
}

FIXTURE_TEARDOWN(reserves)
{
	if (self->pid > 0) {
		kill(self->pid, SIGKILL);
		waitpid(self->pid, NULL, 0);
	}
	if (self->onliner > 0)
		waitpid(self->onliner, NULL, 0);
	if (self->pipe > 0)
		close(self->pipe);
	events_stop();
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

static void use_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static int use_priority(int priority)
{
	const struct sched_param param = { .sched_priority = priority };

	return sched_setscheduler(0, priority ? SCHED_FIFO : SCHED_OTHER, &param);
}

/*
 * Write the ratios that are there already, and keep whoever does that from
 * finishing: the first event wakes a task with a higher priority, which does not
 * leave the CPU until it is told to. Both are realtime tasks, as others get a
 * share of the CPU all the same. A kernel that cannot preempt shows nothing here.
 */
static int write_and_hold(FIXTURE_DATA(reserves) *self)
{
	char line[256];
	double end;
	pid_t pid;
	int status;

	use_cpu(0);
	if (use_priority(2))
		return 1;
	pid = fork();
	if (!pid) {
		status = use_priority(1) || write_line(RATIOS, self->ratios);
		self->writer->done = true;
		_exit(status);
	}
	if (pid < 0 || read(self->pipe, line, sizeof(line)) <= 0)
		return 2;
	self->writer->held = true;
	end = now() + HOLD_SECONDS;
	while (self->writer->held && now() < end)
		;
	self->writer->held = false;
	use_priority(0);
	return waitpid(pid, &status, 0) == pid && !status ? 0 : 3;
}

TEST_F_TIMEOUT(reserves, last_one_is_right, BLOCK_SECONDS)
{
	int n, status, block = self->dimm.first;
	unsigned long pages;

	use_cpu(1);
	for (n = 0; n < ROUNDS; n++) {
		ASSERT_EQ(0, events_clear());
		self->pipe = open(TRACE_INSTANCE "/trace_pipe", O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, self->pipe);
		self->writer->done = false;
		self->pid = fork();
		ASSERT_LE(0, self->pid);
		if (!self->pid)
			_exit(write_and_hold(self));
		ASSERT_TRUE(wait_until(self->writer->held, HOLD_SECONDS));
		pages = managed_pages();
		self->onliner = fork();
		ASSERT_LE(0, self->onliner);
		if (!self->onliner)
			_exit(!!block_set(block, "online_kernel"));
		/*
		 * The reserves come right after the managed pages: either they have
		 * been computed now, or that waits until the writer goes on.
		 */
		ASSERT_TRUE(wait_until(managed_pages() > pages, HOLD_SECONDS));
		ASSERT_TRUE(wait_until(task_stuck_or_done(self->onliner), HOLD_SECONDS));
		ASSERT_FALSE(self->writer->done);
		ASSERT_TRUE(self->writer->held);
		self->writer->held = false;
		ASSERT_EQ(self->onliner, waitpid(self->onliner, &status, 0));
		self->onliner = 0;
		ASSERT_EQ(0, status);
		ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
		self->pid = 0;
		ASSERT_EQ(0, status);
		close(self->pipe);
		self->pipe = -1;
		ASSERT_EQ(0, reserves_wrong(self->ratios))
			TH_LOG("round %d", n);

		/* The kernel may have found use for the block. */
		if (block_set_within(block, "offline", 1))
			ASSERT_GT(self->dimm.first + self->dimm.count, ++block);
	}
}

/*
 * The driver changes managed pages without taking memory on- or offline: those of
 * ZONE_NORMAL first, from which the reserve of the zone below follows.
 */
TEST_F_TIMEOUT(reserves, follow_the_balloon, BLOCK_SECONDS)
{
	unsigned long pages, ballooned = (BALLOON_MB << 20) / getpagesize();
	long ram_mb = blocks_present(NULL) * (long)(block_bytes() >> 20);
	int block;

	for_each_block(block, &self->dimm)
		ASSERT_EQ(0, block_set(block, "online_kernel"));
	pages = managed_pages();
	ASSERT_EQ(0, reserves_wrong(self->ratios));
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %ldM", ram_mb - BALLOON_MB));
	ASSERT_TRUE(wait_until(managed_pages() == pages - ballooned, BLOCK_SECONDS));
	EXPECT_EQ(0, reserves_wrong(self->ratios));
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %ldM", ram_mb));
	ASSERT_TRUE(wait_until(managed_pages() == pages, BLOCK_SECONDS));
	EXPECT_EQ(0, reserves_wrong(self->ratios));
}

TEST_HARNESS_MAIN
