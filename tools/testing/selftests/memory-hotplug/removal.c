// SPDX-License-Identifier: GPL-2.0
/*
 * What is free of a block when it goes offline stays so until it is removed, or
 * the kernel tries again: compaction takes no page away, and an allocation that fails
 * does not undo its isolation. A memory failure that takes for ever keeps its own
 * block online, and no other; nothing waits for it. A device can be removed while the state of its blocks is
 * written.
 */
#include <ctype.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define DIMM_BYTES	(256UL << 20)
#define TIMEOUT		BLOCK_SECONDS
#define ROUNDS		20
#define WRITTEN_ROUNDS	5
/* The kernel gives up after one or two, or waits for ever. */
#define STUCK_SECONDS	60
#define CPU1		"/sys/devices/system/cpu/cpu1/online"
#define COMPACT		"/proc/sys/vm/compact_memory"
#define HARD_OFFLINE	MEMORY_SYSFS "/hard_offline_page"
#define FUSE_FILE	"/tmp/stuck"
#define GIGANTIC_BYTES	(1UL << 30)
#define GIGANTIC	"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
#define GIGANTIC_MOVE	"/proc/sys/vm/movable_gigantic_pages"

/* Bits of /proc/kpageflags */
#define LOCKED		(1ULL << 0)
#define UPTODATE	(1ULL << 3)
#define HWPOISON	(1ULL << 19)
#define NOPAGE		(1ULL << 20)

FIXTURE(removal)
{
	struct dimm dimm;
	struct counters base;
	char policy[32];
	int b;
};

FIXTURE_SETUP(removal)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	ASSERT_EQ(0, dimm_set_up(&self->dimm, "m", DIMM_BYTES, self->policy,
				 sizeof(self->policy), &self->base));
	self->b = self->dimm.first;
}

FIXTURE_TEARDOWN(removal)
{
	EXPECT_EQ(0, dimm_unplug(&self->dimm));
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
}

/* Every 16th page in use, its number in it: what compaction moves, and moves to. */
static unsigned char *sparse_memory(size_t size)
{
	size_t page = getpagesize(), i;
	unsigned char *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || madvise(p, size, MADV_NOHUGEPAGE))
		return NULL;
	for (i = 0; i < size; i += page)
		p[i] = i / page / 16;
	for (i = 0; i < size; i += page)
		if (i / page % 16 && madvise(p + i, page, MADV_DONTNEED))
			return NULL;
	return p;
}

/*
 * The two blocks are the zone. Compaction moves pages to the second one, out of
 * which the offline moves them. It takes no free page of a pageblock that is free as
 * a whole, so both blocks are used in each round.
 */
