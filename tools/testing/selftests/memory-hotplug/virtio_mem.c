// SPDX-License-Identifier: GPL-2.0
/*
 * Counters follow a virtio-mem device exactly, in steps as small as the device's
 * blocks, far below those of memory blocks. What it gives back is free memory, as
 * long as there is enough: and the host gets it.
 */
#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define SIZE_MB		1024
#define HARD_OFFLINE	MEMORY_SYSFS "/hard_offline_page"
#define KPF_OFFLINE	23	/* of /proc/kpageflags */
#define TIMEOUT		BLOCK_SECONDS
/* What a busy host leaves to the guest comes back at once, or not for minutes. */
#define BUSY_SECONDS	30
/* Offlining alone makes more before it gives up on a page that is pinned. */
#define TRIES		300L
#define INJECT		"/sys/kernel/debug/notifier-error-inject/memory/actions"
#define SEED		"20240229"
#define STEPS		"200"

static size_t mib(unsigned long mb)
{
	return mb << 20;
}

static unsigned long pages_of(unsigned long mb)
{
	return mib(mb) / getpagesize();
}

static unsigned long plugged(const char *id)
{
	char text[32] = "";

	return host_request(text, sizeof(text), "size %s", id) ? -1UL :
	       strtoul(text, NULL, 10);
}

/* The device plugs first, then the kernel hands out the pages: both have to end. */
static void wait_size(struct __test_metadata *_metadata, const char *id,
		      unsigned long total, unsigned long mb, int seconds)
{
	static struct counters c;

	ASSERT_TRUE(wait_until(plugged(id) == mib(mb), seconds));
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       c.total == total + pages_of(mb), seconds))
		TH_LOG("MemTotal: %lu pages instead of %lu, %lu MiB plugged",
		       c.total, total + pages_of(mb), mb);
	EXPECT_EQ(c.total, c.node_total);
}

static void request(struct __test_metadata *_metadata, const char *id,
		    unsigned long mb)
{
	ASSERT_EQ(0, host_request(NULL, 0, "resize %s %luM", id, mb));
}

/* Ask for a size; all counters of pages that are in use have to follow. */
static void set_size(struct __test_metadata *_metadata, const char *id,
		     const struct counters *base, unsigned long mb)
{
	const struct zone *was, *is;
	struct counters c;

	request(_metadata, id, mb);
	wait_size(_metadata, id, base->total, mb, TIMEOUT);
	ASSERT_EQ(0, counters_read(NODE, &c));
	was = zone_find(base, "Movable");
	is = zone_find(&c, "Movable");
	EXPECT_EQ(was->managed + pages_of(mb), is->managed);
	/* Present are whole memory blocks, be they unplugged in part. */
	EXPECT_EQ(0UL, (is->present - was->present) % block_pages());
	EXPECT_LE(was->present + pages_of(mb), is->present);
}

/* Small pages, so that each is migrated for itself. */
static unsigned char *memory(size_t bytes)
{
	unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED || madvise(p, bytes, MADV_NOHUGEPAGE))
		return NULL;
	for (size_t at = 0; at < bytes; at += getpagesize())
		p[at] = at / getpagesize() % 251;
	return p;
}

static unsigned char *file(size_t bytes)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	unsigned char *p;

	if (fd < 0 || ftruncate(fd, bytes))
		return NULL;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	for (size_t at = 0; p != MAP_FAILED && at < bytes; at += getpagesize())
		p[at] = at / getpagesize() % 251;
	return p == MAP_FAILED ? NULL : p;
}

static bool intact(const unsigned char *p, size_t bytes, size_t step)
{
	size_t at = 0;

	while (at < bytes && p[at] == at / getpagesize() % 251)
		at += step;
	return at >= bytes;
}

/* The sum of a field of migration's events since events_clear(). */
static long migrations(const char *field)
{
	FILE *f = fopen(TRACE_INSTANCE "/trace", "r");
	unsigned long pages, sum = 0;
	char line[512];

	if (!f)
		return complain(TRACE_INSTANCE, -errno);
	while (fgets(line, sizeof(line), f)) {
		if (strstr(line, "LOST"))
			sum += 1UL << 40;
		if (parse_field(line, field, &pages))
			sum += pages;
	}
	fclose(f);
	return sum;
}

