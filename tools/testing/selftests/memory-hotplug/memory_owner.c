// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that a driver owns goes online as far as the driver backs it, and the
 * rest later, in whatever sizes; memory of others is no business of the driver.
 *
 * The driver is lib/test_memory_owner.c. It needs RAM that the kernel does not
 * use: boot with mem=2G where there are 3 GiB.
 */
#include <sys/syscall.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define MODULE		"/lib/modules/test_memory_owner.ko"
#define CONTROL		"/sys/kernel/debug/test_memory_owner/control"
#define STATE		"/sys/kernel/debug/test_memory_owner/state"
#define INJECT		"/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_ONLINE/error"
#define INJECT_OFFLINE	"/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_OFFLINE/error"
#define START		0x80000000UL
#define SIZE		0x20000000UL
#define HALF		(SIZE / 2)
#define SECONDS		60

/* What the driver says of one of its two owners. */
struct state {
	unsigned int going_online, online, cancel_online, offline, wrong;
};

static int load(void)
{
	char parameters[64];
	int err = 0, fd = open(MODULE, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(parameters, sizeof(parameters), "start=%lu size=%lu", START, SIZE);
	if (syscall(SYS_finit_module, fd, parameters, 0))
		err = -errno;
	close(fd);
	return err ? complain("cannot load " MODULE, err) : 0;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "test_memory_owner", O_NONBLOCK) ? -errno : 0;
}

static __printf(1, 2) int control(const char *fmt, ...)
{
	char line[80];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	return write_line(CONTROL, line);
}

static int state_read(int owner, struct state *s)
{
	FILE *f = fopen(STATE, "r");
	bool found = false;
	char line[256];
	struct state t;
	int id;

	if (!f)
		return complain(STATE, -errno);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%d going_online %u online %u cancel_online %u offline %u wrong %u",
			   &id, &t.going_online, &t.online, &t.cancel_online, &t.offline,
			   &t.wrong) != 6 || id != owner)
			continue;
		*s = t;
		found = true;
	}
	fclose(f);
	return found ? 0 : complain(STATE, -EINVAL);
}

/* The block of an owner. */
static int block(int owner, int n)
{
	return (START + owner * HALF) / block_bytes() + n;
}

static unsigned long total(void)
{
	struct counters c;

	return counters_read(NODE, &c) ? 0 : c.total;
}

static unsigned long managed(void)
{
	struct counters c;

	return counters_read(NODE, &c) ? 0 : zone_find(&c, "Movable")->managed;
}

FIXTURE(memory_owner)
{
	struct counters base;
	char policy[32];
	unsigned long pages;
	bool left_behind;
	int kmsg;
};

FIXTURE_SETUP(memory_owner)
{
	if (access(MODULE, F_OK))
		SKIP(return, "no " MODULE ": build with CONFIG_TEST_MEMORY_OWNER=m");
	if (total() * getpagesize() > START)
		SKIP(return, "the kernel uses the memory: boot with mem=2G where there are 3 GiB");
	self->pages = block_pages();
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	ASSERT_EQ(0, load());
	self->kmsg = kmsg_open();
	ASSERT_EQ(0, counters_read(NODE, &self->base));
}

FIXTURE_TEARDOWN(memory_owner)
{
	struct counters c;
	int n;

	EXPECT_FALSE(kmsg_trouble(self->kmsg));
	close(self->kmsg);
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
	if (self->left_behind)
		return;
	for (n = 0; n < 4; n++) {
		if (block_online(block(n / 2, n % 2)) == 1)
			EXPECT_EQ(0, block_set(block(n / 2, n % 2), "offline"));
		control("remove %d %d", n / 2, n % 2);
	}
	EXPECT_EQ(0, counters_read(NODE, &c));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
	EXPECT_EQ(0, unload());
}

#define EXPECT_STATE(owner, _going, _online, _cancel)				\
do {										\
	struct state __s;							\
										\
	ASSERT_EQ(0, state_read(owner, &__s));					\
	EXPECT_EQ(_going, (int)__s.going_online);				\
	EXPECT_EQ(_online, (int)__s.online);					\
	EXPECT_EQ(_cancel, (int)__s.cancel_online);				\
	EXPECT_EQ(0, (int)__s.wrong);						\
} while (0)