TEST_F_TIMEOUT(removal, compaction, TIMEOUT)
{
	size_t page = getpagesize(), size = DIMM_BYTES / 4 * 3, i;
	struct counters after;
	unsigned char *p;
	int round, status;
	pid_t pid;

	if (access(COMPACT, W_OK))
		SKIP(return, "no " COMPACT ": build with CONFIG_COMPACTION");
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	pid = fork();
	ASSERT_LE(0, pid);
	while (!pid)
		if (write_line(COMPACT, "1"))
			_exit(1);
	for (round = 0; round < ROUNDS; round++) {
		ASSERT_EQ(0, block_set(self->b + 1, "online_movable"));
		p = sparse_memory(size);
		ASSERT_NE(NULL, p);
		EXPECT_EQ(0, block_set(self->b + 1, "offline"))
			TH_LOG("round %d", round);
		for (i = 0; i < size; i += 16 * page)
			ASSERT_EQ((unsigned char)(i / page / 16), p[i]);
		munmap(p, size);
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(0, block_set(self->b, "offline"));
	ASSERT_EQ(0, counters_read(NODE, &after));
	EXPECT_EQ(0, counters_differ(&self->base, &after));
}

/*
 * The files of a block are removed while a task writes to one of them. Such a write
 * waits until the removal has let go of the lock for hotplug, or has removed the file.
 * Lockdep looks at what the removal holds meanwhile.
 */
TEST_F_TIMEOUT(removal, state_written, TIMEOUT)
{
	struct dimm *d = &self->dimm;
	int b, err, round, pipes[2];
	struct counters after;
	char path[96];
	pid_t pid;

	for (round = 0; round < WRITTEN_ROUNDS; round++) {
		for_each_block(b, d)
			ASSERT_EQ(0, block_set(b, "online_movable"));
		ASSERT_EQ(0, dimm_offline(d));
		ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
		pid = fork();
		ASSERT_LE(0, pid);
		for (b = d->first; !pid; b = b + 1 < d->first + d->count ? b + 1 : d->first) {
			snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d/state", b);
			write_line(path, "offline");
			close(pipes[1]);
		}
		/* The writer has begun when the pipe has no other end. */
		close(pipes[1]);
		read(pipes[0], path, 1);
		close(pipes[0]);
		err = dimm_unplug(d);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		ASSERT_EQ(0, err);
		ASSERT_EQ(0, dimm_plug(d, DIMM_BYTES));
	}
	ASSERT_EQ(0, counters_read(NODE, &after));
	EXPECT_EQ(0, counters_differ(&self->base, &after));
}

/* Pageblocks that are isolated: the last column of a table by zone */
static long pageblocks_isolated(void)
{
	FILE *f = fopen("/proc/pagetypeinfo", "r");
	bool table = false;
	char line[256];
	long sum = 0;
	size_t len;

	if (!f)
		return -errno;
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, "Node", 4)) {
			table = !strncmp(line, "Number of blocks type", 21) &&
				strstr(line, "Isolate");
			continue;
		}
		if (!table)
			continue;
		for (len = strlen(line); len && isspace(line[len - 1]); )
			line[--len] = '\0';
		sum += atol(strrchr(line, ' '));
	}
	fclose(f);
	return sum;
}

/* A block goes offline that is part of what a gigantic page would need. */
TEST_F_TIMEOUT(removal, gigantic, TIMEOUT)
{
	size_t size = getpagesize();
	struct iovec iov = { .iov_len = size };
	struct dimm rest;
	int b, i, pipes[2], status;
	struct counters after;
	unsigned char *p, page[size];
	long isolated;
	pid_t pid;

	if (access(GIGANTIC, W_OK) || access(GIGANTIC_MOVE, W_OK))
		SKIP(return, "no " GIGANTIC " or no " GIGANTIC_MOVE);
	snprintf(rest.id, sizeof(rest.id), "g%d", getpid());
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	*p = 0x5a;
	ASSERT_EQ(self->b, block_of(p));
	iov.iov_base = p;
	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ((ssize_t)size, vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_EQ(0, madvise(p, size, MADV_DONTFORK));
	ASSERT_EQ(0, dimm_plug(&rest, GIGANTIC_BYTES - DIMM_BYTES));
	ASSERT_EQ(0, block_set(self->b + 1, "online_movable"));
	for_each_block(b, &rest)
		ASSERT_EQ(0, block_set(b, "online_movable"));
	ASSERT_EQ(0, write_line(GIGANTIC_MOVE, "1"));

	ASSERT_EQ(0, pageblocks_isolated());
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(-block_set_within(self->b, "offline", TIMEOUT));
	isolated = block_pages() / read_field("/proc/pagetypeinfo", "Pages per block:");
	ASSERT_TRUE(wait_until(pageblocks_isolated() == isolated, BLOCK_SECONDS));
	/* The page may be off the LRU lists: then the kernel looks elsewhere. */
	for (i = 0; i < ROUNDS && pageblocks_isolated() == isolated; i++) {
		ASSERT_EQ(0, write_line(GIGANTIC, "0"));
		ASSERT_EQ(0, write_line(GIGANTIC, "1"));
	}
	EXPECT_EQ(isolated, pageblocks_isolated())
		TH_LOG("a failed allocation undid the isolation");
	if (pageblocks_isolated() != isolated)
		kill(pid, SIGALRM);
	/* The child has the pipe as well: only reading all of it unpins the page. */
	ASSERT_EQ((ssize_t)size, read(pipes[0], page, size));
	close(pipes[0]);
	close(pipes[1]);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0x5a, *p);
	EXPECT_EQ(0x5a, *page);
	munmap(p, size);

	EXPECT_EQ(0, write_line(GIGANTIC, "0"));
	EXPECT_EQ(0, write_line(GIGANTIC_MOVE, "0"));
	EXPECT_EQ(0, dimm_unplug(&rest));
	EXPECT_EQ(0, dimm_offline(&self->dimm));
	ASSERT_EQ(0, counters_read(NODE, &after));
	EXPECT_EQ(0, counters_differ(&self->base, &after));
}