static long migrated(void)
{
	return migrations("nr_succeeded=");
}

FIXTURE(virtio_mem)
{
	char id[16], other[16], policy[32];
	struct counters base;
	int blocks;
};

FIXTURE_SETUP(virtio_mem)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	if (access("/sys/bus/virtio/drivers/virtio_mem", F_OK))
		SKIP(return, "no driver: build with CONFIG_VIRTIO_MEM");
	snprintf(self->id, sizeof(self->id), "v%d", getpid());
	snprintf(self->other, sizeof(self->other), "w%d", getpid());
	/* Movable, as only then unplugging is sure to find free memory. */
	ASSERT_EQ(0, auto_online_set("online_movable", self->policy,
				     sizeof(self->policy)));
	ASSERT_EQ(0, counters_read(NODE, &self->base));
	self->blocks = blocks_present(NULL);
}

FIXTURE_TEARDOWN(virtio_mem)
{
	/* Not every QEMU can unplug the device: leave it, without memory. */
	EXPECT_EQ(0, host_request(NULL, 0, "resize %s 0", self->id));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

#define add_device(id, block_size)	\
	ASSERT_EQ(0, host_request(NULL, 0, "add virtio-mem %s %uM 0 0 %uM",	\
				  id, SIZE_MB, block_size))

/* Nothing is left of the device, and nothing changed. */
#define expect_base() ({						\
	struct counters __c;						\
									\
	ASSERT_EQ(0, wait_for_blocks(self->blocks, TIMEOUT));		\
	ASSERT_EQ(0, counters_read(NODE, &__c));			\
	EXPECT_EQ(0, counters_differ(&self->base, &__c));		\
})

/* Whole memory blocks, parts of one, up, down, all of it and nothing */
TEST_F_TIMEOUT(virtio_mem, resize, TIMEOUT)
{
	static const unsigned long mb[] = {
		256, 320, 322, 2, 130, 128, 512, SIZE_MB, 66, 0, 64, 0,
	};
	size_t i;

	add_device(self->id, 2);
	for (i = 0; i < ARRAY_SIZE(mb); i++)
		set_size(_metadata, self->id, &self->base, mb[i]);
	expect_base();
}

/* Blocks of the device from 8 MiB to two memory blocks: the last is big block mode. */
TEST_F_TIMEOUT(virtio_mem, block_sizes, TIMEOUT)
{
	static const unsigned int block[] = { 8, 64, 256 };
	static const unsigned int blocks[] = { 1, 3, 2, 4, 0 };
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(block); i++) {
		snprintf(self->id, sizeof(self->id), "v%d-%u", getpid(), block[i]);
		add_device(self->id, block[i]);
		for (j = 0; j < ARRAY_SIZE(blocks); j++)
			set_size(_metadata, self->id, &self->base, block[i] * blocks[j]);
		set_size(_metadata, self->id, &self->base, SIZE_MB);
		set_size(_metadata, self->id, &self->base, 0);
	}
	expect_base();
}

/* Two devices, one of them in big block mode, beside a DIMM and a balloon */
TEST_F_TIMEOUT(virtio_mem, neighbours, TIMEOUT)
{
	static const unsigned int a[] = { 512, 130, 258, 64, 0 };
	static const unsigned int b[] = { 256, SIZE_MB, 256, 512, 0 };
	unsigned long total = self->base.total;
	struct dimm dimm = { .id = "" };
	struct counters c;
	size_t i;

	snprintf(dimm.id, sizeof(dimm.id), "d%d", getpid());
	ASSERT_EQ(0, dimm_plug(&dimm, 2 * block_bytes()));
	total += 2 * (block_pages() - block_memmap_pages());
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) && c.total == total, TIMEOUT));
	/* The host counts from what the guest booted with, and the DIMM. */
	ASSERT_EQ(0, host_request(NULL, 0, "balloon %luM",
				  2048 + (2 * block_bytes() >> 20) - 64));
	total -= pages_of(64);
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) && c.total == total, TIMEOUT))
		TH_LOG("MemTotal: %lu pages instead of %lu", c.total, total);

	add_device(self->id, 2);
	add_device(self->other, 256);
	for (i = 0; i < ARRAY_SIZE(a); i++) {
		request(_metadata, self->id, a[i]);
		request(_metadata, self->other, b[i]);
		ASSERT_TRUE(wait_until(plugged(self->id) == mib(a[i]), TIMEOUT));
		wait_size(_metadata, self->other, total + pages_of(a[i]), b[i], TIMEOUT);
	}

	ASSERT_EQ(0, host_request(NULL, 0, "balloon 64G"));
	/* The last block goes after its pages. */
	ASSERT_EQ(0, wait_for_blocks(self->blocks + dimm.count, TIMEOUT));
	ASSERT_EQ(0, dimm_unplug(&dimm));
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) &&
			       c.total == self->base.total, TIMEOUT));
	expect_base();
}

