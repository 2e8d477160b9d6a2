// SPDX-License-Identifier: GPL-2.0
/*
 * Readers of the counters of memory see nothing impossible while blocks come and
 * go and a balloon breathes: no zone with more managed than present or more
 * present than spanned pages, none that ends where it never ended, no more free
 * or available memory than memory. And in the end all of it is what it was.
 */
#include <limits.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(512UL << 20)
#define RAM_MB		2048UL	/* of scripts/vm */
#define BALLOON_MB	64L	/* the debug kernel migrates its pages slowly */
#define GROWN_MB	(RAM_MB + (DIMM_BYTES >> 20) - BALLOON_MB)
#define READ_ONCE(x)	(*(const volatile __typeof__(x) *)&(x))
#define READERS		2
#define STEPS		"300"

/* What can be wrong, each counted by itself. */
enum { ZONE, FREE, AVAILABLE, USED, SYSFS, KINDS };

/* What readers report, in memory that they share with the test. */
struct report {
	unsigned long reads, wrong[KINDS];
	long least_kb;		/* MemTotal at its lowest */
	char first[KINDS][256];
};

static __printf(3, 4) void wrong(struct report *r, int kind, const char *fmt, ...)
{
	va_list ap;

	if (r->wrong[kind]++)
		return;
	va_start(ap, fmt);
	vsnprintf(r->first[kind], sizeof(r->first[kind]), fmt, ap);
	va_end(ap);
}

/* @end_pfn: where the movable zone ends as long as it has any memory. */
static void check_zones(struct report *r, unsigned long end_pfn)
{
	struct zone zones[MAX_ZONES], *z;
	int nr = zones_read(NODE, zones);

	if (nr < 0)
		wrong(r, ZONE, "/proc/zoneinfo cannot be read");
	for (z = zones; z < zones + nr; z++) {
		if (z->managed > z->present || z->present > z->spanned)
			wrong(r, ZONE, "zone %s: %lu managed, %lu present, %lu spanned",
			      z->name, z->managed, z->present, z->spanned);
		if (!strcmp(z->name, "Movable") && z->start_pfn + z->spanned != end_pfn)
			wrong(r, ZONE, "zone %s: starts at %lu, spans %lu, and ends at %lu, not %lu",
			      z->name, z->start_pfn, z->spanned,
			      z->start_pfn + z->spanned, end_pfn);
	}
}

/* @field comes after MemTotal and is part of it. */
static void check_meminfo(struct report *r, int kind, const char *path, const char *field)
{
	char line[256], *at;
	long total = 0, kb = -1;
	FILE *f = fopen(path, "r");

	while (f && kb < 0 && fgets(line, sizeof(line), f)) {
		at = strstr(line, "MemTotal:");
		if (at)
			total = strtol(at + strlen("MemTotal:"), NULL, 10);
		at = strstr(line, field);
		if (at)
			kb = strtol(at + strlen(field), NULL, 10);
		if (at && (kb < 0 || kb > total))
			wrong(r, kind, "%s: %s %ld kB of %ld kB", path, field, kb, total);
	}
	if (kb < 0)
		wrong(r, kind, "%s: no %s", path, field);
	if (f)
		fclose(f);
	if (total < r->least_kb)
		r->least_kb = total;
}

static void check_sysfs(struct report *r, const struct dimm *d)
{
	char text[64];
	int b;

	for_each_block(b, d) {
		if (block_read(b, "state", text, sizeof(text)) ||
		    (strcmp(text, "online") && strcmp(text, "offline") &&
		     strcmp(text, "going-offline")))
			wrong(r, SYSFS, "memory%d: state is %s", b, text);
		if (block_read(b, "valid_zones", text, sizeof(text)) || !text[0])
			wrong(r, SYSFS, "memory%d: no valid_zones", b);
	}
}