static int fuse_answer(int dev, __u64 unique, int error, const void *data, size_t size)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + size, .error = error, .unique = unique,
	};
	struct iovec iov[] = {
		{ .iov_base = &out, .iov_len = sizeof(out) },
		{ .iov_base = (void *)data, .iov_len = size },
	};

	return writev(dev, iov, 2) == out.len ? 0 : -errno;
}

/* A file system that is one file of a page. Returns when that is read, with the request. */
static __u64 fuse_serve(int dev)
{
	static char request[FUSE_MIN_READ_BUFFER + (128 << 10)];
	const struct fuse_in_header *in = (void *)request;
	const struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
		.max_write = 4096,
	};
	const struct fuse_attr_out attr = {
		.attr = { .ino = 1, .size = 4096, .mode = S_IFREG | 0444, .nlink = 1 },
	};
	const struct fuse_open_out open = { .fh = 1 };

	while (read(dev, request, sizeof(request)) > 0) {
		int err = 0;

		if (in->opcode == FUSE_READ)
			return in->unique;
		if (in->opcode == FUSE_INIT)
			err = fuse_answer(dev, in->unique, 0, &init, sizeof(init));
		else if (in->opcode == FUSE_GETATTR)
			err = fuse_answer(dev, in->unique, 0, &attr, sizeof(attr));
		else if (in->opcode == FUSE_OPEN)
			err = fuse_answer(dev, in->unique, 0, &open, sizeof(open));
		else
			err = fuse_answer(dev, in->unique, -ENOSYS, NULL, 0);
		if (err)
			complain("/dev/fuse", err);
	}
	return 0;
}

/* Fail what @reader reads, which it does more than once, until it ends. */
static void fuse_fail(int dev, pid_t reader, int *status)
{
	struct pollfd ready = { .fd = dev, .events = POLLIN };
	__u64 request;

	fcntl(dev, F_SETFL, O_NONBLOCK);
	while (waitpid(reader, status, WNOHANG) != reader) {
		if (poll(&ready, 1, 10) != 1)
			continue;
		request = fuse_serve(dev);
		if (request)
			fuse_answer(dev, request, -EIO, NULL, 0);
	}
}

static __u64 page_flags(unsigned long pfn)
{
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	__u64 flags = NOPAGE;

	if (pread(fd, &flags, sizeof(flags), pfn * sizeof(flags)) != sizeof(flags))
		flags = NOPAGE;
	close(fd);
	return flags;
}

/* The page that is being read: locked, without its data yet. */
static unsigned long locked_pfn(void)
{
	static __u64 flags[1 << 16];
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
	unsigned long first = 0, found = 0;
	ssize_t n, i;

	while (!found && (n = read(fd, flags, sizeof(flags))) > 0) {
		n /= sizeof(*flags);
		for (i = 0; i < n && !found; i++)
			if ((flags[i] & (LOCKED | UPTODATE | NOPAGE)) == LOCKED)
				found = first + i;
		first += n;
	}
	close(fd);
	return found;
}

static int fuse_dev;

/* Without the device: when this program ends, so do all that wait for an answer. */
static pid_t child(int (*run)(const void *), const void *arg)
{
	pid_t pid = fork();

	if (!pid) {
		close(fuse_dev);
		_exit(-run(arg));
	}
	return pid;
}

static int read_file(const void *path)
{
	int fd = open(path, O_RDONLY);
	char byte;

	return fd >= 0 && read(fd, &byte, 1) >= 0 ? 0 : -errno;
}

