// SPDX-License-Identifier: GPL-2.0
/*
 * MemTotal follows a virtio-mem device exactly, in steps as small as the
 * device's blocks, far below those of memory blocks.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define SIZE_MB		1024
#define SECONDS		BLOCK_SECONDS
#define HARD_OFFLINE	MEMORY_SYSFS "/hard_offline_page"
#define KPF_OFFLINE	23	/* of /proc/kpageflags */

FIXTURE(virtio_mem)
{
	char id[16], policy[32];
	struct counters base;
};

FIXTURE_SETUP(virtio_mem)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (access("/sys/bus/virtio/drivers/virtio_mem", F_OK))
		SKIP(return, "no driver: build with CONFIG_VIRTIO_MEM");
	snprintf(self->id, sizeof(self->id), "v%d", getpid());
	/* Movable, as only then unplugging is sure to find free memory. */
	ASSERT_EQ(0, auto_online_set("online_movable", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	ASSERT_EQ(0, host_request(NULL, 0, "add virtio-mem %s %uM 0", self->id,
				  SIZE_MB));
}

/* Ask for a size; all counters of pages that are in use have to follow. */
static void set_size(struct __test_metadata *_metadata, const char *id,
		     const struct counters *base, unsigned long mb)
{
	unsigned long pages = (mb << 20) / getpagesize();
	const struct zone *was, *is;
	struct counters c;
	char text[32];

	ASSERT_EQ(0, host_request(NULL, 0, "resize %s %luM", id, mb));
	ASSERT_TRUE(wait_until(!host_request(text, sizeof(text), "size %s", id) &&
			       strtoul(text, NULL, 10) == mb << 20, SECONDS))
		TH_LOG("plugged %s bytes, not %lu MiB, after %d s: no CONFIG_HOTPLUG_PCI_ACPI?",
		       text, mb, SECONDS);
	/* The device plugs first, then the kernel hands out the pages. */
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       c.total == base->total + pages, SECONDS))
		TH_LOG("MemTotal: %lu pages instead of %lu after %d s, %lu MiB plugged",
		       c.total, base->total + pages, SECONDS, mb);
	EXPECT_EQ(base->node_total + pages, c.node_total);
	was = zone_find(base, "Movable");
	is = zone_find(&c, "Movable");
	EXPECT_EQ(was->managed + pages, is->managed);
	/* Present are whole memory blocks, be they unplugged in part. */
	EXPECT_EQ(0UL, (is->present - was->present) % block_pages());
	EXPECT_LE(was->present + pages, is->present);
}

FIXTURE_TEARDOWN(virtio_mem)
{
	/* Not every QEMU can unplug the device: leave it, without memory. */
	EXPECT_EQ(0, host_request(NULL, 0, "resize %s 0", self->id));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

TEST_F_TIMEOUT(virtio_mem, resize, BLOCK_SECONDS)
{
	/* Whole memory blocks, parts of one, up, down, all of it and nothing */
	static const unsigned long mb[] = {
		256, 320, 322, 2, 130, 128, 512, SIZE_MB, 66, 0, 64, 0,
	};
	int blocks = blocks_present(NULL);
	struct counters c;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(mb); i++)
		set_size(_metadata, self->id, &self->base, mb[i]);
	ASSERT_EQ(0, wait_for_blocks(blocks, SECONDS));
	ASSERT_EQ(0, counters_read(NODE, &c));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
}

/* A page of @block that is unplugged */
static unsigned long unplugged_pfn(int block)
{
	unsigned long pfn = block * block_pages(), end = pfn + block_pages();
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long long flags = 0;

	while (pfn < end && !(flags >> KPF_OFFLINE & 1) &&
	       pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) == sizeof(flags))
		pfn++;
	close(fd);
	return flags >> KPF_OFFLINE & 1 ? pfn - 1 : 0;
}

/* A page that was unplugged when it turned bad does not count twice. */
TEST_F_TIMEOUT(virtio_mem, bad_page, 900)
{
	static bool map[MAX_BLOCKS];
	struct counters c;
	unsigned long pfn;
	char text[32];
	int block;

	if (access(HARD_OFFLINE, W_OK))
		SKIP(return, "no " HARD_OFFLINE ": build with CONFIG_MEMORY_FAILURE");
	set_size(_metadata, self->id, &self->base, 64);
	blocks_present(map);
	for (block = MAX_BLOCKS - 1; block && !map[block]; block--)
		;
	pfn = unplugged_pfn(block);
	ASSERT_NE(0UL, pfn);
	/* An error, as a page like this cannot be handled */
	snprintf(text, sizeof(text), "%#lx", pfn * getpagesize());
	write_line(HARD_OFFLINE, text);
	ASSERT_LT(0, read_field("/proc/meminfo", "HardwareCorrupted:"));
	set_size(_metadata, self->id, &self->base, 0);
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       zone_find(&c, "Movable")->present ==
			       zone_find(&self->base, "Movable")->present, SECONDS));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
}

TEST_HARNESS_MAIN
