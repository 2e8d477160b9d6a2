// SPDX-License-Identifier: GPL-2.0
/*
 * A tour of memory hotplug in ten lines: what `make run` shows. Every line is
 * one step, the time it took and what was seen; a step that fails ends it.
 */
#include <err.h>
#include <sys/mman.h>

#include "memhp.h"

#define GIB	(1UL << 30)
#define MIB	(1UL << 20)

static double step_began;

static long mem_total(void)
{
	return read_field("/proc/meminfo", "MemTotal:") / 1024;
}

static void begin(void)
{
	step_began = now();
}

static __attribute__((format(printf, 2, 3)))
void done(const char *step, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("%-34s %7.2f s   ", step, now() - step_began);
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
	va_end(ap);
}

static void write_sysfs(const char *path, const char *value)
{
	int ret = write_line(path, value);

	if (ret)
		errx(1, "%s: %s: %s", path, value, strerror(-ret));
}

static void set_blocks(const struct dimm *dimm, const char *state)
{
	int block, ret;

	for_each_block(block, dimm) {
		ret = block_set(block, state);
		if (ret)
			errx(1, "memory%d: %s: %s", block, state, strerror(-ret));
	}
}

/* Write @bytes of memory and read them back. */
static void use_memory(unsigned long bytes)
{
	unsigned long nr = bytes / sizeof(long), i;
	long *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (data == MAP_FAILED)
		err(1, "mmap of %lu MiB", bytes / MIB);
	for (i = 0; i < nr; i += 64)
		data[i] = ~i;
	for (i = 0; i < nr; i += 64)
		if (data[i] != (long)~i)
			errx(1, "memory at %lu MiB does not keep what was written",
			     i * sizeof(long) / MIB);
	munmap(data, bytes);
}

static void unplug(const struct dimm *dimm, long total)
{
	begin();
	if (host_request(NULL, 0, "del %s", dimm->id))
		exit(1);
	done("device_del", "DEVICE_DELETED came, MemTotal %ld MiB", mem_total());
	if (mem_total() != total)
		errx(1, "MemTotal was %ld MiB before", total);
}

static void tour_dimm(void)
{
	struct dimm dimm = { .id = "dimm1" };
	long before = mem_total(), used;

	write_sysfs(AUTO_ONLINE, "offline");
	begin();
	if (dimm_plug(&dimm, GIB))
		exit(1);
	done("device_add pc-dimm, 1 GiB", "blocks memory%d to memory%d appeared",
	     dimm.first, dimm.first + dimm.count - 1);

	begin();
	set_blocks(&dimm, "online_movable");
	done("online_movable", "MemTotal %ld -> %ld MiB", before, mem_total());

	used = before + (mem_total() - before) / 4;
	begin();
	use_memory(used * MIB);
	done("use it", "%ld MiB written and read back, more than the %ld at boot",
	     used, before);

	begin();
	set_blocks(&dimm, "offline");
	done("offline", "MemTotal %ld MiB", mem_total());
	unplug(&dimm, before);
}

/* With the policy "auto-movable" the kernel picks a zone that it can give back. */
static void tour_auto_online(void)
{
	struct dimm dimm = { .id = "dimm2" };
	long before = mem_total(), target = before + GIB / MIB;

	write_sysfs("/sys/module/memory_hotplug/parameters/online_policy", "auto-movable");
	write_sysfs(AUTO_ONLINE, "online");
	begin();
	if (dimm_plug(&dimm, GIB))
		exit(1);
	if (!wait_until(mem_total() == target, BLOCK_SECONDS))
		errx(1, "MemTotal is %ld MiB after %d s", mem_total(), BLOCK_SECONDS);
	done("device_add, auto_online_blocks", "usable, MemTotal %ld -> %ld MiB",
	     before, mem_total());

	begin();
	set_blocks(&dimm, "offline");
	done("offline", "MemTotal %ld MiB", mem_total());
	unplug(&dimm, before);
}

static void resize(unsigned long gib, long total)
{
	long before = mem_total();
	char step[40];

	begin();
	if (host_request(NULL, 0, "resize vmem1 %luG", gib))
		exit(1);
	if (!wait_until(mem_total() == total, BLOCK_SECONDS))
		errx(1, "MemTotal is %ld MiB after %d s", mem_total(), BLOCK_SECONDS);
	snprintf(step, sizeof(step), "virtio-mem, requested-size %lu GiB", gib);
	done(step, "MemTotal %ld -> %ld MiB", before, mem_total());
}

static void tour_virtio_mem(void)
{
	long before = mem_total();

	write_sysfs(AUTO_ONLINE, "online_movable");
	if (host_request(NULL, 0, "add virtio-mem vmem1 2G"))
		exit(1);
	resize(1, before + GIB / MIB);
	resize(0, before);
}

int main(void)
{
	tour_dimm();
	tour_auto_online();
	tour_virtio_mem();
	return 0;
}
