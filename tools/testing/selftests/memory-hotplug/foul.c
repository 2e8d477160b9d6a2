// SPDX-License-Identifier: GPL-2.0
/*
 * A DIMM is unplugged while memory is short.  What does fit elsewhere goes, what
 * does not is refused, nothing is killed for it, and a later attempt succeeds.
 *
 * Each variant is for a guest of its own, as some kernels do not survive it.  It
 * prints a line to compare kernels by.
 */
#include <linux/mempolicy.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define DIR_TMPFS	"/tmp/foul"
#define STEP		(4UL << 20)
#define TIMEOUT		BLOCK_SECONDS

#define DEVICE		"/dev/pmem0"
#define HUGE		(2UL << 20)

enum kind { NOTHING, ANON, MLOCKED, HUGETLB, TMPFS, CACHE, BALLOON };

FIXTURE(foul)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	pid_t bystander, sampler, user, grower;
	long *low;
	unsigned long ram_mb, total_mb, bytes;
};

/*
 * @mb MiB of @kind are in a DIMM of @dimm_mb MiB, or @percent of what is free
 * elsewhere. Memory that is on pcplists makes a difference of 5 % in so small a guest, and
 * what may fit is tried.
 */
FIXTURE_VARIANT(foul)
{
	const char *name;
	unsigned long dimm_mb, ram_mb;
	enum kind kind;
	unsigned long mb, percent;
	/* In percent of what is free elsewhere: used by another task while it is unplugged */
	unsigned long grows;
	int node;
	enum { REFUSED, REMOVED, EITHER } outcome;
};

FIXTURE_VARIANT_ADD(foul, empty)
{
	.name = "empty", .ram_mb = 512, .dimm_mb = 20480, .outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, balloon)
{
	.name = "balloon", .ram_mb = 1024, .dimm_mb = 2048, .kind = BALLOON, .mb = 1800,
};

FIXTURE_VARIANT_ADD(foul, tmpfs)
{
	.name = "tmpfs", .ram_mb = 4096, .dimm_mb = 65536, .kind = TMPFS, .mb = 2700,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, anon_fits)
{
	.name = "anon_fits", .ram_mb = 1024, .dimm_mb = 2048, .kind = ANON, .percent = 94,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, anon_too_much)
{
	.name = "anon_too_much", .ram_mb = 1024, .dimm_mb = 2048, .kind = ANON, .percent = 115,
};

FIXTURE_VARIANT_ADD(foul, mlocked_fits)
{
	.name = "mlocked_fits", .ram_mb = 1024, .dimm_mb = 2048, .kind = MLOCKED, .percent = 94,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, mlocked_too_much)
{
	.name = "mlocked_too_much", .ram_mb = 1024, .dimm_mb = 2048, .kind = MLOCKED, .percent = 115,
};

FIXTURE_VARIANT_ADD(foul, tmpfs_fits)
{
	.name = "tmpfs_fits", .ram_mb = 1024, .dimm_mb = 2048, .kind = TMPFS, .percent = 94,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, tmpfs_too_much)
{
	.name = "tmpfs_too_much", .ram_mb = 1024, .dimm_mb = 2048, .kind = TMPFS, .percent = 115,
};

/* Clean pages of a file need no place elsewhere. */
FIXTURE_VARIANT_ADD(foul, cache)
{
	.name = "cache", .ram_mb = 1024, .dimm_mb = 2048, .kind = CACHE, .mb = 1500,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, hugetlb_fits)
{
	.name = "hugetlb_fits", .ram_mb = 1024, .dimm_mb = 2048, .kind = HUGETLB, .percent = 60,
	.outcome = REMOVED,
};

FIXTURE_VARIANT_ADD(foul, hugetlb_too_much)
{
	.name = "hugetlb_too_much", .ram_mb = 1024, .dimm_mb = 2048, .kind = HUGETLB, .percent = 115,
};

/* Another task takes most of what is left, while the DIMM goes. */
FIXTURE_VARIANT_ADD(foul, grows)
{
	.name = "grows", .ram_mb = 1024, .dimm_mb = 2048, .kind = ANON, .percent = 55,
	.grows = 35, .outcome = EITHER,
};

/* A node without other memory, and tasks that may use no other */
FIXTURE_VARIANT_ADD(foul, node)
{
	.name = "node", .ram_mb = 1024, .dimm_mb = 4096, .kind = ANON, .mb = 300, .node = 1,
	.outcome = EITHER,
};

