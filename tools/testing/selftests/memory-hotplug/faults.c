// SPDX-License-Identifier: GPL-2.0
/*
 * Faults lose nothing: after each one counters are exact, memory is usable, and the
 * same operation succeeds when it is tried again.
 *
 * Each allocation on the way of an operation fails once in turn. In a system call that
 * is what /proc/<pid>/fail-nth is for. An operation that the host asks for runs in a
 * worker: there all workers are told to fail the Nth allocation below one function,
 * which only one of them runs.
 */
#include <ctype.h>
#include <linux/fuse.h>
#include <linux/io_uring.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "memhp.h"
#include "kselftest_harness.h"

#define NODE		0
#define TIMEOUT		BLOCK_SECONDS
#define DEBUGFS		"/sys/kernel/debug"
#define INJECT		DEBUGFS "/notifier-error-inject/memory/actions"
#define INJECT_ONLINE	INJECT "/MEM_GOING_ONLINE/error"
#define INJECT_OFFLINE	INJECT "/MEM_GOING_OFFLINE/error"
#define FILTER		DEBUGFS "/failslab/require-start"
#define KMEMLEAK	DEBUGFS "/kmemleak"
#define MODULE		"/lib/modules/test_memory_owner.ko"
#define CONTROL		DEBUGFS "/test_memory_owner/control"
#define START		0x80000000UL
#define SIZE		0x20000000UL
#define RAM_MB		3072UL
#define NO_SPARE_RAM	"the kernel uses the memory: boot with mem=2G where there are 3 GiB"
#define NO_FAULTS	"no " FILTER ": build with CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC and CONFIG_FAULT_INJECTION_STACKTRACE_FILTER, mount debugfs"
/* What the firmware asks for: ACPICA does not undo half a method. */
#define AML		"acpi_ns_evaluate"
#define CPU1		"/sys/devices/system/cpu/cpu1/online"
#define DISK		"/dev/ram0"
#define FUSE_FILE	"/tmp/faults"
#define FUSE_WRITE_BYTES (128 << 10)
#define SIGNALS		24
#define ROUNDS		12
#define ERRORS		100
/* Each page is allocated in the same way. */
#define BALLOON		200
#define DIMM_BYTES	(256UL << 20)
#define VETO_BYTES	(1UL << 30)
#define MAPPED_BYTES	(1UL << 30)
#define DIRECT_MAPS	2
/* Its memmap takes 128 MiB. */
#define BIG_BYTES	(8UL << 30)
#define ROOM_BYTES	(64UL << 20)
#define REPLUGS		8
#define ADD_PASSES	3
/* Each page that is migrated is allocated in the same way. */
#define DELS		10
#define TOUCH_BYTES	(4UL << 20)
/* At least so many in all */
#define FAULTS		"1000"
/* Allocations to fail one after the other, before there are too many of them */
#define EACH		200
#define MAX_WORKERS	256
/* Of the allocations of device_add and virtio-mem */
#define STEP		"2"

/* All tests together; each runs in a process of its own. */
static struct {
	long injected, survived, failed;
} *faults;

static __attribute__((constructor)) void share_faults(void)
{
	faults = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static int attr_write(const char *attr, const char *file, const char *value)
{
	char path[128];
	int err;

	snprintf(path, sizeof(path), DEBUGFS "/%s/%s", attr, file);
	err = write_line(path, value);
	return err ? complain(path, err) : 0;
}

/* What may fail: any allocation, of any size, without a report of it. */
static bool faults_possible(void)
{
	return !access(FILTER, F_OK) && !access(DEBUGFS "/fail_page_alloc", F_OK) &&
	       !attr_write("failslab", "ignore-gfp-wait", "N") &&
	       !attr_write("failslab", "verbose", "0") &&
	       !attr_write("fail_page_alloc", "ignore-gfp-wait", "N") &&
	       !attr_write("fail_page_alloc", "ignore-gfp-highmem", "N") &&
	       !attr_write("fail_page_alloc", "min-order", "0") &&
	       !attr_write("fail_page_alloc", "verbose", "0");
}

/* Where a function of the kernel starts and the next one does. */
static int symbol_find(const char *name, unsigned long *start, unsigned long *end)
{
	FILE *f = fopen("/proc/kallsyms", "r");
	unsigned long at;
	char line[256], symbol[128];
	int pass;

	*start = 0;
	*end = -1UL;
	for (pass = 0; f && pass < 2; pass++) {
		rewind(f);
		while (fgets(line, sizeof(line), f)) {
			if (sscanf(line, "%lx %*c %127s", &at, symbol) != 2)
				continue;
			if (!pass && !strcmp(symbol, name))
				*start = at;
			if (pass && at > *start && at < *end)
				*end = at;
		}
	}
	if (f)
		fclose(f);
	return *start ? 0 : complain(name, -ENOENT);
}

/* Only allocations below @require fail, and of them none that are below @reject. */
static int filter_set(const char *require, const char *reject)
{
	static const char * const attr[] = { "failslab", "fail_page_alloc" };
	unsigned long start = 0, end = -1UL, not_start = 0, not_end = 0;
	char text[4][32];
	size_t i;
	int err = 0;

	if (require)
		err = symbol_find(require, &start, &end);
	if (!err && reject)
		err = symbol_find(reject, &not_start, &not_end);
	snprintf(text[0], sizeof(text[0]), "0x%lx", start);
	snprintf(text[1], sizeof(text[1]), "0x%lx", end);
	snprintf(text[2], sizeof(text[2]), "0x%lx", not_start);
	snprintf(text[3], sizeof(text[3]), "0x%lx", not_end);
	for (i = 0; i < ARRAY_SIZE(attr) && !err; i++)
		err = attr_write(attr[i], "require-start", text[0]) ?:
		      attr_write(attr[i], "require-end", text[1]) ?:
		      attr_write(attr[i], "reject-start", text[2]) ?:
		      attr_write(attr[i], "reject-end", text[3]);
	return err;
}

/* Files to arm: that of this thread, or those of all workers. */
static int nth_fds[MAX_WORKERS], nr_nth;
static unsigned int nth_armed;

static void nth_close(void)
{
	while (nr_nth)
		close(nth_fds[--nr_nth]);
}

static int nth_open_self(void)
{
	nth_close();
	nth_fds[0] = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fds[0] < 0)
		return -errno;
	nr_nth = 1;
	return 0;
}

