// SPDX-License-Identifier: GPL-2.0
/*
 * What memory hotplug costs, in guest instructions: under QEMU -icount with
 * shift=0 the CPU's counter of time counts them. Prints "NAME VALUE" lines, and
 * "curve ZONE BLOCKS COST" for every block that was onlined.
 *
 *	bench blocks GIB	one by one, those of a DIMM of so many GiB
 *	bench devices GIB	a DIMM onlined and unplugged by the kernel, empty
 *				and in use, a virtio-mem device plugged; in a
 *				guest of 3 GiB, which has no ZONE_NORMAL
 *	bench boot GIB		the boot until init is started, page faults, malloc,
 *				and a block in use taken offline
 *	bench whole GIB		online all blocks of a DIMM, once
 *	bench bars GIB		check the bars that the stack has to keep, as TAP
 *	bench device_bars 64	the same for devices
 *	bench unplug GIB	a virtio-mem device gives back all it has; one of a
 *				quarter of that size half of it, while the upper half
 *				has a file as large as half of that; BLOCK=256M in the
 *				environment is the size of the device's blocks
 *	bench unplug_bars GIB	the bars for that
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "measure.h"

#define REPEAT	9
#define USE_BYTES	(8UL << 20)	/* the pcplists keep these 2,048 pages */
/* What QEMU counts for copying a page with rep movsb, a byte at a time. */
#define COPY_COST	4101
/* To online or offline a block of 128 MiB may cost so much. */
#ifdef __aarch64__
#define ONLINE_BAR	365000
#define OFFLINE_BAR	92000
#else
#define ONLINE_BAR	400000
#define OFFLINE_BAR	95000
#endif

static uint64_t costs[MAX_BLOCKS];

/* So far; only differences mean something. That of arm64 counts 16 at a time. */
static uint64_t instructions(void)
{
#ifdef __aarch64__
	uint64_t ticks, hz;

	asm volatile("isb; mrs %0, cntvct_el0" : "=r" (ticks) : : "memory");
	asm volatile("mrs %0, cntfrq_el0" : "=r" (hz));
	return ticks * (1000000000 / hz);
#else
	return __builtin_ia32_rdtsc();
#endif
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t set_state(int block, const char *state)
{
	char path[96];
	uint64_t start;
	ssize_t done;
	int fd;

	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d/state", block);
	fd = open(path, O_WRONLY);
	start = instructions();
	done = write(fd, state, strlen(state));
	start = instructions() - start;
	if (done < 0)
		err(1, "memory%d: %s", block, state);
	close(fd);
	return start;
}

struct cost {
	uint64_t online, offline;
};

/* The block is offline now and will be again. */
static struct cost measure_block(const char *online, int block)
{
	uint64_t on[REPEAT], off[REPEAT];

	for (int i = 0; i < REPEAT; i++) {
		on[i] = set_state(block, online);
		off[i] = set_state(block, "offline");
	}
	qsort(on, REPEAT, sizeof(*on), compare);
	qsort(off, REPEAT, sizeof(*off), compare);
	return (struct cost){ on[REPEAT / 2], off[REPEAT / 2] };
}

/*
 * The first one after ZONE_MOVABLE was used: its pcplists hold what was freed last. A
 * child has small pages, where mlockall() gave this process large ones.
 */
static uint64_t offline_after_use(int block)
{
	pid_t pid;
	char *p;

	set_state(block, "online_movable");
	pid = fork();
	if (!pid) {
		p = memory_map(USE_BYTES);
		if (p)
			memset(p, 1, USE_BYTES);
		_exit(!p);
	}
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		err(1, "child");
	return set_state(block, "offline");
}

/* Online block after block, and measure some of them closely on the way. */
static void measure_zone(const struct dimm *dimm, const char *zone,
			 const char *online, struct cost cost[3])
{
	uint64_t sum = 0;

	for (int i = 0; i < dimm->count; i++) {
		int block = dimm->first + i, number = i + 1;

		if (number == 1 || number == 64 || number == dimm->count) {
			*cost = measure_block(online, block);
			printf("online_%s_%d %lu\n", zone, number, cost->online);
			printf("offline_%s_%d %lu\n", zone, number, cost->offline);
			cost++;
			if (number == dimm->count && !strcmp(zone, "movable"))
				printf("offline_movable_used %lu\n", offline_after_use(block));
		}
		costs[i] = set_state(block, online);
		sum += costs[i];
	}
	for (int i = 0; i < dimm->count; i++)
		printf("curve %s %d %lu\n", zone, i + 1, costs[i]);
	printf("online_%s_all %lu\n", zone, sum);
}

static void policy(const char *what)
{
	if (write_line(AUTO_ONLINE, what))
		errx(1, "cannot set " AUTO_ONLINE);
}

static void plug(struct dimm *dimm, unsigned long gib)
{
	if (dimm_plug(dimm, gib << 30))
		errx(1, "no DIMM of %lu GiB", gib);
}

/* How long the kernel handled a device event since trace_start() */
static uint64_t trace_end_of(const char *function)
{
	const char *const functions[] = { function, NULL };
	uint64_t sum = trace_end(functions);

	if (!sum)
		errx(1, "%s did not run", function);
	return sum;
}

/* Movable, as only then it is sure to let go of the DIMM again. */
static uint64_t add_dimm(unsigned long gib)
{
	long before = read_field("/proc/meminfo", "MemTotal:");

	policy("online_movable");
	trace_start();
	if (host_request(NULL, 0, "add dimm auto %luG", gib))
		errx(1, "no DIMM of %lu GiB", gib);
	wait_for_total(before + (gib << 20));
	sleep(1);
	return trace_end_of("acpi_hotplug_work_fn");
}

static uint64_t del_dimm(void)
{
	trace_start();
	if (host_request(NULL, 0, "del auto"))
		errx(1, "the DIMM stays");
	sleep(1);
	return trace_end_of("acpi_hotplug_work_fn");
}

/* The pages of a shell that waits for input are on the DIMM: it was started there. */
static uint64_t del_dimm_with_shell(void)
{
	int input[2], status;
	uint64_t cost;
	pid_t pid;

	if (pipe(input))
		err(1, "pipe");
	pid = fork();
	if (!pid) {
		dup2(input[0], 0);
		close(input[1]);
		execl("/bin/bash", "bash", "-c", "read line; exit 7", NULL);
		_exit(1);
	}
	sleep(1);
	cost = del_dimm();
	close(input[1]);
	close(input[0]);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 7 << 8)
		errx(1, "the shell did not survive");
	return cost;
}

