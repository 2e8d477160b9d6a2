// SPDX-License-Identifier: GPL-2.0
/*
 * What zones keep in reserve follows from how much memory there is, whoever
 * computed it last: here a sysctl, or memory that went online meanwhile.
 */
#include <sched.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define RATIOS		"/proc/sys/vm/lowmem_reserve_ratio"
#define DIMM_BYTES	(1UL << 30)
#define ROUNDS		5
#define HOLD_SECONDS	600
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

/* How many are not what managed pages and ratios make of them; says the first. */
static int reserves_differ(const char *ratios)
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
			if (reserve[i][j] != want && !differ++)
				printf("# zone %s keeps %lu pages from those who may use zone %s, not %lu\n",
				       zones[i].name, reserve[i][j], zones[j].name, want);
		}
	}
	return differ;
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
	pid_t pid;
};

FIXTURE_SETUP(reserves)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (cpus_online() < 2)
		SKIP(return, "two CPUs are needed");
	if (!access("/sys/kernel/realtime", F_OK))
		SKIP(return, "needs a kernel without PREEMPT_RT: there a lock waits for the writer");
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
		ASSERT_EQ(0, block_set(block, "online_kernel"));
		ASSERT_FALSE(self->writer->done);
		ASSERT_TRUE(self->writer->held);
		self->writer->held = false;
		ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
		self->pid = 0;
		ASSERT_EQ(0, status);
		close(self->pipe);
		self->pipe = -1;
		ASSERT_EQ(0, reserves_differ(self->ratios))
			TH_LOG("round %d", n);

		/* The kernel may have found use for the block. */
		if (block_set_within(block, "offline", 1))
			ASSERT_GT(self->dimm.first + self->dimm.count, ++block);
	}
}

TEST_HARNESS_MAIN
