// SPDX-License-Identifier: GPL-2.0
/*
 * A kdump image that is loaded describes the memory that is there, no more and no
 * less. Load one first; its elfcorehdr is at the start of the memory for it.
 */
#include <elf.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define MAX_RANGES	64
/* Below are boot memory, and holes that only the kernel knows. */
#define FIRST		(4UL << 30)

struct ranges {
	unsigned long start[MAX_RANGES], end[MAX_RANGES];
	int nr;
};

/* Adjacent ranges are one: resources may be merged or not. */
static void range_add(struct ranges *r, unsigned long start, unsigned long end)
{
	if (start < FIRST)
		return;
	if (r->nr && r->end[r->nr - 1] == start)
		r->end[r->nr - 1] = end;
	else if (r->nr < MAX_RANGES) {
		r->start[r->nr] = start;
		r->end[r->nr++] = end;
	}
}

/* What /proc/iomem has */
static int ranges_there(struct ranges *r)
{
	FILE *f = fopen("/proc/iomem", "r");
	unsigned long start, last;
	char line[256], name[16];

	if (!f)
		return complain("/proc/iomem", -errno);
	r->nr = 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " %lx-%lx : %10[^(\n]", &start, &last, name) == 3 &&
		    !strncmp(name, "System RAM", 10))
			range_add(r, start, last + 1);
	fclose(f);
	return 0;
}

/* Where in /proc/kcore physical memory is */
static off_t kcore_offset(int fd, unsigned long at)
{
	Elf64_Phdr segment;
	Elf64_Ehdr header;
	int i;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		return 0;
	for (i = 0; i < header.e_phnum; i++)
		if (pread(fd, &segment, sizeof(segment), header.e_phoff +
			  i * sizeof(segment)) == sizeof(segment) &&
		    segment.p_type == PT_LOAD && segment.p_paddr <= at &&
		    at - segment.p_paddr < segment.p_memsz)
			return segment.p_offset + at - segment.p_paddr;
	return 0;
}

/* What the crash kernel would get */
static int ranges_described(unsigned long at, struct ranges *r)
{
	int fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC), i;
	off_t offset = kcore_offset(fd, at);
	Elf64_Phdr segment;
	Elf64_Ehdr header;

	r->nr = 0;
	if (!offset || pread(fd, &header, sizeof(header), offset) != sizeof(header) ||
	    memcmp(header.e_ident, ELFMAG, SELFMAG)) {
		close(fd);
		return complain("no elfcorehdr in /proc/kcore", -EIO);
	}
	for (i = 0; i < header.e_phnum; i++) {
		if (pread(fd, &segment, sizeof(segment), offset + header.e_phoff +
			  i * sizeof(segment)) != sizeof(segment))
			break;
		if (segment.p_type == PT_LOAD)
			range_add(r, segment.p_paddr, segment.p_paddr + segment.p_memsz);
	}
	close(fd);
	return i < header.e_phnum ? complain("elfcorehdr", -EIO) : 0;
}

#define expect_described(count) ({						\
	struct ranges __there, __described;					\
	int __i;								\
										\
	ASSERT_EQ(0, ranges_there(&__there));					\
	ASSERT_EQ(0, ranges_described(self->start, &__described));		\
	EXPECT_EQ(count, __there.nr);						\
	EXPECT_EQ(__there.nr, __described.nr);					\
	for (__i = 0; __i < __there.nr && __i < __described.nr; __i++) {	\
		EXPECT_EQ(__there.start[__i], __described.start[__i]);		\
		EXPECT_EQ(__there.end[__i], __described.end[__i]);		\
	}									\
})

FIXTURE(crash_memory)
{
	char policy[32];
	struct counters base;
	unsigned long start;
};

FIXTURE_SETUP(crash_memory)
{
	char loaded[8];

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	self->start = crash_kernel();
	if (!self->start)
		SKIP(return, "no memory for a crash kernel: boot with crashkernel=32M");
	ASSERT_EQ(0, read_line("/sys/kernel/kexec_crash_loaded", loaded, sizeof(loaded)));
	ASSERT_STREQ("1", loaded) TH_LOG("run it by kdump_load");
	ASSERT_EQ(0, auto_online_set("online_movable", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, counters_read(NODE, &self->base));
}

FIXTURE_TEARDOWN(crash_memory)
{
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/* A DIMM that is offline, one that is online, and neither of them */
TEST_F_TIMEOUT(crash_memory, dimm, BLOCK_SECONDS)
{
	struct dimm dimm[2] = { { .id = "" }, { .id = "" } };
	struct counters c;

	snprintf(dimm[0].id, sizeof(dimm[0].id), "d%d", getpid());
	snprintf(dimm[1].id, sizeof(dimm[1].id), "e%d", getpid());
	ASSERT_EQ(0, auto_online_set("offline", NULL, 0));
	ASSERT_EQ(0, dimm_plug(&dimm[0], 2 * block_bytes()));
	expect_described(1);
	ASSERT_EQ(0, auto_online_set("online_movable", NULL, 0));
	ASSERT_EQ(0, dimm_plug(&dimm[1], 2 * block_bytes()));
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       c.total > self->base.total, BLOCK_SECONDS));
	expect_described(1);
	ASSERT_EQ(0, dimm_unplug(&dimm[0]));
	expect_described(1);
	ASSERT_EQ(0, dimm_unplug(&dimm[1]));
	expect_described(0);
}

TEST_HARNESS_MAIN