/*
 * A file in the upper half; as much as shall go is free in the lower half. New
 * memory is allocated from the lowest block up.
 */
TEST_F_TIMEOUT(virtio_mem, free_first, TIMEOUT)
{
	static const size_t size = 128 << 20;
	unsigned char *lower, *p;
	int first = 0, was;

	if (events_start("migrate/mm_migrate_pages"))
		SKIP(return, NO_EVENTS);
	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, SIZE_MB);
	lower = memory(mib(SIZE_MB / 2 + 128));
	ASSERT_NE(NULL, lower);
	first = block_of(lower + mib(1));
	p = file(size);
	ASSERT_NE(NULL, p);
	munmap(lower, mib(SIZE_MB / 2 + 128));
	was = block_of(p + size / 2);
	EXPECT_LE(first + (int)(mib(SIZE_MB / 2) / block_bytes()), was);

	ASSERT_EQ(0, events_clear());
	set_size(_metadata, self->id, &self->base, SIZE_MB / 2);
	EXPECT_EQ(0L, migrated());
	EXPECT_EQ(was, block_of(p + size / 2));
	EXPECT_TRUE(intact(p, size, getpagesize()));

	/* Now there is nowhere else to go. */
	set_size(_metadata, self->id, &self->base, 0);
	EXPECT_LE((long)(size / getpagesize()), migrated());
	EXPECT_TRUE(intact(p, size, getpagesize()));
	munmap(p, size);
	events_stop();
	expect_base();
}

/* No block is free: those with few pages in use go, though they are the lower ones. */
TEST_F_TIMEOUT(virtio_mem, emptiest_first, TIMEOUT)
{
	const size_t size = mib(SIZE_MB), page = getpagesize();
	const int half = mib(SIZE_MB / 2) / block_bytes();
	static bool was[MAX_BLOCKS], is[MAX_BLOCKS];
	long moved, used = 0;
	int first = 0, block;
	unsigned char *p;
	size_t at;

	if (events_start("migrate/mm_migrate_pages"))
		SKIP(return, NO_EVENTS);
	blocks_present(was);
	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, SIZE_MB);
	p = memory(size);
	ASSERT_NE(NULL, p);
	blocks_present(is);
	while (first < MAX_BLOCKS - 1 && (!is[first] || was[first]))
		first++;
	for (at = 0; at < size; at += page) {
		block = block_of(p + at);
		if (block < first || at / page % (block < first + half ? 512 : 2))
			madvise(p + at, page, MADV_DONTNEED);
		else if (block < first + half)
			used++;
	}

	ASSERT_EQ(0, events_clear());
	set_size(_metadata, self->id, &self->base, SIZE_MB / 2);
	moved = migrated();
	TH_LOG("%ld pages moved, %ld were in use", moved, used);
	EXPECT_LT(0L, moved);
	EXPECT_GE(8 * used, moved);
	munmap(p, size);
	events_stop();
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
}

/* One page is pinned: all but its subblock goes, and that when the page is let go. */
TEST_F_TIMEOUT(virtio_mem, pinned, TIMEOUT)
{
	size_t size = mib(256), page = getpagesize();
	struct iovec iov = { .iov_len = page };
	unsigned char *p, byte;
	int pipes[2];

	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, SIZE_MB);
	p = memory(size);
	ASSERT_NE(NULL, p);
	iov.iov_base = p + size / 2;
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)page, vmsplice(pipes[1], &iov, 1, 0));

	if (events_start("migrate/mm_migrate_pages"))
		SKIP(return, NO_EVENTS);
	request(_metadata, self->id, 0);
	wait_size(_metadata, self->id, self->base.total, 2, TIMEOUT);
	EXPECT_GT(TRIES, migrations("nr_failed="))
		TH_LOG("%ld tries to migrate the page", migrations("nr_failed="));
	events_stop();
	EXPECT_TRUE(intact(p, size, page));

	/* The pipe gets to see what is written now: it has the page still. */
	p[size / 2] = 0xa5;
	EXPECT_EQ(1, read(pipes[0], &byte, 1));
	EXPECT_EQ(0xa5, byte);
	close(pipes[0]);
	close(pipes[1]);
	munmap(p, size);
	set_size(_metadata, self->id, &self->base, 4);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
}