/* So many bytes of tmpfs, in ZONE_MOVABLE if there is one. */
static int fill_tmpfs(size_t size)
{
	int fd = memfd_create("bench", 0);
	char *map;

	if (fd < 0 || ftruncate(fd, size))
		err(1, "memfd");
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		err(1, "mmap");
	for (size_t at = 0; at < size; at += getpagesize())
		map[at] = 1;
	munmap(map, size);
	return fd;
}

struct used {
	uint64_t del, refused, first_page;
	uint64_t migrated;	/* for del, in percent of the pages in use */
};

#define TMPFS_BYTES	(2UL << 30)

static void measure_used_dimm(struct used *used)
{
	unsigned long pages = TMPFS_BYTES / getpagesize();
	struct counters c;
	int fd;

	add_dimm(4);
	fd = fill_tmpfs(TMPFS_BYTES);
	if (counters_read(0, &c) ||
	    zone_find(&c, "Movable")->managed - zone_find(&c, "Movable")->free < pages)
		errx(1, "the pages are not on the DIMM");
	used->del = del_dimm();
	used->migrated = migrated * 100 / pages;
	close(fd);
}

/* The last block of the DIMM has pages that cannot move: those in pipes. */
static void measure_refused(struct used *used)
{
	struct dimm dimm = { .id = "stays" };
	int pipes[8][2], block, fd;

	if (pipes_open(pipes, 8))
		errx(1, "no pipes");
	policy("offline");
	if (dimm_plug(&dimm, 4UL << 30))
		errx(1, "no DIMM of 4 GiB");
	block = dimm.first + dimm.count - 1;
	set_state(block, "online_kernel");
	pipes_fill(pipes, 8);
	for (block--; block >= dimm.first; block--)
		set_state(block, "online_movable");
	fd = fill_tmpfs(TMPFS_BYTES);
	trace_start();
	if (!host_request(NULL, 0, "del stays"))
		errx(1, "the DIMM went, with pages that cannot move");
	sleep(1);
	used->refused = trace_end_of("acpi_hotplug_work_fn");
	for_each_block(block, &dimm)
		if (block_online(block) != 1)
			errx(1, "memory%d is not online again", block);
	/* It stays: its last block has other kernel memory by now. */
	close(fd);
	pipes_close(pipes, 8);
}