static int fail_page(const void *pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", *(unsigned long *)pfn * getpagesize());
	return write_line(HARD_OFFLINE, text);
}

static int remove_dimm(const void *id)
{
	return host_request(NULL, 0, "del %s", (const char *)id);
}

static int toggle_cpu(const void *path)
{
	int err = write_line(path, "0");

	return err ? err : write_line(path, "1");
}

static bool ended(pid_t pid, int *status)
{
	return pid == waitpid(pid, status, WNOHANG);
}

/* A page of a file that is read for ever stays locked, and its failure waits. */
TEST_F_TIMEOUT(removal, stuck_failure, TIMEOUT)
{
	bool del_ended, cpu_ended = true;
	pid_t reader, failure, del, cpu = 0;
	int fd, status, err, stuck, other;
	unsigned long pfn;
	char options[96];
	__u64 request;

	fuse_dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fuse_dev < 0 || access(HARD_OFFLINE, W_OK))
		SKIP(return, "build with CONFIG_FUSE_FS, CONFIG_MEMORY_FAILURE");
	/* The only movable memory: where the page of the file comes from */
	ASSERT_EQ(0, block_set(self->b, "online_movable"));
	ASSERT_EQ(0, block_set(self->b + 1, "online_movable"));
	mkdir("/tmp", 0755);
	fd = open(FUSE_FILE, O_CREAT | O_WRONLY, 0644);
	ASSERT_LE(0, fd);
	close(fd);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=100444,user_id=0,group_id=0", fuse_dev);
	ASSERT_EQ(0, mount("stuck", FUSE_FILE, "fuse", 0, options));
	reader = child(read_file, FUSE_FILE);
	request = fuse_serve(fuse_dev);
	ASSERT_NE(0ULL, request);
	pfn = locked_pfn();
	ASSERT_NE(0UL, pfn);
	stuck = pfn / block_pages();
	ASSERT_LE(self->b, stuck);
	ASSERT_GE(self->b + 1, stuck);
	other = 2 * self->b + 1 - stuck;
	failure = child(fail_page, &pfn);
	ASSERT_TRUE(wait_until(page_flags(pfn) & HWPOISON, BLOCK_SECONDS));

	EXPECT_EQ(0, block_set_within(other, "offline", STUCK_SECONDS))
		TH_LOG("a failure in other memory keeps the block online");
	err = block_set_within(stuck, "offline", STUCK_SECONDS);
	EXPECT_NE(-EINTR, err)
		TH_LOG("the offline waited for the memory failure");
	EXPECT_EQ(-EBUSY, err);
	del = child(remove_dimm, self->dimm.id);
	del_ended = wait_until(ended(del, &status), STUCK_SECONDS);
	EXPECT_TRUE(del_ended)
		TH_LOG("device_del waits for the memory failure");
	if (del_ended)
		EXPECT_NE(0, status);
	if (!access(CPU1, W_OK)) {
		cpu = child(toggle_cpu, CPU1);
		cpu_ended = wait_until(ended(cpu, &status), STUCK_SECONDS);
		EXPECT_TRUE(cpu_ended)
			TH_LOG("a CPU cannot go offline");
		if (cpu_ended)
			EXPECT_EQ(0, status);
	}
	EXPECT_EQ(0, waitpid(failure, &status, WNOHANG))
		TH_LOG("the memory failure was not stuck");

	EXPECT_EQ(0, fuse_answer(fuse_dev, request, -EIO, NULL, 0));
	fuse_fail(fuse_dev, reader, &status);
	EXPECT_EQ(failure, waitpid(failure, &status, 0));
	if (!del_ended)
		waitpid(del, &status, 0);
	if (!cpu_ended)
		waitpid(cpu, &status, 0);
	EXPECT_EQ(0, umount2(FUSE_FILE, MNT_DETACH));
	close(fuse_dev);
	unlink(FUSE_FILE);
	EXPECT_EQ(1, block_online(stuck));
}

TEST_HARNESS_MAIN