/*
 * The host is busy, as in a migration: all stays in use, also where new memory does
 * not go online by itself.
 */
static void host_busy(struct __test_metadata *_metadata, const char *id,
		      const struct counters *base, unsigned int block,
		      const char *policy)
{
	add_device(id, block);
	set_size(_metadata, id, base, 512);
	ASSERT_EQ(0, auto_online_set(policy, NULL, 0));
	ASSERT_EQ(0, host_request(NULL, 0, "migrate start"));
	request(_metadata, id, 0);
	sleep(5);	/* Until it was asked and has refused, or it is seen too early */
	wait_size(_metadata, id, base->total, 512, BUSY_SECONDS);
	ASSERT_EQ(0, host_request(NULL, 0, "migrate cancel"));
	ASSERT_EQ(0, auto_online_set("online_movable", NULL, 0));
	/* The driver asks again when the size changes. */
	request(_metadata, id, 256);
	set_size(_metadata, id, base, 0);
}

TEST_F_TIMEOUT(virtio_mem, host_busy, TIMEOUT)
{
	host_busy(_metadata, self->id, &self->base, 2, "offline");
	expect_base();
}

TEST_F_TIMEOUT(virtio_mem, host_busy_big_blocks, TIMEOUT)
{
	host_busy(_metadata, self->id, &self->base, 256, "online_movable");
	expect_base();
}

/* What was in use goes soon after it was freed: the timer of v7.3 takes 50 s. */
TEST_F_TIMEOUT(virtio_mem, freed_later, TIMEOUT)
{
	struct iovec iov = { .iov_len = getpagesize() };
	size_t size = mib(256);
	int pipes[2], i;
	unsigned char *p;

	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, SIZE_MB);
	p = memory(size);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, pipe(pipes));
	for (i = 0; i < 4; i++) {
		iov.iov_base = p + i * mib(64);
		ASSERT_EQ(getpagesize(), vmsplice(pipes[1], &iov, 1, 0));
	}
	request(_metadata, self->id, 0);
	wait_size(_metadata, self->id, self->base.total, 8, TIMEOUT);
	/* Until it has tried the four as well, and waits */
	sleep(5);
	munmap(p, size);
	close(pipes[0]);
	close(pipes[1]);
	EXPECT_TRUE(wait_until(!plugged(self->id), 30));
	request(_metadata, self->id, 2);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
}

/* A notifier says no: the memory goes all the same, its memory blocks later. */
TEST_F_TIMEOUT(virtio_mem, veto, TIMEOUT)
{
	if (access(INJECT, F_OK))
		SKIP(return, "no " INJECT ": build with CONFIG_MEMORY_NOTIFIER_ERROR_INJECT");
	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, 512);
	ASSERT_EQ(0, write_line(INJECT "/MEM_GOING_OFFLINE/error", "-16"));
	request(_metadata, self->id, 0);
	wait_size(_metadata, self->id, self->base.total, 0, TIMEOUT);
	EXPECT_EQ(self->blocks + 4, blocks_present(NULL));
	ASSERT_EQ(0, write_line(INJECT "/MEM_GOING_OFFLINE/error", "0"));
	set_size(_metadata, self->id, &self->base, 130);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
}