/* Of a block that was full only the page with the lowest address is left. */
static uint64_t offline_first_page(void)
{
	size_t size = block_bytes(), page = getpagesize();
	struct dimm dimm = { .id = "first" };
	uint64_t entry, cost, lowest = 0, lowest_pfn = ~0UL;
	int fd = open("/proc/self/pagemap", O_RDONLY);
	char *map;

	plug(&dimm, 1);
	set_state(dimm.first, "online_movable");
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED || madvise(map, size, MADV_NOHUGEPAGE))
		err(1, "128 MiB");
	for (size_t at = 0; at < size; at += page) {
		map[at] = 1;
		if (pread(fd, &entry, sizeof(entry), (uintptr_t)(map + at) / page * 8) != 8)
			err(1, "pagemap");
		entry &= (1UL << 55) - 1;
		if (entry >= dimm.first * block_pages() && entry < lowest_pfn) {
			lowest_pfn = entry;
			lowest = at;
		}
	}
	close(fd);
	if (lowest_pfn != dimm.first * block_pages())
		errx(1, "the first page of memory%d is not in use", dimm.first);
	if (madvise(map, lowest, MADV_DONTNEED) ||
	    madvise(map + lowest + page, size - lowest - page, MADV_DONTNEED))
		err(1, "MADV_DONTNEED");
	/* The first offline drains pcplists, and that is not what is measured. */
	set_state(dimm.first + 1, "online_movable");
	set_state(dimm.first + 1, "offline");
	cost = set_state(dimm.first, "offline");
	munmap(map, size);
	if (dimm_unplug(&dimm))
		errx(1, "the DIMM stays");
	return cost;
}

/* The least of three: the tick is in the way of some. */
static void measure_first_page(struct used *used)
{
	uint64_t cost;

	munlockall();		/* locked memory cannot be given back */
	policy("offline");
	used->first_page = ~0ULL;
	for (int i = 0; i < 3; i++) {
		cost = offline_first_page();
		if (cost < used->first_page)
			used->first_page = cost;
	}
	mlockall(MCL_CURRENT | MCL_FUTURE);
}

/* What the allocator's fast paths cost: single pages, in and out again. */
static void measure_faults(void)
{
	size_t size = 256UL << 20;
	uint64_t start = instructions();
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED || madvise(map, size, MADV_NOHUGEPAGE))
		err(1, "256 MiB");
	for (size_t at = 0; at < size; at += getpagesize())
		map[at] = 1;
	munmap(map, size);
	start = instructions() - start;
	printf("page_faults %lu\n", start);
}

/* Sizes from bytes to 512 KiB, so that some go back to the kernel at once. */
static void measure_malloc(void)
{
	static void *slots[256];
	uint64_t start = instructions();
	uint32_t x = 1;

	for (int i = 0; i < 100000; i++) {
		void **slot = &slots[i % 256];
		size_t size;

		x = x * 1664525 + 1013904223;
		size = 16UL << (x >> 28);
		free(*slot);
		*slot = malloc(size);
		if (!*slot)
			errx(1, "no memory");
		memset(*slot, 1, size);
	}
	start = instructions() - start;
	printf("malloc %lu\n", start);
}

/* A block full of pages that have to be migrated, to other zones. */
static void measure_full_block(void)
{
	struct dimm dimm = { .id = "full" };
	size_t size = 112UL << 20;
	uint64_t cost;
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	policy("offline");
	plug(&dimm, 1);
	set_state(dimm.first, "online_movable");
	if (map == MAP_FAILED || madvise(map, size, MADV_NOHUGEPAGE))
		err(1, "112 MiB");
	for (size_t at = 0; at < size; at += getpagesize())
		map[at] = 1;
	for (size_t at = 0; at < size; at += getpagesize() << 8)
		if (block_of(map + at) != dimm.first)
			errx(1, "the 112 MiB are not in memory%d", dimm.first);
	cost = set_state(dimm.first, "offline");
	printf("offline_full %lu\noffline_full_rest %lu\n", cost,
	       cost - size / getpagesize() * COPY_COST);
	munmap(map, size);
}