/* Lines of the kernel's log that say it, since @fd was opened */
static int kmsg_count(int fd, const char *text)
{
	char record[8192];
	int count = 0;
	ssize_t n;

	while ((n = read(fd, record, sizeof(record) - 1)) > 0) {
		record[n] = '\0';
		count += !!strstr(record, text);
	}
	return count;
}

static unsigned long meminfo_mb(const char *field)
{
	return read_field("/proc/meminfo", field) >> 10;
}

/* A balloon moves in steps: wait until nothing more comes. */
static unsigned long memtotal_settle(void)
{
	unsigned long total;

	do {
		total = meminfo_mb("MemTotal:");
		sleep(2);
	} while (meminfo_mb("MemTotal:") != total);
	return total;
}

static unsigned long movable_free(void)
{
	struct counters c;

	if (counters_read(0, &c))
		return 0;
	return zone_find(&c, "Movable")->free * getpagesize();
}

static int bind_to(int node)
{
	unsigned long mask = 1UL << node;

	if (!node)
		return 0;
	return syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 8 * sizeof(mask)) ? -errno : 0;
}

/* A task that has nothing to do with the DIMM, but needs a little memory. */
static pid_t bystander_start(int node)
{
	pid_t pid = fork();

	if (!pid && bind_to(node))
		_exit(1);
	while (!pid) {
		char *mem = mmap(NULL, STEP, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (mem == MAP_FAILED)
			_exit(1);
		memset(mem, 1, STEP);
		munmap(mem, STEP);
		usleep(10000);
	}
	return pid;
}

/* Keeps the lowest MemAvailable in @low. */
static pid_t sampler_start(long *low)
{
	pid_t pid = fork();

	while (!pid) {
		long now_kb = read_field("/proc/meminfo", "MemAvailable:");

		if (now_kb >= 0 && now_kb < *low)
			*low = now_kb;
		usleep(20000);
	}
	return pid;
}

/* A task that needs more and more, until it has @bytes. */
static pid_t grower_start(size_t bytes)
{
	pid_t pid = fork();
	char *mem;
	size_t i;

	if (pid)
		return pid;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		_exit(1);
	for (i = 0; i + STEP <= bytes; i += STEP) {
		memset(mem + i, 1, STEP);
		usleep(5000);
	}
	for (;;)
		pause();
}

/* A child that has @bytes in use until it is killed; 0 if it cannot. */
static pid_t user_start(size_t bytes, enum kind kind, int node)
{
	int pipes[2];
	char ready;
	pid_t pid;

	if (pipe(pipes))
		return 0;
	pid = fork();
	if (!pid) {
		char *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS |
				 (kind == HUGETLB ? MAP_HUGETLB : 0), -1, 0);

		if (mem == MAP_FAILED || bind_to(node))
			_exit(1);
		if (kind != HUGETLB)
			madvise(mem, bytes, MADV_NOHUGEPAGE);
		memset(mem, 1, bytes);
		if (kind == MLOCKED && mlock(mem, bytes))
			_exit(1);
		if (write(pipes[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(pipes[1]);
	if (read(pipes[0], &ready, 1) != 1)
		pid = 0;
	close(pipes[0]);
	return pid;
}

static void child_end(pid_t *pid)
{
	if (*pid > 0) {
		kill(*pid, SIGKILL);
		waitpid(*pid, NULL, 0);
	}
	*pid = 0;
}

static int tmpfs_fill(size_t bytes)
{
	static char buf[1 << 20];
	int fd, err = 0;

	mkdir("/tmp", 0755);
	mkdir(DIR_TMPFS, 0755);
	if (mount("tmpfs", DIR_TMPFS, "tmpfs", 0, "size=100%"))
		return -errno;
	fd = open(DIR_TMPFS "/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	memset(buf, 1, sizeof(buf));
	for (; bytes >= sizeof(buf) && !err; bytes -= sizeof(buf))
		if (write(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
			err = -ENOSPC;
	close(fd);
	return err;
}

static int cache_fill(size_t bytes)
{
	static char buf[1 << 20];
	int fd = open(DEVICE, O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	for (; bytes >= sizeof(buf) && !err; bytes -= sizeof(buf))
		if (read(fd, buf, sizeof(buf)) != (ssize_t)sizeof(buf))
			err = -ENODATA;
	close(fd);
	return err;
}

FIXTURE_SETUP(foul)
{
	unsigned long room;
	char pages[32];
	int b, err = 0;

	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	/* What the kernel keeps for itself is missing. */
	self->ram_mb = (meminfo_mb("MemTotal:") + 255) / 256 * 256;
	if (self->ram_mb != variant->ram_mb)
		SKIP(return, "for a guest of %lu MiB, and this one has about %lu",
		     variant->ram_mb, self->ram_mb);
	self->low = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->low);
	self->dimm.node = variant->node;
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "f", variant->dimm_mb << 20,
				 self->policy, sizeof(self->policy), &self->base));
	for_each_block(b, &self->dimm)
		if (!err)
			err = block_set(b, "online_movable");
	ASSERT_EQ(0, err);

	self->bytes = variant->mb << 20;
	room = (meminfo_mb("MemFree:") << 20) - movable_free();
	if (variant->percent)
		self->bytes = room / 100 * variant->percent;
	switch (variant->kind) {
	case NOTHING:
		break;
	case HUGETLB:
		self->bytes -= self->bytes % HUGE;
		snprintf(pages, sizeof(pages), "%lu", self->bytes / HUGE);
		ASSERT_EQ(0, write_line("/proc/sys/vm/nr_hugepages", pages));
		/* fallthrough */
	case ANON:
	case MLOCKED:
		self->user = user_start(self->bytes, variant->kind, variant->node);
		ASSERT_LT(0, self->user);
		break;
	case CACHE:
		ASSERT_EQ(0, cache_fill(self->bytes));
		break;
	case TMPFS:
		ASSERT_EQ(0, tmpfs_fill(self->bytes));
		break;
	case BALLOON:
		self->total_mb = meminfo_mb("MemTotal:");
		ASSERT_EQ(0, host_request(NULL, 0, "balloon %luM",
					  self->ram_mb + variant->dimm_mb - variant->mb));
		ASSERT_TRUE(wait_until(meminfo_mb("MemTotal:") + variant->mb - 16 <=
				       self->total_mb, 600));
		memtotal_settle();
		break;
	}
}

static void let_go(FIXTURE_DATA(foul) *self, enum kind kind, unsigned long dimm_mb)
{
	unsigned long total;

	child_end(&self->user);
	child_end(&self->grower);
	if (kind == TMPFS)
		umount(DIR_TMPFS);
	if (kind == HUGETLB)
		write_line("/proc/sys/vm/nr_hugepages", "0");
	if (kind == BALLOON) {
		host_request(NULL, 0, "balloon %luM", self->ram_mb + dimm_mb);
		total = memtotal_settle();
		printf("# MemTotal %lu MiB with the balloon deflated\n", total);
	}
}

FIXTURE_TEARDOWN(foul)
{
	child_end(&self->bystander);
	child_end(&self->sampler);
	let_go(self, variant->kind, variant->dimm_mb);
	if (self->policy[0])
		EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

TEST_F_TIMEOUT(foul, unplug, TIMEOUT)
{
	int err, status = 0, blocks = blocks_present(NULL) - self->dimm.count;
	unsigned long total = meminfo_mb("MemTotal:");
	int kmsg = kmsg_open();
	double start;
	int kills;

	ASSERT_LE(0, kmsg);
	*self->low = read_field("/proc/meminfo", "MemAvailable:");
	self->sampler = sampler_start(self->low);
	self->bystander = bystander_start(variant->node);
	usleep(200000);
	if (variant->grows)
		self->grower = grower_start(self->bytes / variant->percent * variant->grows);

	start = now();
	err = host_request(NULL, 0, "del %s", self->dimm.id);
	start = now() - start;
	usleep(100000);
	kills = kmsg_count(kmsg, "Killed process");
	close(kmsg);
	child_end(&self->sampler);
	printf("# foul %s, %lu MiB: %s, %d oom kills, MemTotal %lu -> %lu MiB, MemAvailable at least %ld MiB, %.1f s\n",
	       variant->name, self->bytes >> 20, err ? "refused" : "removed", kills,
	       total, meminfo_mb("MemTotal:"), *self->low >> 10, start);
	EXPECT_EQ(0, kills);
	EXPECT_EQ(0, waitpid(self->bystander, &status, WNOHANG));
	if (self->user)
		EXPECT_EQ(0, waitpid(self->user, &status, WNOHANG));
	if (self->grower)
		EXPECT_EQ(0, waitpid(self->grower, &status, WNOHANG));
	if (variant->outcome != EITHER)
		EXPECT_EQ(variant->outcome == REMOVED, !err);

	/* Refused, it is all there, and goes when the memory is free. */
	if (err) {
		EXPECT_EQ(total, meminfo_mb("MemTotal:"));
		let_go(self, variant->kind, variant->dimm_mb);
		EXPECT_EQ(0, host_request(NULL, 0, "del %s", self->dimm.id));
	}
	EXPECT_EQ(0, wait_for_blocks(blocks, BLOCK_SECONDS));
	child_end(&self->bystander);
}

TEST_HARNESS_MAIN