/* The driver is unbound while the device has no memory, and bound again. */
TEST_F_TIMEOUT(virtio_mem, rebind, TIMEOUT)
{
	static const char driver[] = "/sys/bus/virtio/drivers/virtio_mem";
	char path[300], dev[32][32];
	int nr = 0, i;
	struct dirent *e;
	DIR *dir;

	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, 322);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
	dir = opendir(driver);
	ASSERT_NE(NULL, dir);
	while ((e = readdir(dir)))
		if (!strncmp(e->d_name, "virtio", 6) && nr < 32)
			snprintf(dev[nr++], sizeof(dev[0]), "%.31s", e->d_name);
	closedir(dir);
	for (i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "%s/unbind", driver);
		ASSERT_EQ(0, write_line(path, dev[i]));
		snprintf(path, sizeof(path), "%s/bind", driver);
		ASSERT_EQ(0, write_line(path, dev[i]));
	}
	set_size(_metadata, self->id, &self->base, 322);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
}

/* The host has the memory back: it was all written, so it was all there. */
TEST_F_TIMEOUT(virtio_mem, host_rss, TIMEOUT)
{
	char text[32] = "";
	unsigned long before, after;
	unsigned char *p;

	add_device(self->id, 2);
	set_size(_metadata, self->id, &self->base, SIZE_MB);
	p = memory(mib(SIZE_MB - 64));
	ASSERT_NE(NULL, p);
	EXPECT_EQ(0, host_request(text, sizeof(text), "rss"));
	before = strtoul(text, NULL, 10);
	munmap(p, mib(SIZE_MB - 64));
	set_size(_metadata, self->id, &self->base, 0);
	EXPECT_EQ(0, host_request(text, sizeof(text), "rss"));
	after = strtoul(text, NULL, 10);
	EXPECT_GE(before, after + mib(SIZE_MB - 128))
		TH_LOG("%lu MiB before, %lu MiB after", before >> 20, after >> 20);
	expect_base();
}

/* Random sizes, some asked for before the one before is reached, memory in use or not */
TEST_F_TIMEOUT(virtio_mem, random, TIMEOUT)
{
	int i, steps = atoi(getenv("STEPS") ?: STEPS);
	size_t used = mib(96);
	unsigned char *p = NULL;
	unsigned int mb;

	TH_LOG("SEED=%s STEPS=%d", getenv("SEED") ?: SEED, steps);
	srandom(atoi(getenv("SEED") ?: SEED));
	add_device(self->id, 2);
	for (i = 0; i < steps; i++) {
		mb = random() % (SIZE_MB / 2 + 1) * 2;
		if (random() % 4 == 0)
			mb &= ~127U;
		if (random() % 8 == 0) {
			request(_metadata, self->id, mb);
			mb = random() % (SIZE_MB / 2 + 1) * 2;
		}
		if (p && random() % 4 == 0) {
			EXPECT_TRUE(intact(p, used, getpagesize()));
			munmap(p, used);
			p = NULL;
		} else if (!p && random() % 4 == 0) {
			p = random() % 2 ? file(used) : memory(used);
			ASSERT_NE(NULL, p);
		}
		set_size(_metadata, self->id, &self->base, mb);
	}
	if (p)
		munmap(p, used);
	set_size(_metadata, self->id, &self->base, 0);
	expect_base();
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
TEST_F_TIMEOUT(virtio_mem, bad_page, TIMEOUT)
{
	static bool map[MAX_BLOCKS];
	unsigned long pfn;
	char text[32];
	int block;

	if (access(HARD_OFFLINE, W_OK))
		SKIP(return, "no " HARD_OFFLINE ": build with CONFIG_MEMORY_FAILURE");
	add_device(self->id, 2);
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
	request(_metadata, self->id, 0);
	expect_base();
}

/*
 * Kernel memory may get into the blocks: what stays plugged is counted exactly. It
 * goes later, which is why no test comes after this one.
 */
TEST_F_TIMEOUT(virtio_mem, kernel_zone, TIMEOUT)
{
	struct counters c;

	ASSERT_EQ(0, auto_online_set("online_kernel", NULL, 0));
	add_device(self->id, 2);
	request(_metadata, self->id, 512);
	wait_size(_metadata, self->id, self->base.total, 512, TIMEOUT);
	request(_metadata, self->id, 0);
	ASSERT_TRUE(wait_until(plugged(self->id) <= mib(128), TIMEOUT));
	ASSERT_TRUE(wait_until(!counters_read(NODE, &c) && c.total ==
			       self->base.total + plugged(self->id) / getpagesize(),
			       TIMEOUT));
	ASSERT_EQ(0, auto_online_set("online_movable", NULL, 0));
}

TEST_HARNESS_MAIN