/* Two owners, a DIMM and a virtio-mem device: each hears of its own only. */
TEST_F_TIMEOUT(memory_owner, side_by_side, BLOCK_SECONDS)
{
	struct dimm dimm = { .id = "side" };
	unsigned long was = self->base.total;
	int blocks;

	ASSERT_EQ(0, control("add 0 0"));
	ASSERT_EQ(0, control("add 1 0"));
	ASSERT_EQ(0, control("hold 1 1000 3000"));

	ASSERT_EQ(0, block_set(block(0, 0), "online_movable"));
	EXPECT_EQ(was + self->pages, total());
	EXPECT_STATE(0, 1, 1, 0);
	EXPECT_STATE(1, 0, 0, 0);

	ASSERT_EQ(0, block_set(block(1, 0), "online_movable"));
	EXPECT_EQ(was + 2 * self->pages - 3000, total());
	EXPECT_STATE(0, 1, 1, 0);
	EXPECT_STATE(1, 1, 1, 0);

	if (have_host()) {
		was = total();
		blocks = blocks_present(NULL);
		ASSERT_EQ(0, auto_online_set("online_movable", NULL, 0));
		ASSERT_EQ(0, host_request(NULL, 0, "add virtio-mem side0 1024M 0"));
		ASSERT_EQ(0, host_request(NULL, 0, "resize side0 322M"));
		EXPECT_TRUE(wait_until(total() == was + (322UL << 20) / getpagesize(), SECONDS));
		ASSERT_EQ(0, auto_online_set("offline", NULL, 0));

		was = total();
		ASSERT_EQ(0, dimm_plug(&dimm, block_bytes()));
		ASSERT_EQ(0, block_set(dimm.first, "online_movable"));
		EXPECT_EQ(was + self->pages, total());
		EXPECT_EQ(0, dimm_unplug(&dimm));

		ASSERT_EQ(0, host_request(NULL, 0, "resize side0 0"));
		EXPECT_TRUE(wait_until(total() == was - (322UL << 20) / getpagesize(), SECONDS));
		/* The last block goes after its pages. */
		EXPECT_EQ(0, wait_for_blocks(blocks, BLOCK_SECONDS));
	}
	EXPECT_STATE(0, 1, 1, 0);
	EXPECT_STATE(1, 1, 1, 0);
	ASSERT_EQ(0, control("give 1 1000 3000"));
}

/* Holes of any size and alignment, which are filled later, in any order. */
TEST_F_TIMEOUT(memory_owner, holes, BLOCK_SECONDS)
{
	static const struct {
		unsigned int start, nr;
	} holes[] = {
		{ 0, 1 }, { 3, 5 }, { 500, 24 }, { 1024, 512 }, { 2047, 2 },
		{ 4096, 1024 }, { 8191, 4099 }, { 20000, 7 }, { 32767, 1 },
	};
	/* What comes back, the last number is 0 for pages and 1 for an order. */
	static const unsigned int give[][3] = {
		{ 8192, 10, 1 }, { 1024, 9, 1 }, { 32767, 1, 0 }, { 12287, 3, 0 },
		{ 9216, 3071, 0 }, { 8191, 1, 0 }, { 2047, 1, 0 }, { 2048, 0, 1 },
		{ 20000, 3, 0 }, { 20003, 4, 0 }, { 4, 2, 1 }, { 3, 1, 0 },
		{ 0, 0, 1 }, { 4608, 512, 0 }, { 4096, 512, 0 }, { 511, 13, 0 },
		{ 500, 11, 0 },
	};
	unsigned long expected, held = 0;
	size_t i;

	ASSERT_EQ(0, control("add 1 0"));
	for (i = 0; i < ARRAY_SIZE(holes); i++) {
		ASSERT_EQ(0, control("hold 1 %u %u", holes[i].start, holes[i].nr));
		held += holes[i].nr;
	}
	ASSERT_EQ(0, block_set(block(1, 0), "online_movable"));
	expected = self->base.total + self->pages - held;
	EXPECT_EQ(expected, total());
	EXPECT_EQ(self->pages - held, managed());
	EXPECT_STATE(1, 1, 1, 0);

	/* Off and on again, with the holes. */
	ASSERT_EQ(0, block_set(block(1, 0), "offline"));
	EXPECT_EQ(self->base.total, total());
	ASSERT_EQ(0, block_set(block(1, 0), "online_movable"));
	EXPECT_EQ(expected, total());

	for (i = 0; i < ARRAY_SIZE(give); i++) {
		unsigned long nr = give[i][2] ? 1UL << give[i][1] : give[i][1];

		ASSERT_EQ(0, control("%s 1 %u %u", give[i][2] ? "give_order" : "give",
				     give[i][0], give[i][1]));
		expected += nr;
		held -= nr;
		EXPECT_EQ(expected, total());
		EXPECT_EQ(self->pages - held, managed());
	}
	EXPECT_EQ(0UL, held);
	EXPECT_STATE(1, 2, 2, 0);
}