static int nth_open_workers(void)
{
	DIR *dir = opendir("/proc");
	char path[300], comm[32];
	struct dirent *e;
	FILE *f;

	nth_close();
	while (dir && nr_nth < MAX_WORKERS && (e = readdir(dir))) {
		if (!isdigit(e->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		if (fgets(comm, sizeof(comm), f) && !strncmp(comm, "kworker/", 8)) {
			snprintf(path, sizeof(path), "/proc/%s/fail-nth", e->d_name);
			nth_fds[nr_nth] = open(path, O_RDWR | O_CLOEXEC);
			nr_nth += nth_fds[nr_nth] >= 0;
		}
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return nr_nth ? 0 : -ENOENT;
}

static void nth_arm(unsigned int nth)
{
	char text[16];
	int i, len = snprintf(text, sizeof(text), "%u", nth);

	nth_armed = nth;

	/* A worker may be gone. */
	for (i = 0; i < nr_nth; i++)
		if (pwrite(nth_fds[i], text, len, 0) < 0 && errno != ESRCH)
			complain("fail-nth", -errno);
}

/* Whether a fault was injected. */
static bool injected(void)
{
	bool hit = false;
	char text[16] = "";
	int i;

	for (i = 0; nth_armed && i < nr_nth; i++)
		hit |= pread(nth_fds[i], text, sizeof(text), 0) > 0 && !atoi(text);
	return hit;
}

/* Each @step up to EACH, then fewer and fewer. */
static unsigned int nth_next(unsigned int nth, unsigned int step)
{
	return nth < EACH ? nth + (step ?: 1) : nth + nth / 16;
}

/* Counters, what hot-added blocks there are in which state, and /proc/iomem. */
struct snapshot {
	struct counters counters;
	char state[MAX_BLOCKS];
	char iomem[16384];
};

static bool boot_blocks[MAX_BLOCKS];

static int iomem_read(char *text, size_t size)
{
	FILE *f = fopen("/proc/iomem", "r");
	size_t len = f ? fread(text, 1, size, f) : 0;

	if (f)
		fclose(f);
	if (!len || len == size)
		return complain("/proc/iomem", -EIO);
	text[len] = '\0';
	return 0;
}

/* The first line in which they differ */
static bool iomem_differs(const char *expected, const char *seen)
{
	size_t i = 0, line = 0;

	for (; expected[i] && expected[i] == seen[i]; i++)
		if (seen[i] == '\n')
			line = i + 1;
	if (expected[i] == seen[i])
		return false;
	fprintf(stderr, "# iomem: %.*s instead of %.*s\n",
		(int)strcspn(seen + line, "\n"), seen + line,
		(int)strcspn(expected + line, "\n"), expected + line);
	return true;
}

static int snapshot(struct snapshot *s)
{
	static bool present[MAX_BLOCKS];
	int b;

	memset(s, 0, sizeof(*s));
	if (blocks_present(present) < 0 || iomem_read(s->iomem, sizeof(s->iomem)))
		return -EIO;
	for (b = 0; b < MAX_BLOCKS; b++)
		if (present[b] && !boot_blocks[b])
			s->state[b] = block_online(b) == 1 ? '1' : '0';
	return counters_read(NODE, &s->counters);
}

static bool same(const struct snapshot *expected)
{
	static struct snapshot seen;
	int b, bad = 0;

	if (snapshot(&seen))
		return false;
	for (b = 0; b < MAX_BLOCKS; b++)
		if (expected->state[b] != seen.state[b] && bad++ < 8)
			fprintf(stderr, "# memory%d: state '%c' instead of '%c'\n", b,
				seen.state[b] ?: '-', expected->state[b] ?: '-');
	return !iomem_differs(expected->iomem, seen.iomem) && !bad &&
	       !counters_differ(&expected->counters, &seen.counters);
}

/* Memory can be allocated and keeps what is written to it. */
static void fill(unsigned long *p, unsigned long seed)
{
	for (unsigned long i = 0; i < TOUCH_BYTES / sizeof(long); i += 64)
		p[i] = (seed + i) * 0x9e3779b97f4a7c15UL;
}

static bool intact(const unsigned long *p, unsigned long seed)
{
	unsigned long i, nr = TOUCH_BYTES / sizeof(long);

	for (i = 0; i < nr && p[i] == (seed + i) * 0x9e3779b97f4a7c15UL; i += 64)
		;
	if (i < nr)
		fprintf(stderr, "# word %lu of %lu changed\n", i, nr);
	return i >= nr;
}

static bool usable(unsigned long *p)
{
	bool good;

	fill(p, 1);
	good = intact(p, 1);
	madvise(p, TOUCH_BYTES, MADV_DONTNEED);
	return good;
}

static int state_set(int b, const char *state)
{
	return write(block_fds[b], state, strlen(state)) < 0 ? -errno : 0;
}

#define SURVIVES(expr)							\
do {									\
	faults->injected++;						\
	ASSERT_TRUE(expr);						\
	faults->survived++;						\
} while (0)

FIXTURE(faults)
{
	struct dimm dimm;
	struct snapshot base;
	char policy[32];
	unsigned long *mem;
	double start;
	/* So many faults of this test at least: a few less than there were. */
	long least;
	long injected, survived, failed;
	int kmsg;
};

FIXTURE_SETUP(faults)
{
	if (!have_host())
		SKIP(return, "no host port: run under scripts/vm");
	snprintf(self->dimm.id, sizeof(self->dimm.id), "f%d", getpid());
	self->mem = memory_map(TOUCH_BYTES);
	ASSERT_NE(NULL, self->mem);
	ASSERT_EQ(0, auto_online_set("offline", self->policy, sizeof(self->policy)));
	self->kmsg = kmsg_open();
	ASSERT_LE(0, self->kmsg);
	ASSERT_LT(0, blocks_present(boot_blocks));
	ASSERT_EQ(0, snapshot(&self->base));
	self->start = now();
	self->injected = faults->injected;
	self->survived = faults->survived;
	self->failed = faults->failed;
}

FIXTURE_TEARDOWN(faults)
{
	nth_arm(0);
	if (!access(FILTER, F_OK))
		EXPECT_EQ(0, filter_set(NULL, NULL));
	if (!access(INJECT, F_OK)) {
		EXPECT_EQ(0, write_line(INJECT_ONLINE, "0"));
		EXPECT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	}
	EXPECT_EQ(0, auto_online_set(self->policy, NULL, 0));
	EXPECT_TRUE(same(&self->base));
	EXPECT_FALSE(kmsg_trouble(self->kmsg));
	if (_metadata->exit_code != KSFT_SKIP)
		EXPECT_LE(self->least, faults->injected - self->injected);
	ksft_print_msg("%ld faults injected, %ld survived, the operation failed in %ld: %.0f s\n",
		       faults->injected - self->injected, faults->survived - self->survived,
		       faults->failed - self->failed, now() - self->start);
}

static void plug(struct __test_metadata *_metadata, FIXTURE_DATA(faults) *self)
{
	ASSERT_EQ(0, dimm_plug(&self->dimm, DIMM_BYTES));
}

/*
 * An operation: run() returns an error and leaves everything as it was, or does it. A
 * fault may make it fail. undo() takes back what run() did, may_undo() what is left on
 * the host where it failed; neither may fail.
 */
struct op {
	const char *name;
	int (*run)(void *data), (*undo)(void *data), (*undo_failed)(void *data);
	void *data;
	bool in_worker;
	unsigned int max, step;
};

/*
 * Let each allocation of the operation fail: it either happens all the same, or not at
 * all. In either case it can be done next, and undone.
 */
static void walk(struct __test_metadata *_metadata, FIXTURE_DATA(faults) *self,
		 const struct op *op)
{
	static struct snapshot before, after;
	long was = faults->injected, failed = 0;
	double start = now();
	int err, strays = 0;
	unsigned int nth;
	bool hit;

	ASSERT_EQ(0, snapshot(&before));
	nth_arm(0);
	ASSERT_EQ(0, op->run(op->data));
	ASSERT_EQ(0, snapshot(&after));
	ASSERT_EQ(0, op->undo(op->data));
	ASSERT_TRUE(same(&before));
	ASSERT_EQ(0, op->in_worker ? nth_open_workers() : nth_open_self());
	for (nth = 1; nth <= (op->max ?: -1U); ) {
		nth_arm(nth);
		err = op->run(op->data);
		hit = injected();
		nth_arm(0);
		if (!hit && !err && op->in_worker && strays++ < 3) {
			/* Another worker than those that were armed, or no allocation left */
			ASSERT_EQ(0, op->undo(op->data));
			ASSERT_EQ(0, nth_open_workers());
			continue;
		}
		if (!hit)
			break;
		strays = 0;
		faults->injected++;
		if (nth % 16 == 1)
			ksft_print_msg("%s: allocation %u\n", op->name, nth);
		if (err) {
			failed++;
			if (op->undo_failed)
				ASSERT_EQ(0, op->undo_failed(op->data));
			ASSERT_TRUE(same(&before))
				TH_LOG("%s, allocation %u: %s", op->name, nth, strerror(-err));
			ASSERT_EQ(0, op->run(op->data))
				TH_LOG("%s again after allocation %u", op->name, nth);
		}
		ASSERT_TRUE(same(&after))
			TH_LOG("%s, allocation %u", op->name, nth);
		if (faults->injected % 16 == 0)
			ASSERT_TRUE(usable(self->mem));
		ASSERT_EQ(0, op->undo(op->data))
			TH_LOG("undo %s after allocation %u", op->name, nth);
		faults->survived++;
		nth = nth_next(nth, op->step);
	}
	if (!hit) {
		ASSERT_EQ(0, err);
		ASSERT_TRUE(same(&after));
		ASSERT_EQ(0, op->undo(op->data));
	}
	ASSERT_TRUE(same(&before));
	nth_close();
	faults->failed += failed;
	ksft_print_msg("%s: %ld of %u allocations failed, %ld times the operation did, %.0f s\n",
		       op->name, faults->injected - was, nth - 1, failed, now() - start);
}

static int run_online(void *data)
{
	return state_set(*(int *)data, "online_movable");
}

static int run_offline(void *data)
{
	return state_set(*(int *)data, "offline");
}

/* System calls that change the state of a block. */
TEST_F_TIMEOUT(faults, state, TIMEOUT)
{
	int b;
	struct op online = { "online", run_online, run_offline, .data = &b };
	struct op offline = { "offline", run_offline, run_online, .data = &b };

	self->least = 50;
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	plug(_metadata, self);
	b = self->dimm.first;
	/* Into an empty zone, and into one that grows for it */
	walk(_metadata, self, &online);
	ASSERT_EQ(0, state_set(b + 1, "online_movable"));
	walk(_metadata, self, &online);
	ASSERT_EQ(0, state_set(b, "online_movable"));
	walk(_metadata, self, &offline);
	/* With pages to migrate */
	fill(self->mem, 2);
	walk(_metadata, self, &offline);
	EXPECT_TRUE(intact(self->mem, 2));
	madvise(self->mem, TOUCH_BYTES, MADV_DONTNEED);
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

static bool has_spare_ram(const struct counters *c)
{
	return c->total * getpagesize() <= START;
}

/* A driver that owns memory: its module, and what it adds and removes. */
static int control_fd, module_fd;

static int run_load(void *data __maybe_unused)
{
	char parameters[64];

	snprintf(parameters, sizeof(parameters), "start=%lu size=%lu", START, SIZE);
	return syscall(SYS_finit_module, module_fd, parameters, 0) ? -errno : 0;
}

static int run_unload(void *data __maybe_unused)
{
	return syscall(SYS_delete_module, "test_memory_owner", O_NONBLOCK) ? -errno : 0;
}

static int control(const char *verb, int n)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "%s %d %d", verb, n / 2, n % 2);

	return write(control_fd, line, len) < 0 ? -errno : 0;
}

/* The owner refuses one block, with any error. */
static void owner_refuses(struct __test_metadata *_metadata, FIXTURE_DATA(faults) *self,
			  int n, int b)
{
	static struct snapshot before;
	char line[64];
	int error;

	ASSERT_EQ(0, snapshot(&before));
	for (error = 1; error <= ERRORS; error++) {
		snprintf(line, sizeof(line), "refuse %d %d", n / 2, error);
		ASSERT_EQ(0, write_line(CONTROL, line));
		SURVIVES(state_set(b, online_as[1 + error % 2]) == -error && same(&before));
	}
	snprintf(line, sizeof(line), "refuse %d 0", n / 2);
	ASSERT_EQ(0, write_line(CONTROL, line));
	ASSERT_EQ(0, state_set(b, "online_movable"));
	ASSERT_TRUE(usable(self->mem));
	ASSERT_EQ(0, state_set(b, "offline"));
}

static int run_add(void *data)
{
	return control("add", *(int *)data);
}

static int run_remove(void *data)
{
	return control("remove", *(int *)data);
}

TEST_F_TIMEOUT(faults, owner, TIMEOUT)
{
	int n, b;
	struct op load = { "load the owner", run_load, run_unload, .data = NULL };
	struct op add = { "add a block", run_add, run_remove, .data = &n };
	struct op remove = { "remove a block", run_remove, run_add, .data = &n };
	struct op online = { "online with an owner", run_online, run_offline, .data = &b };

	self->least = 500;
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	if (access(MODULE, F_OK))
		SKIP(return, "no " MODULE ": build with CONFIG_TEST_MEMORY_OWNER=m");
	if (!has_spare_ram(&self->base.counters))
		SKIP(return, NO_SPARE_RAM);
	module_fd = open(MODULE, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, module_fd);
	walk(_metadata, self, &load);
	ASSERT_EQ(0, run_load(NULL));
	control_fd = open(CONTROL, O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, control_fd);
	for (n = 0; n < 4; n++) {
		b = START / block_bytes() + n;
		walk(_metadata, self, &add);
		ASSERT_EQ(0, run_add(&n));
		walk(_metadata, self, &remove);
		block_fds[b] = block_open(b);
		ASSERT_LT(0, block_fds[b]);
		owner_refuses(_metadata, self, n, b);
		if (n % 2 == 0)
			walk(_metadata, self, &online);
		close(block_fds[b]);
	}
	for (n = 0; n < 4; n++)
		ASSERT_EQ(0, run_remove(&n));
	close(control_fd);
	ASSERT_EQ(0, run_unload(NULL));
}

/*
 * The worker has finished: it holds the lock of device hotplug, for which a write to the
 * state of any block has to wait.
 */
static void wait_for_hotplug(void)
{
	write_line(MEMORY_SYSFS "/memory0/state", "online");
}

/* Each event of a device takes seconds on a debug kernel. */
static unsigned int device_step(void)
{
	return atoi(getenv("STEP") ?: STEP);
}

struct host_dimm {
	struct dimm dimm;
	int before;
	unsigned long *mem;
};

/* What the guest made of a DIMM, once it has looked at it. */
static int dimm_seen(struct host_dimm *h, unsigned long bytes)
{
	int err = host_request(NULL, 0, "seen %s", h->dimm.id);

	if (err)
		return err;
	wait_for_hotplug();
	return blocks_present(NULL) == h->before + (int)(bytes / block_bytes()) ? 0 : -ENOMEM;
}

static int dimm_add(struct host_dimm *h, unsigned long bytes)
{
	int err = host_request(NULL, 0, "add dimm %s %luM", h->dimm.id, bytes >> 20);

	return err ?: dimm_seen(h, bytes);
}

static int run_dimm_add(void *data)
{
	return dimm_add(data, DIMM_BYTES);
}

/* The host may plug the next DIMM while ACPI still looks whether this one has gone. */
static int run_dimm_del(void *data)
{
	struct host_dimm *h = data;
	int err = host_request(NULL, 0, "del %s", h->dimm.id);

	return err ?: wait_for_blocks(h->before, TIMEOUT);
}

TEST_F_TIMEOUT(faults, device_add, TIMEOUT)
{
	struct host_dimm h = { .before = blocks_present(NULL) };
	struct op add = { "device_add", run_dimm_add, run_dimm_del, run_dimm_del, &h,
			  .in_worker = true, .step = device_step() };
	struct op sections = add;
	int i;

	self->least = getenv("MAX") ? 1 : 60 / add.step;
	strcpy(h.dimm.id, self->dimm.id);
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	/* A slab that is full moves what comes next by one: one pass may miss some. */
	sections.name = "add sections";
	sections.step = 1;
	ASSERT_EQ(0, filter_set("__add_pages", NULL));
	for (i = 0; i < ADD_PASSES; i++)
		walk(_metadata, self, &sections);
	ASSERT_EQ(0, filter_set("acpi_memory_device_add", AML));
	/* The first MAX of them, if that is set */
	add.max = atoi(getenv("MAX") ?: "0");
	walk(_metadata, self, &add);
}

/*
 * When a DIMM that is mapped with pages of 1 GiB cannot be added, its mapping goes:
 * the next one at its address may be smaller.
 */
TEST_F_TIMEOUT(faults, direct_map, TIMEOUT)
{
	struct host_dimm h = { .before = blocks_present(NULL) };
	int i, strays = 0;
	bool hit;

	self->least = 1;
	strcpy(h.dimm.id, self->dimm.id);
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	ASSERT_EQ(0, filter_set("__add_pages", NULL));
	for (i = 0; i < DIRECT_MAPS; ) {
		ASSERT_GT(20, strays);
		ASSERT_EQ(0, nth_open_workers());
		nth_arm(1 + strays % 4);
		hit = dimm_add(&h, MAPPED_BYTES) && injected();
		nth_arm(0);
		ASSERT_EQ(0, run_dimm_del(&h));
		/* Another worker than those that were armed, or memory came all the same */
		strays += !hit;
		if (!hit)
			continue;
		SURVIVES(!run_dimm_add(&h) && !run_dimm_del(&h) && same(&self->base));
		i++;
	}
	nth_close();
}

/* A DIMM comes while ACPI still looks whether the one before has gone from its slot. */
TEST_F_TIMEOUT(faults, replug, TIMEOUT)
{
	struct host_dimm h = { .before = blocks_present(NULL) };
	int i;

	self->least = 8;
	strcpy(h.dimm.id, self->dimm.id);
	ASSERT_EQ(0, run_dimm_add(&h));
	for (i = 0; i < REPLUGS; i++) {
		ASSERT_EQ(0, host_request(NULL, 0, "replug %s", h.dimm.id));
		SURVIVES(!dimm_seen(&h, DIMM_BYTES));
	}
	ASSERT_EQ(0, run_dimm_del(&h));
}

/* A guest that is full, up to what it needs to go on */
TEST_F_TIMEOUT(faults, no_room, TIMEOUT)
{
	struct host_dimm h = { .before = blocks_present(NULL) };
	unsigned long available, bytes;
	char *p;
	int i;

	self->least = 4;
	strcpy(h.dimm.id, self->dimm.id);
	available = read_field("/proc/meminfo", "MemAvailable:") << 10;
	ASSERT_LT(ROOM_BYTES, available);
	bytes = available - ROOM_BYTES;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	ASSERT_NE(MAP_FAILED, p);
	for (i = 0; i < 4; i++) {
		SURVIVES(dimm_add(&h, BIG_BYTES) == -ENOMEM && same(&self->base) &&
			 usable(self->mem));
		ASSERT_EQ(0, run_dimm_del(&h));
	}
	munmap(p, bytes);
	ASSERT_EQ(0, dimm_add(&h, BIG_BYTES));
	ASSERT_EQ(0, run_dimm_del(&h));
}

/* A block is online, with pages in use, the other is not. */
static int undo_del(void *data)
{
	struct host_dimm *h = data;
	int err = dimm_plug(&h->dimm, DIMM_BYTES);

	if (!err)
		err = state_set(h->dimm.first, "online_movable");
	madvise(h->mem, TOUCH_BYTES, MADV_DONTNEED);
	fill(h->mem, 3);
	return err;
}

static int run_del(void *data)
{
	int err = run_dimm_del(data);

	wait_for_hotplug();
	return err;
}

/*
 * Isolating the blocks allocates nothing. Without what the firmware's methods allocate,
 * as the device would stay.
 */
TEST_F_TIMEOUT(faults, device_del, TIMEOUT)
{
	static const char * const below[] = {
		"offline_pages_migrate", "acpi_bus_offline", "acpi_memory_device_remove",
	};
	struct host_dimm h = { .before = blocks_present(NULL), .mem = self->mem };
	struct op del = { NULL, run_del, undo_del, NULL, &h,
			  .in_worker = true, .max = DELS };
	size_t i;

	self->least = 12;
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	strcpy(h.dimm.id, self->dimm.id);
	ASSERT_EQ(0, undo_del(&h));
	for (i = 0; i < ARRAY_SIZE(below); i++) {
		del.name = below[i];
		ASSERT_EQ(0, filter_set(below[i], AML));
		walk(_metadata, self, &del);
	}
	ASSERT_EQ(0, run_del(&h));
	madvise(self->mem, TOUCH_BYTES, MADV_DONTNEED);
}

/* The balloon retries by itself, a while later. */
static unsigned long balloon_total;

static int balloon_set(unsigned long mb)
{
	struct counters c;
	int err = host_request(NULL, 0, "balloon %luM", RAM_MB - mb);

	if (err)
		return err;
	return wait_until(!counters_read(NODE, &c) &&
			  c.total == balloon_total - (mb << 20) / getpagesize(), TIMEOUT) ?
	       0 : -ETIMEDOUT;
}

static int run_inflate(void *data __maybe_unused)
{
	return balloon_set(2);
}

static int run_deflate(void *data __maybe_unused)
{
	return balloon_set(0);
}

TEST_F_TIMEOUT(faults, balloon, TIMEOUT)
{
	struct op inflate = { "inflate", run_inflate, run_deflate, .in_worker = true,
			      .max = BALLOON };
	struct op deflate = { "deflate", run_deflate, run_inflate, .in_worker = true,
			      .max = BALLOON };

	self->least = 150;
	if (!has_spare_ram(&self->base.counters))
		SKIP(return, NO_SPARE_RAM);
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	balloon_total = self->base.counters.total;
	ASSERT_EQ(0, filter_set("update_balloon_size_func", NULL));
	walk(_metadata, self, &inflate);
	ASSERT_EQ(0, run_inflate(NULL));
	walk(_metadata, self, &deflate);
	ASSERT_EQ(0, run_deflate(NULL));
}

/*
 * virtio-mem tries again by itself, but only after a minute, and leaves a block that did
 * not go online to user space: ask for a little more, and online what is not.
 */
struct virtio {
	const char *id;
	unsigned long total, low, high;
	int blocks;
};

static bool virtio_reached(struct virtio *v, unsigned long mb)
{
	static bool present[MAX_BLOCKS];
	char text[32] = "", path[96];
	struct counters c;
	int b;

	if (host_request(text, sizeof(text), "size %s", v->id) ||
	    strtoul(text, NULL, 10) != mb << 20)
		return false;
	if (!counters_read(NODE, &c) && c.total == v->total + (mb << 20) / getpagesize())
		return mb || blocks_present(NULL) == v->blocks;
	blocks_present(present);
	for (b = 0; b < MAX_BLOCKS; b++) {
		snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d/state", b);
		if (present[b] && !boot_blocks[b])
			write_line(path, "online_movable");
	}
	return false;
}

static int virtio_set(struct virtio *v, unsigned long mb, unsigned long then)
{
	int err = host_request(NULL, 0, "resize %s %luM", v->id, mb);

	if (err)
		return err;
	if (!wait_until(injected() || virtio_reached(v, mb), TIMEOUT))
		return -ETIMEDOUT;
	err = host_request(NULL, 0, "resize %s %luM", v->id, then);
	if (err)
		return err;
	if (!wait_until(virtio_reached(v, then), TIMEOUT))
		return -ETIMEDOUT;
	/* The resource goes after the blocks. */
	wait_for_hotplug();
	return 0;
}

static int run_grow(void *data)
{
	struct virtio *v = data;

	return virtio_set(v, v->high - 4, v->high);
}

static int run_shrink(void *data)
{
	struct virtio *v = data;

	return virtio_set(v, v->low + 4, v->low);
}

TEST_F_TIMEOUT(faults, virtio_mem, TIMEOUT)
{
	struct virtio v = { "fv", self->base.counters.total, 0, 40, blocks_present(NULL) };
	struct op grow = { "virtio-mem plug", run_grow, run_shrink, .data = &v,
			   .in_worker = true, .step = device_step() };
	struct op shrink = { "virtio-mem unplug", run_shrink, run_grow, .data = &v,
			     .in_worker = true, .step = device_step() };

	self->least = 30;
	if (!faults_possible())
		SKIP(return, NO_FAULTS);
	ASSERT_EQ(0, auto_online_set("online_movable", NULL, 0));
	ASSERT_EQ(0, host_request(NULL, 0, "add virtio-mem %s 512M 0", v.id));
	/* The device stays, with its resources: QEMU takes none away. */
	ASSERT_EQ(0, run_grow(&v));
	ASSERT_EQ(0, run_shrink(&v));
	ASSERT_EQ(0, snapshot(&self->base));
	ASSERT_EQ(0, filter_set("virtio_mem_run_wq", NULL));
	walk(_metadata, self, &grow);
	ASSERT_EQ(0, run_grow(&v));
	walk(_metadata, self, &shrink);
	/* Within a memory block */
	v.low = 8;
	walk(_metadata, self, &shrink);
	v.low = 0;
	ASSERT_EQ(0, run_shrink(&v));
}

/* Each block in turn is refused by a notifier, alone and as part of its device. */
TEST_F_TIMEOUT(faults, veto, TIMEOUT)
{
	static const int error[] = { ENOMEM, EBUSY, EINVAL, EPERM, EIO, EAGAIN };
	static struct snapshot before;
	char text[16];
	int b, zone;
	size_t i;

	self->least = 120;
	if (access(INJECT, F_OK))
		SKIP(return, "no %s: build with CONFIG_MEMORY_NOTIFIER_ERROR_INJECT, mount debugfs",
		     INJECT);
	ASSERT_EQ(0, dimm_plug(&self->dimm, VETO_BYTES));
	for_each_block(b, &self->dimm) {
		ASSERT_EQ(0, snapshot(&before));
		for (i = 0; i < ARRAY_SIZE(error); i++) {
			snprintf(text, sizeof(text), "%d", -error[i]);
			ASSERT_EQ(0, write_line(INJECT_ONLINE, text));
			for (zone = NORMAL; zone <= MOVABLE; zone++)
				SURVIVES(state_set(b, online_as[zone]) == -error[i] &&
					 same(&before));
		}
		ASSERT_EQ(0, write_line(INJECT_ONLINE, "0"));
		ASSERT_EQ(0, state_set(b, "online_movable"));
		ASSERT_EQ(0, snapshot(&before));
		for (i = 0; i < ARRAY_SIZE(error); i++) {
			snprintf(text, sizeof(text), "%d", -error[i]);
			ASSERT_EQ(0, write_line(INJECT_OFFLINE, text));
			SURVIVES(state_set(b, "offline") == -error[i] && same(&before));
		}
		ASSERT_TRUE(usable(self->mem));
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "0"));
	}
	/* The first block that is online is the one that is refused. */
	for_each_block(b, &self->dimm) {
		ASSERT_EQ(0, snapshot(&before));
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "-1"));
		SURVIVES(host_request(NULL, 0, "del %s", self->dimm.id) == -EIO &&
			 same(&before));
		ASSERT_EQ(0, write_line(INJECT_OFFLINE, "0"));
		ASSERT_EQ(0, state_set(b, "offline"));
	}
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