/* The kernel's own clock when it starts init, in its log in microseconds. */
static void measure_boot(void)
{
	char line[1024];
	unsigned long us = 0;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	ssize_t n;

	while (fd >= 0 && (n = read(fd, line, sizeof(line) - 1)) > 0) {
		line[n] = '\0';
		if (strstr(line, ";Run /init as init process"))
			sscanf(line, "%*d,%*d,%lu", &us);
	}
	close(fd);
	if (!us)
		errx(1, "/dev/kmsg does not tell when init was started");
	printf("boot %lu\n", us * 1000);
}

static uint64_t measure_virtio_mem(unsigned long gib)
{
	long before = read_field("/proc/meminfo", "MemTotal:");

	policy("online_movable");
	if (host_request(NULL, 0, "add virtio-mem vm0 %luG", gib))
		errx(1, "no virtio-mem device");
	sleep(1);
	trace_start();
	if (host_request(NULL, 0, "resize vm0 %luG", gib))
		errx(1, "no resize");
	wait_for_total(before + (gib << 20));
	sleep(1);
	return trace_end_of("virtio_mem_run_wq");
}

/* ID is the device's, RESIZED what MemTotal has to be when it is SIZE bytes large. */
static uint64_t measure_resize(const char *id, uint64_t size, long resized)
{
	trace_start();
	if (host_request(NULL, 0, "resize %s %lu", id, size))
		errx(1, "no resize");
	wait_for_total(resized);
	sleep(1);
	return trace_end_of("virtio_mem_run_wq");
}

static void fill(char *map, size_t size)
{
	for (size_t at = 0; at < size; at += getpagesize())
		map[at] = 1;
}

/*
 * A file of a quarter of the device in the upper half of what is plugged: new
 * memory is allocated from the lowest block up, so memory that is let go of
 * afterwards takes the lower half. What is free is as much as shall go.
 */
