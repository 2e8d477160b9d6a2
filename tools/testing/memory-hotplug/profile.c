// SPDX-License-Identifier: GPL-2.0
/*
 * profile OPERATION GIB: operations on so much memory for scripts/profile, each between
 * two marks. Prints the name of each. The caches that the plugin models have none of
 * what an operation uses when it begins, so a line that it touches misses at least once.
 *
 *	profile blocks GIB	online and offline a block, empty or in use
 *	profile device GIB	device_add and device_del of a DIMM, online_movable
 *	profile virtio-mem GIB	plug and unplug, online_movable
 *	profile balloon GIB	inflate and deflate a balloon
 *	profile run COMMAND	whatever COMMAND does, and the shell for it
 */
#include <err.h>
#include <sys/sysinfo.h>

#include "memhp.h"

#define EVICT_BYTES	(96UL << 20)
#define FILL_BYTES	(64UL << 20)

static char *evict;

static void begin(void)
{
	memset(evict, 1, EVICT_BYTES);
	profile_mark();
}

static void end(const char *name)
{
	profile_mark();
	printf("%s\n", name);
}

static void must(const char *what, int err)
{
	if (err)
		errx(1, "%s: %s", what, strerror(-err));
}

/* Next to nothing compared with reading /proc/meminfo, as it is counted. */
static long total_mib(void)
{
	struct sysinfo info;

	sysinfo(&info);
	return info.totalram * info.mem_unit >> 20;
}

static void wait_for_total(long mib)
{
	while (total_mib() != mib)
		usleep(100000);
	/* What comes after it */
	usleep(500000);
}

static void change_total(const char *name, long change_mib, const char *request)
{
	long before = total_mib();

	begin();
	must(request, host_request(NULL, 0, "%s", request));
	wait_for_total(before + change_mib);
	end(name);
}

static void set_block(const char *name, int block, const char *state)
{
	begin();
	must(state, block_set(block, state));
	end(name);
}

/* ZONE_MOVABLE is used first. */
static void fill(int block)
{
	char *p = mmap(NULL, FILL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || madvise(p, FILL_BYTES, MADV_NOHUGEPAGE))
		err(1, "mmap");
	memset(p, 1, FILL_BYTES);
	if (block_of(p) != block || block_of(p + FILL_BYTES - 1) != block)
		errx(1, "the memory in use is not in memory%d", block);
}

/* In ZONE_MOVABLE; the first block of the DIMM is the first one there. */
static void blocks(unsigned long gib)
{
	struct dimm dimm = { .id = "profile" };
	int b;

	must("DIMM", dimm_plug(&dimm, gib << 30));
	b = dimm.first;
	must("online", block_set(b, "online_movable"));
	must("offline", block_set(b, "offline"));
	set_block("online the first block", b, "online_movable");
	set_block("online another block", b + 1, "online_movable");
	set_block("offline an empty block", b + 1, "offline");
	set_block("offline the last block", b, "offline");
	must("online", block_set(b, "online_movable"));
	fill(b);
	set_block("offline a block with 64 MiB in use", b, "offline");
}

int main(int argc, char **argv)
{
	unsigned long gib = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
	char request[64];
	long mib = gib << 10;

	evict = memory_map(EVICT_BYTES);
	if (argc != 3 || !evict)
		errx(2, "usage: profile blocks|device|virtio-mem|balloon GIB, or run COMMAND");
	memset(evict, 1, EVICT_BYTES);
	setlinebuf(stdout);
	must("policy", auto_online_set(strcmp(argv[1], "blocks") ? "online_movable" : "offline",
				       NULL, 0));
	if (!strcmp(argv[1], "blocks")) {
		blocks(gib);
	} else if (!strcmp(argv[1], "device")) {
		snprintf(request, sizeof(request), "add dimm profile %luG", gib);
		change_total("device_add", mib, request);
		change_total("device_del", -mib, "del profile");
	} else if (!strcmp(argv[1], "virtio-mem")) {
		must("device", host_request(NULL, 0, "add virtio-mem vm0 %luG", gib));
		snprintf(request, sizeof(request), "resize vm0 %luG", gib);
		change_total("virtio-mem plug", mib, request);
		change_total("virtio-mem unplug", -mib, "resize vm0 0");
	} else if (!strcmp(argv[1], "balloon")) {
		snprintf(request, sizeof(request), "balloon %luG", 4 - gib);
		change_total("balloon inflate", -mib, request);
		change_total("balloon deflate", mib, "balloon 4G");
	} else {
		begin();
		must("command", system(argv[2]) ? -EIO : 0);
		end(argv[2]);
	}
	return 0;
}