/* A signal at any moment of an offline. */
TEST_F_TIMEOUT(faults, signals, TIMEOUT)
{
	struct sigaction act = { .sa_handler = ignore_signal };
	static struct snapshot online, offline;
	int b, i, err, interrupted = 0;
	struct itimerval timer = { };

	self->least = 20;
	plug(_metadata, self);
	b = self->dimm.first;
	ASSERT_EQ(0, snapshot(&offline));
	ASSERT_EQ(0, state_set(b, "online_movable"));
	ASSERT_EQ(0, snapshot(&online));
	ASSERT_EQ(0, sigaction(SIGALRM, &act, NULL));
	for (i = 0; i < SIGNALS; i++) {
		fill(self->mem, i);
		timer.it_value.tv_usec = 200 + i * i * 150;
		setitimer(ITIMER_REAL, &timer, NULL);
		err = state_set(b, "offline");
		timer.it_value.tv_usec = 0;
		setitimer(ITIMER_REAL, &timer, NULL);
		interrupted += err == -EINTR;
		SURVIVES((!err || err == -EINTR) && same(err ? &online : &offline) &&
			 intact(self->mem, i));
		if (!err)
			ASSERT_EQ(0, state_set(b, "online_movable"));
		madvise(self->mem, TOUCH_BYTES, MADV_DONTNEED);
	}
	ksft_print_msg("%d of %d offlines were interrupted\n", interrupted, i);
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

/* CPUs come and go beside blocks. */
TEST_F_TIMEOUT(faults, cpus, TIMEOUT)
{
	static struct snapshot online, offline;
	volatile long *toggled;
	pid_t pid;
	int b, i;

	self->least = 20;
	if (access(CPU1, W_OK))
		SKIP(return, "no " CPU1 ": two CPUs and CONFIG_HOTPLUG_CPU");
	toggled = mmap(NULL, getpagesize(), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, toggled);
	plug(_metadata, self);
	b = self->dimm.first;
	ASSERT_EQ(0, snapshot(&offline));
	ASSERT_EQ(0, state_set(b, "online_movable"));
	ASSERT_EQ(0, snapshot(&online));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		for (;; ++*toggled)
			if (write_line(CPU1, *toggled % 2 ? "1" : "0"))
				_exit(1);
	for (i = 0; i < ROUNDS || (*toggled < 2 && i < 10 * ROUNDS); i++) {
		fill(self->mem, i);
		SURVIVES(!state_set(b, "offline") && same(&offline) &&
			 intact(self->mem, i));
		SURVIVES(!state_set(b, "online_movable") && same(&online));
		madvise(self->mem, TOUCH_BYTES, MADV_DONTNEED);
	}
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, &i, 0));
	EXPECT_TRUE(WIFSIGNALED(i));
	write_line(CPU1, "1");
	EXPECT_LE(2, *toggled);
	ksft_print_msg("CPU 1 went and came %ld times\n", *toggled);
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