static void reader(struct report *r, const struct dimm *d)
{
	unsigned long end_pfn = (d->first + d->count) * block_pages();

	for (r->least_kb = LONG_MAX;; r->reads++) {
		check_zones(r, end_pfn);
		check_meminfo(r, FREE, "/proc/meminfo", "MemFree:");
		check_meminfo(r, AVAILABLE, "/proc/meminfo", "MemAvailable:");
		check_meminfo(r, USED, "/sys/devices/system/node/node0/meminfo", "MemUsed:");
		if (r->reads % 16 == 0)
			check_sysfs(r, d);
	}
}

FIXTURE(readers)
{
	struct dimm dimm;
	struct counters base;
	struct report *report;
	pid_t pid[READERS];
	char policy[32];
};

FIXTURE_SETUP(readers)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	snprintf(self->dimm.id, sizeof(self->dimm.id), "r%d", getpid());
	self->report = mmap(NULL, READERS * sizeof(*self->report), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->report);
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	if (zone_find(&self->base, "Movable")->spanned)
		SKIP(return, "zone Movable has memory from boot: no movablecore");
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
	/* The last block stays, so that only the start of the zone moves. */
	ASSERT_EQ(0, block_set(self->dimm.first + self->dimm.count - 1, "online_movable"));
	ASSERT_EQ(0, counters_read(NODE, &self->base));
}

FIXTURE_TEARDOWN(readers)
{
	int i;

	for (i = 0; i < READERS; i++) {
		if (self->pid[i] > 0) {
			kill(self->pid[i], SIGKILL);
			waitpid(self->pid[i], NULL, 0);
		}
	}
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

TEST_F_TIMEOUT(readers, possible, BLOCK_SECONDS)
{
	int i, n, b, kind, status, steps = atoi(getenv("STEPS") ?: STEPS);
	long kb_balloon = BALLOON_MB << 9, total_kb = self->base.total * (getpagesize() / 1024);
	struct dimm *d = &self->dimm;
	unsigned long reads = 0;
	struct counters c;

	for (i = 0; i < READERS; i++) {
		self->pid[i] = fork();
		ASSERT_LE(0, self->pid[i]);
		if (!self->pid[i])
			reader(&self->report[i], d);
	}
	for (n = 0; n < steps || reads <= 4UL * steps; n++) {
		/* The driver works on it while blocks come and go. */
		if (n % 20 == 0)
			ASSERT_EQ(0, host_request(NULL, 0, "balloon %luM", n % 40 ? 65536 :
						  GROWN_MB));
		for (b = d->first + d->count - 2; b >= d->first; b--)
			ASSERT_EQ(0, block_set(b, "online_movable"));
		for (b = d->first; b < d->first + d->count - 1; b++)
			ASSERT_EQ(0, block_set(b, "offline"));
		for (i = 0, reads = 0; i < READERS; i++)
			reads += READ_ONCE(self->report[i].reads);
	}
	/* However slow it grows, readers get to see it. */
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %luM", GROWN_MB));
	for (i = 0; i < READERS; i++)
		ASSERT_TRUE(wait_until(READ_ONCE(self->report[i].least_kb) <
				       total_kb - kb_balloon, BLOCK_SECONDS))
			TH_LOG("the balloon does not grow: MemTotal stays at %ld kB",
			       self->report[i].least_kb);
	ASSERT_EQ(0, host_request(NULL, 0, "balloon 64G"));
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       c.total == self->base.total, BLOCK_SECONDS));
	EXPECT_EQ(0, counters_differ(&self->base, &c));

	for (i = 0; i < READERS; i++) {
		struct report *r = &self->report[i];

		EXPECT_EQ(0, waitpid(self->pid[i], &status, WNOHANG))
			TH_LOG("reader %d ended: %d", i, status);
		kill(self->pid[i], SIGKILL);
		waitpid(self->pid[i], NULL, 0);
		self->pid[i] = 0;
		EXPECT_LT(0UL, r->reads);
		for (kind = 0; kind < KINDS; kind++) {
			EXPECT_EQ(0UL, r->wrong[kind])
				TH_LOG("%lu times in %lu: %s", r->wrong[kind], r->reads,
				       r->first[kind]);
		}
	}
	TH_LOG("%d steps, %lu reads", n, reads);
}

TEST_HARNESS_MAIN