/* The owner refuses, or agrees and a notifier refuses. */
TEST_F_TIMEOUT(memory_owner, refused, BLOCK_SECONDS)
{
	struct counters before = self->base, c;

	ASSERT_EQ(0, control("add 0 0"));
	ASSERT_EQ(0, control("hold 0 100 1000"));
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	ASSERT_EQ(0, control("refuse 0 %d", EREMOTE));
	EXPECT_EQ(-EREMOTE, block_set(block(0, 0), "online_movable"));
	EXPECT_EQ(0, block_online(block(0, 0)));
	EXPECT_STATE(0, 0, 0, 0);
	ASSERT_EQ(0, counters_read(NODE, &c));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
	ASSERT_EQ(0, control("refuse 0 0"));

	if (!access(INJECT, F_OK)) {
		ASSERT_EQ(0, write_line(INJECT, "-5"));
		EXPECT_EQ(-EIO, block_set(block(0, 0), "online_movable"));
		ASSERT_EQ(0, write_line(INJECT, "0"));
		EXPECT_EQ(0, block_online(block(0, 0)));
		EXPECT_STATE(0, 1, 0, 1);
		ASSERT_EQ(0, counters_read(NODE, &c));
		EXPECT_EQ(0, counters_differ(&self->base, &c));
	}
	EXPECT_EQ(0, block_set(block(0, 0), "online_movable"));
	EXPECT_EQ(self->base.total + self->pages - 1000, total());

	/* The same for going offline: the held pages have their reference again. */
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	ASSERT_EQ(0, control("refuse 0 %d", EREMOTE));
	EXPECT_EQ(-EREMOTE, block_set(block(0, 0), "offline"));
	ASSERT_EQ(0, control("refuse 0 0"));
	if (!access(INJECT_OFFLINE, F_OK)) {
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "-5"));
		EXPECT_EQ(-EIO, block_set(block(0, 0), "offline"));
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	}
	EXPECT_EQ(1, block_online(block(0, 0)));
	ASSERT_EQ(0, counters_read(NODE, &c));
	EXPECT_EQ(0, counters_differ(&self->base, &c));
	ASSERT_EQ(0, control("give 0 100 1000"));
	self->base = before;
}

/* What is still there when the driver goes, and how it can go then. */
TEST_F_TIMEOUT(memory_owner, unload, BLOCK_SECONDS)
{
	unsigned long expected;

	ASSERT_EQ(0, control("add 0 0"));
	ASSERT_EQ(0, control("add 0 1"));
	ASSERT_EQ(0, control("add 1 0"));
	ASSERT_EQ(0, control("add 1 1"));
	ASSERT_EQ(0, control("hold 1 7 11"));
	ASSERT_EQ(0, block_set(block(0, 0), "online_movable"));
	ASSERT_EQ(0, block_set(block(1, 1), "online_movable"));
	expected = total();
	ASSERT_EQ(0, unload());

	/* What is left goes online and offline as if there had been no owner. */
	EXPECT_EQ(0, block_set(block(0, 1), "online_movable"));
	EXPECT_EQ(expected + self->pages, total());
	EXPECT_EQ(0, block_set(block(0, 0), "offline"));
	EXPECT_EQ(0, block_set(block(0, 0), "online_movable"));
	EXPECT_EQ(expected + self->pages, total());
	EXPECT_EQ(0, block_set(block(0, 0), "offline"));
	EXPECT_EQ(0, block_set(block(0, 1), "offline"));
	EXPECT_EQ(0, block_set(block(1, 1), "offline"));
	EXPECT_EQ(self->base.total, total());

	/* The block of which not all pages may be used is gone, and can be added again. */
	ASSERT_EQ(0, load());
	EXPECT_EQ(-EEXIST, control("add 0 0"));
	ASSERT_EQ(0, control("add 1 0"));
	EXPECT_EQ(0, block_set(block(1, 0), "online_movable"));
	EXPECT_EQ(self->base.total + self->pages, total());
	EXPECT_STATE(1, 1, 1, 0);

	/* So can others, with the owner that is there now. */
	EXPECT_EQ(0, control("remove 1 1"));
	ASSERT_EQ(0, control("add 1 1"));
	ASSERT_EQ(0, control("hold 1 %lu 11", self->pages + 7));
	EXPECT_EQ(0, block_set(block(1, 1), "online_movable"));
	EXPECT_EQ(self->base.total + 2 * self->pages - 11, total());
	EXPECT_STATE(1, 2, 2, 0);
}

/* Pages that are held keep their block online when the driver is gone. */
TEST_F_TIMEOUT(memory_owner, unload_holes, BLOCK_SECONDS)
{
	ASSERT_EQ(0, control("add 1 1"));
	ASSERT_EQ(0, control("hold 1 %lu 11", self->pages + 7));
	ASSERT_EQ(0, block_set(block(1, 1), "online_movable"));
	ASSERT_EQ(0, unload());
	self->left_behind = true;
	EXPECT_EQ(-EBUSY, block_set(block(1, 1), "offline"));
	EXPECT_EQ(1, block_online(block(1, 1)));
	EXPECT_EQ(self->base.total + self->pages - 11, total());
}

TEST_HARNESS_MAIN