/* What the host refuses is refused with a reason, and changes nothing. */
TEST_F_TIMEOUT(faults, host_refuses, TIMEOUT)
{
	static struct snapshot before;
	char line[64], text[256];
	static const char * const request[] = {
		"add dimm %s 128M",		/* overlapping id */
		"add virtio-mem %s 128M",
		"resize %s 128M",		/* no virtio-mem */
		"add dimm fx 0",
		"add dimm fx 1K",
		"add dimm fx 127K",
		"add dimm fx 900G",		/* no room */
		"add dimm fx 128M 7",		/* no such node */
		"add virtio-mem fx 0",
		"add virtio-mem fx 3K",
		"add virtio-mem fx 256M 3K",
		"add virtio-mem fx 256M 0 7",
		"add memory fx 128M",
		"add dimm fx",
		"resize fx 128M",
		"del fx",
		"size fx",
		"nothing",
	};
	size_t i;

	self->least = 16;
	plug(_metadata, self);
	ASSERT_EQ(0, snapshot(&before));
	for (i = 0; i < ARRAY_SIZE(request); i++) {
		snprintf(line, sizeof(line), request[i], self->dimm.id);
		strcpy(text, "");
		SURVIVES(host_request(text, sizeof(text), "%s", line) == -EIO &&
			 !strncmp(text, "error ", 6) && strlen(text) > 10 && same(&before));
	}
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

/* More devices than there are slots, each too small for a memory block. */
TEST_F_TIMEOUT(faults, slots, TIMEOUT)
{
	char text[256] = "";
	int i, nr;

	self->least = 3;
	for (nr = 0; nr < 256; nr++)
		if (host_request(text, sizeof(text), "add dimm fs%d 2M", nr))
			break;
	EXPECT_LT(0, nr);
	EXPECT_LT(nr, 256);
	EXPECT_NE(NULL, strstr(text, "slot"))
		TH_LOG("%s", text);
	for (i = 0; i < nr; i++)
		SURVIVES(!host_request(NULL, 0, "del fs%d", i));
	wait_for_hotplug();
	ksft_print_msg("%d slots\n", nr);
}

/* Pages that are hard to move, or cannot be moved. */
enum { HUGE, LOCKED, TMPFS, HUGETLB, SPLICED, DIRECT, REGISTERED, WRITEBACK,
       POISONED, KINDS };

static const char * const kind_name[] = {
	"THP", "mlocked", "tmpfs", "hugetlb", "vmspliced", "under O_DIRECT",
	"registered with io_uring", "under writeback", "hwpoisoned"
};

struct pages {
	void *map;
	unsigned long *p;
	size_t bytes;
	int pipe[2], ring;
	pid_t pid;
};

/* A file system that is one file. Of what is written to it, it takes a while to know. */
static void fuse_serve(int dev)
{
	static char request[FUSE_MIN_READ_BUFFER + FUSE_WRITE_BYTES];
	const struct fuse_in_header *in = (void *)request;
	const struct fuse_write_in *wr = (void *)(in + 1);
	const struct fuse_init_out init = {
		.major = FUSE_KERNEL_VERSION, .minor = FUSE_KERNEL_MINOR_VERSION,
		.flags = FUSE_WRITEBACK_CACHE | FUSE_BIG_WRITES,
		.max_write = FUSE_WRITE_BYTES,
	};
	const struct fuse_attr_out attr = {
		.attr = { .ino = 1, .mode = S_IFREG | 0644, .nlink = 1 },
	};
	const struct fuse_open_out open = { .fh = 1 };
	struct fuse_out_header out;
	struct fuse_write_out written = { };
	struct iovec iov[2] = { { &out, sizeof(out) } };

	while (read(dev, request, sizeof(request)) > 0) {
		out = (struct fuse_out_header){ .unique = in->unique };
		iov[1] = (struct iovec){ };
		switch (in->opcode) {
		case FUSE_INIT:
			iov[1] = (struct iovec){ (void *)&init, sizeof(init) };
			break;
		case FUSE_GETATTR:
		case FUSE_SETATTR:
			iov[1] = (struct iovec){ (void *)&attr, sizeof(attr) };
			break;
		case FUSE_OPEN:
			iov[1] = (struct iovec){ (void *)&open, sizeof(open) };
			break;
		case FUSE_WRITE:
			if (!written.size)
				sleep(2);
			written.size = wr->size;
			iov[1] = (struct iovec){ &written, sizeof(written) };
			break;
		default:
			out.error = -ENOSYS;
		}
		out.len = sizeof(out) + iov[1].iov_len;
		if (writev(dev, iov, 2) < 0)
			complain("/dev/fuse", -errno);
	}
	_exit(0);
}

static int writeback_start(struct pages *g)
{
	int dev = open("/dev/fuse", O_RDWR | O_CLOEXEC), fd;
	void *from = memory_map(TOUCH_BYTES);
	char options[96];

	mkdir("/tmp", 0755);
	fd = open(FUSE_FILE, O_CREAT | O_WRONLY, 0644);
	if (dev < 0 || fd < 0 || !from)
		return -errno;
	close(fd);
	snprintf(options, sizeof(options), "fd=%d,rootmode=100644,user_id=0,group_id=0", dev);
	if (mount("faults", FUSE_FILE, "fuse", 0, options))
		return -errno;
	g->pid = fork();
	if (!g->pid)
		fuse_serve(dev);
	close(dev);
	fill(from, WRITEBACK);
	fd = open(FUSE_FILE, O_RDWR);
	if (g->pid < 0 || fd < 0 || write(fd, from, TOUCH_BYTES) != TOUCH_BYTES)
		return -errno;
	munmap(from, TOUCH_BYTES);
	g->bytes = TOUCH_BYTES;
	g->map = mmap(NULL, TOUCH_BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (g->map == MAP_FAILED || sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE))
		return -errno;
	g->p = g->map;
	close(fd);
	return 0;
}

static int ring_register(struct pages *g)
{
	struct iovec iov = { .iov_base = g->p, .iov_len = TOUCH_BYTES };
	struct io_uring_params params = { };

	g->ring = syscall(SYS_io_uring_setup, 1, &params);
	if (g->ring < 0)
		return -errno;
	return syscall(SYS_io_uring_register, g->ring, IORING_REGISTER_BUFFERS, &iov, 1) ?
	       -errno : 0;
}

/* One huge page is left over to align the rest, the last page is not looked at. */
static int pages_get(int kind, struct pages *g)
{
	const size_t page = getpagesize(), huge = 2 << 20;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS, fd = -1;
	struct iovec iov;

	if (kind == WRITEBACK)
		return writeback_start(g);
	g->bytes = TOUCH_BYTES + 2 * huge;
	if (kind == TMPFS) {
		flags = MAP_SHARED;
		fd = memfd_create("faults", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, g->bytes))
			return -errno;
	}
	if (kind == HUGETLB) {
		flags |= MAP_HUGETLB;
		if (write_line("/proc/sys/vm/nr_hugepages", "4"))
			return -errno;
	}
	g->map = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (g->map == MAP_FAILED)
		return -errno;
	if (fd >= 0)
		close(fd);
	g->p = (void *)(((unsigned long)g->map + huge - 1) & ~(huge - 1));
	if (kind != HUGETLB &&
	    madvise(g->map, g->bytes, kind == HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return -errno;
	fill(g->p, kind);
	switch (kind) {
	case LOCKED:
		return mlock(g->p, TOUCH_BYTES) ? -errno : 0;
	case SPLICED:
		iov = (struct iovec){ .iov_base = g->p, .iov_len = 16 * page };
		if (pipe(g->pipe) || vmsplice(g->pipe[1], &iov, 1, 0) < 0)
			return -errno;
		return 0;
	case DIRECT:
		g->pid = fork();
		if (g->pid)
			return g->pid < 0 ? -errno : 0;
		fd = open(DISK, O_RDWR | O_DIRECT);
		while (pwrite(fd, g->p, 1 << 20, 0) == 1 << 20 &&
		       pread(fd, g->p, 1 << 20, 0) == 1 << 20)
			;
		_exit(1);
	case REGISTERED:
		return ring_register(g);
	case POISONED:
		/* It is told, but does not touch the page again. */
		signal(SIGBUS, ignore_signal);
		g->p[TOUCH_BYTES / sizeof(long)] = 1;
		return madvise((char *)g->p + TOUCH_BYTES, page, MADV_HWPOISON) ? -errno : 0;
	}
	return 0;
}

static void pages_put(int kind, struct pages *g)
{
	int status;

	if (kind == WRITEBACK) {
		munmap(g->map, g->bytes);
		umount2(FUSE_FILE, MNT_DETACH);
	}
	if (kind == DIRECT || kind == WRITEBACK) {
		kill(g->pid, SIGKILL);
		waitpid(g->pid, &status, 0);
	}
	if (kind == REGISTERED)
		close(g->ring);
	if (kind == SPLICED) {
		close(g->pipe[0]);
		close(g->pipe[1]);
	}
	if (kind != WRITEBACK)
		munmap(g->map, g->bytes);
	if (kind == HUGETLB)
		write_line("/proc/sys/vm/nr_hugepages", "0");
}

/* The block goes offline without them, or not at all; their contents stay. */
TEST_F_TIMEOUT(faults, hard_pages, TIMEOUT)
{
	static struct snapshot online, offline;
	struct pages g = { };
	int b, kind, err;

	self->least = KINDS;
	plug(_metadata, self);
	b = self->dimm.first;
	ASSERT_EQ(0, snapshot(&offline));
	ASSERT_EQ(0, state_set(b, "online_movable"));
	ASSERT_EQ(0, snapshot(&online));
	for (kind = 0; kind < KINDS; kind++) {
		if (kind == DIRECT)
			ASSERT_EQ(0, access(DISK, W_OK))
				TH_LOG("no " DISK ": build with CONFIG_BLK_DEV_RAM");
		if (kind == WRITEBACK)
			ASSERT_EQ(0, access("/dev/fuse", W_OK))
				TH_LOG("no /dev/fuse: build with CONFIG_FUSE_FS");
		if (kind == REGISTERED)
			ASSERT_FALSE(syscall(SYS_io_uring_setup, 0, NULL) && errno == ENOSYS)
				TH_LOG("no io_uring: build with CONFIG_IO_URING");
		ASSERT_EQ(0, pages_get(kind, &g))
			TH_LOG("%s", kind_name[kind]);
		if (kind == SPLICED || kind == HUGE || kind == WRITEBACK)
			EXPECT_EQ(b, block_of(g.p));
		err = block_set_within(b, "offline", 5);
		ksft_print_msg("a block with pages that are %s: %s\n", kind_name[kind],
			       err ? strerror(-err) : "offline");
		SURVIVES((!err || err == -EBUSY || err == -EINTR) &&
			 same(err ? &online : &offline) && intact(g.p, kind));
		EXPECT_TRUE(kind != SPLICED || err);
		pages_put(kind, &g);
		if (err)
			ASSERT_EQ(0, state_set(b, "offline"));
		ASSERT_TRUE(same(&offline));
		/* The last kind: that block stays offline. */
		ASSERT_EQ(kind == POISONED ? -EHWPOISON : 0, state_set(b, "online_movable"));
		ASSERT_TRUE(usable(self->mem));
	}
	ASSERT_EQ(0, dimm_unplug(&self->dimm));
}

FIXTURE(summary)
{
};

FIXTURE_SETUP(summary)
{
}

FIXTURE_TEARDOWN(summary)
{
}

/* Objects that nothing points to are looked for on demand; it takes time. */
static bool leaks_known(void)
{
	char line[4096] = "";
	FILE *f = fopen("/proc/cmdline", "r");

	if (f && !fgets(line, sizeof(line), f))
		line[0] = '\0';
	if (f)
		fclose(f);
	return strstr(line, "kmemleak=on");
}

static int leaks(void)
{
	char line[256];
	int nr = 0;
	FILE *f;

	/* What is young does not count. kmemleak ends where it gets no memory itself. */
	sleep(10);
	if (write_line(KMEMLEAK, "scan") || write_line(KMEMLEAK, "scan"))
		return -1;
	f = fopen(KMEMLEAK, "r");
	while (f && fgets(line, sizeof(line), f)) {
		nr += !strncmp(line, "unreferenced", 12);
		if (nr < 5)
			fprintf(stderr, "# %s", line);
	}
	if (f)
		fclose(f);
	ksft_print_msg("kmemleak: %d objects\n", nr);
	return nr;
}

/* Of all tests above */
TEST_F_TIMEOUT(summary, enough, TIMEOUT)
{
	ksft_print_msg("%ld faults injected, %ld survived, the operation failed in %ld\n",
		       faults->injected, faults->survived, faults->failed);
	if (leaks_known())
		EXPECT_EQ(0, leaks());
	EXPECT_EQ(faults->injected, faults->survived);
	EXPECT_LE(atol(getenv("FAULTS") ?: FAULTS), faults->injected);
}

TEST_HARNESS_MAIN