static char *file_in_upper_half(uint64_t device)
{
	int fd = memfd_create("quarter", MFD_CLOEXEC);
	char *lower = mmap(NULL, device / 2, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *file;

	if (lower == MAP_FAILED || fd < 0 || ftruncate(fd, device / 4))
		err(1, "memory for a file");
	fill(lower, device / 2);
	file = mmap(NULL, device / 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		err(1, "a file of %lu bytes", device / 4);
	fill(file, device / 4);
	munmap(lower, device / 2);
	close(fd);
	return file;
}

/* How much of the file is in the upper half of the blocks from FIRST on. */
static size_t bytes_above(const char *file, uint64_t device, int first)
{
	int upper = first + device / 2 / block_bytes();
	size_t bytes = 0;

	for (size_t at = 0; at < device / 4; at += 1 << 20)
		if (block_of(file + at) >= upper)
			bytes += 1 << 20;
	return bytes;
}

/* Migration is traced between the two; the buffer has room for 4 GiB of single pages. */
static void migrated_start(void)
{
	if (write_line(TRACING "buffer_size_kb", "8192") ||
	    write_line(TRACING "events/migrate/mm_migrate_pages/enable", "1"))
		errx(1, "cannot trace migration");
}

static long migrated_pages(void)
{
	FILE *trace = fopen(TRACING "trace", "r");
	unsigned long pages, sum = 0;
	char line[512];

	write_line(TRACING "events/migrate/mm_migrate_pages/enable", "0");
	if (!trace)
		err(1, TRACING "trace");
	while (fgets(line, sizeof(line), trace)) {
		if (strstr(line, "LOST"))
			errx(1, "lost events of migration");
		if (parse_field(line, "nr_succeeded=", &pages))
			sum += pages;
	}
	fclose(trace);
	return sum;
}

struct unplug {
	uint64_t free;		/* instructions to give back a whole device */
	uint64_t half;		/* the same for half of one, with a file in the upper half */
	long migrated;		/* pages, meanwhile */
};

static int first_block_after(const bool *before)
{
	static bool after[MAX_BLOCKS];
	int block = 0;

	blocks_present(after);
	while (block < MAX_BLOCKS - 1 && after[block] == before[block])
		block++;
	return block;
}

static void add_virtio_mem(const char *id, uint64_t size)
{
	policy("online_movable");
	if (host_request(NULL, 0, "add virtio-mem %s %lu 0 0 %s", id, size,
			 getenv("BLOCK") ?: "2M"))
		errx(1, "no virtio-mem device");
	sleep(1);
}

static uint64_t measure_unplug_free(unsigned long gib)
{
	long before = read_field("/proc/meminfo", "MemTotal:");

	add_virtio_mem("free", gib << 30);
	measure_resize("free", gib << 30, before + (gib << 20));
	return measure_resize("free", 0, before);
}

/* HALF and MIGRATED of a device of GIB. */
static void measure_unplug_half(unsigned long gib, struct unplug *cost)
{
	long before = read_field("/proc/meminfo", "MemTotal:");
	static bool blocks[MAX_BLOCKS];
	uint64_t device = gib << 30;
	char *file;

	add_virtio_mem("half", device);
	blocks_present(blocks);
	measure_resize("half", device, before + (gib << 20));
	file = file_in_upper_half(device);
	if (bytes_above(file, device, first_block_after(blocks)) < device / 4 / 100 * 99)
		errx(1, "the file is not in the upper half");
	migrated_start();
	cost->half = measure_resize("half", device / 2, before + (gib << 19));
	cost->migrated = migrated_pages();
	munmap(file, device / 4);
}

/* Not the first block of the zone, which sets the zone up. */
static uint64_t measure_beside(const struct dimm *dimm)
{
	return measure_block("online_movable", dimm->first + 1).online;
}

/* Both zones; ZONE_MOVABLE first, because it can be emptied again. */
static void measure_blocks(const struct dimm *dimm, struct cost cost[2][3])
{
	int block, ret;

	measure_zone(dimm, "movable", "online_movable", cost[0]);
	for_each_block(block, dimm) {
		ret = block_set(block, "offline");
		if (ret)
			errx(1, "memory%d: offline: %s", block, strerror(-ret));
	}
	measure_zone(dimm, "normal", "online_kernel", cost[1]);
}

/*
 * Flat: the last block costs what block 64 does, within 2 %, and no more than
 * the first. That one can cost more: the zone gets its pagesets with it, and all
 * zonelists are rebuilt.
 */
static void check_flat(const char *what, uint64_t first, uint64_t mid, uint64_t last)
{
	uint64_t apart = mid > last ? mid - last : last - mid;

	ksft_test_result(apart * 50 <= mid && last * 50 <= first * 51,
			 "%s: %lu the first block, %lu block 64, %lu the last\n",
			 what, first, mid, last);
}

static uint64_t online_all(const struct dimm *dimm)
{
	uint64_t sum = 0;
	int block;

	for_each_block(block, dimm)
		sum += set_state(block, "online_kernel");
	return sum;
}

static void check_bars(const struct dimm *dimm)
{
	struct cost cost[2][3] = {};

	ksft_print_header();
	if (dimm->count > 512) {
		ksft_set_plan(1);
		check_bar("online all blocks", online_all(dimm),
			  1700000000ULL / 4096 * dimm->count);
		ksft_finished();
	}
	ksft_set_plan(8);
	measure_blocks(dimm, cost);
	for (int zone = 0; zone < 2; zone++) {
		struct cost *c = cost[zone];

		check_flat(zone ? "online in ZONE_NORMAL" : "online in ZONE_MOVABLE",
			   c[0].online, c[1].online, c[2].online);
		check_flat(zone ? "offline in ZONE_NORMAL" : "offline in ZONE_MOVABLE",
			   c[0].offline, c[1].offline, c[2].offline);
	}
	check_bar("online the first block, ZONE_MOVABLE", cost[0][0].online, ONLINE_BAR);
	check_bar("online the first block, ZONE_NORMAL", cost[1][0].online, ONLINE_BAR);
	check_bar("offline an empty block, ZONE_MOVABLE", cost[0][0].offline, OFFLINE_BAR);
	check_bar("offline an empty block, ZONE_NORMAL", cost[1][0].offline, OFFLINE_BAR);
	ksft_finished();
}

/* For 64 GiB, and 4 GiB with 2 GiB in use */
static void check_device_bars(uint64_t add, uint64_t del, uint64_t shell,
			      const struct used *used, uint64_t plug,
			      uint64_t alone, uint64_t beside)
{
	ksft_print_header();
	ksft_set_plan(9);
	check_bar("device_add to last block online", add, 221000000);
	check_bar("device_del", del, 58000000);
	check_bar("device_del with a shell", shell, 58000000);
	check_bar("device_del with 2 GiB in use", used->del, 3500000000);
	ksft_test_result(used->migrated >= 100 && used->migrated <= 101,
			 "each page in use is migrated once: %lu %%\n", used->migrated);
	check_bar("device_del that is refused", used->refused, 71000000);
	check_bar("offline a block with its first page in use", used->first_page, 110000);
	check_bar("virtio-mem plug", plug, 60000000);
	/* A driver that owns memory has no part in the memory of others. */
	check_bar("online a block of a DIMM beside virtio-mem", beside, alone * 103 / 100);
	ksft_finished();
}

/* What gives back a block of 128 MiB may cost; a file need not move. */
static void check_unplug_bars(struct unplug cost, unsigned long gib)
{
	ksft_print_header();
	ksft_set_plan(2);
	check_bar("virtio-mem unplug, all free", cost.free, gib * 8 * 205000);
	ksft_test_result(cost.migrated <= 512,
			 "virtio-mem unplug of half, enough free: %ld pages migrated, at most 512\n",
			 cost.migrated);
	ksft_finished();
}

int main(int argc, char **argv)
{
	struct dimm dimm = { .id = "bench" };
	struct cost cost[2][3] = {};
	uint64_t add, del, shell, virtio_mem, alone, beside;
	struct used used;
	unsigned long gib;

	if (argc != 3)
		errx(2, "usage: bench blocks|devices|boot|whole|unplug|bars|device_bars|unplug_bars GIB");
	gib = strtoul(argv[2], NULL, 10);
	/* x86 with 64 GiB or more at boot has larger ones, up to 2 GiB. */
	if (block_bytes() != 128UL << 20)
		errx(2, "the bench is for memory blocks of 128 MiB, not of %lu MiB",
		     block_bytes() >> 20);
	if (!strcmp(argv[1], "boot")) {
		measure_boot();
		measure_faults();
		measure_malloc();
		measure_full_block();
		return 0;
	}
	if (strstr(argv[1], "unplug")) {
		struct unplug unplug = { .free = measure_unplug_free(gib) };

		measure_unplug_half(gib / 4, &unplug);
		if (!strcmp(argv[1], "unplug_bars"))
			check_unplug_bars(unplug, gib);
		printf("virtio_mem_unplug %lu\nvirtio_mem_unplug_half %lu\nvirtio_mem_migrated %ld\n",
		       unplug.free, unplug.half, unplug.migrated);
		return 0;
	}
	mlockall(MCL_CURRENT | MCL_FUTURE);
	if (strstr(argv[1], "device")) {
		measure_first_page(&used);
		printf("offline_first_page %lu\n", used.first_page);
		add = add_dimm(gib);
		del = del_dimm();
		add_dimm(gib);
		shell = del_dimm_with_shell();
		printf("device_add_auto_online %lu\ndevice_del %lu\ndevice_del_shell %lu\n",
		       add, del, shell);
		measure_used_dimm(&used);
		measure_refused(&used);
		printf("device_del_used %lu\ndevice_del_used_rest %lu\n"
		       "device_del_migrated_percent %lu\ndevice_del_refused %lu\n", used.del,
		       used.del - TMPFS_BYTES / getpagesize() * used.migrated / 100 * COPY_COST,
		       used.migrated, used.refused);
		policy("offline");
		plug(&dimm, 1);
		set_state(dimm.first, "online_movable");
		alone = measure_beside(&dimm);
		virtio_mem = measure_virtio_mem(gib / 4);
		policy("offline");
		beside = measure_beside(&dimm);
		printf("virtio_mem_plug %lu\nonline_alone %lu\nonline_beside_virtio_mem %lu\n",
		       virtio_mem, alone, beside);
		if (!strcmp(argv[1], "device_bars"))
			check_device_bars(add, del, shell, &used, virtio_mem, alone, beside);
		return 0;
	}
	policy("offline");
	plug(&dimm, gib);
	if (!strcmp(argv[1], "blocks")) {
		measure_blocks(&dimm, cost);
	} else if (!strcmp(argv[1], "bars")) {
		check_bars(&dimm);
	} else {
		printf("online_all %lu\n", online_all(&dimm));
	}
	return 0;
}
