// SPDX-License-Identifier: GPL-2.0
/*
 * latency irqsoff|preemptoff: the longest time that interrupts, or preemption,
 * are off while memory comes and goes, as the tracer of that name sees it. Under
 * QEMU -icount with shift=0 what it calls a microsecond is 1000 guest instructions.
 * Prints lines of "TRACER_OPERATION MICROSECONDS FUNCTION", with the function
 * that ended the section.
 */
#include <err.h>

#include "memhp.h"

#define TRACING	"/sys/kernel/tracing/"
#define BLOCKS	64
#define REPEAT	12
#define SMALL_MIB	128
#define BAD_PAGES	512

static struct dimm dimm = { .id = "latency" };

static void must(const char *what, int err)
{
	if (err)
		errx(1, "%s: %s", what, strerror(-err));
}

static void set_block(int number, const char *state)
{
	must(state, block_set(dimm.first + number - 1, state));
}

static void online_first(void)
{
	set_block(1, "online_kernel");
}

static void offline_first(void)
{
	set_block(1, "offline");
}

static void online_last(void)
{
	set_block(BLOCKS, "online_kernel");
}

static void offline_last(void)
{
	set_block(BLOCKS, "offline");
}

static void wait_for_total(long kib)
{
	if (!wait_until(read_field("/proc/meminfo", "MemTotal:") == kib, BLOCK_SECONDS))
		errx(1, "MemTotal does not reach %ld KiB", kib);
}

static void change_total(const char *request, long mib)
{
	long before = read_field("/proc/meminfo", "MemTotal:");

	must(request, host_request(NULL, 0, "%s", request));
	wait_for_total(before + (mib << 10));
}

static void device_add(void)
{
	change_total("add dimm auto 1G", 1024);
}

static void device_del(void)
{
	change_total("del auto", -1024);
}

static void virtio_mem_resize(long mib)
{
	static long plugged;
	char request[32];

	snprintf(request, sizeof(request), "resize vm0 %ldM", mib);
	change_total(request, mib - plugged);
	plugged = mib;
}

static void virtio_mem_plug(void)
{
	virtio_mem_resize(1024);
}

static void virtio_mem_unplug(void)
{
	virtio_mem_resize(0);
}

/* Half of a memory block: pages are allocated and become PageOffline(), or go back. */
static void virtio_mem_part(void)
{
	virtio_mem_resize(1024 - SMALL_MIB / 2);
}

/* A DIMM of a block, whose number is returned. */
static int small_add(void)
{
	static bool before[MAX_BLOCKS], after[MAX_BLOCKS];
	int block = 0;

	blocks_present(before);
	change_total("add dimm small 128M", SMALL_MIB);
	blocks_present(after);
	while (block < MAX_BLOCKS - 1 && before[block] == after[block])
		block++;
	return block;
}

static void small_del(void)
{
	change_total("del small", -SMALL_MIB);
}

/* Every other page of a block: ZONE_MOVABLE is used first. */
static void use_memory(void)
{
	static char *mem = MAP_FAILED;
	size_t size = SMALL_MIB << 20, page = getpagesize(), i;

	if (mem != MAP_FAILED)
		munmap(mem, size);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, size, MADV_NOHUGEPAGE))
		err(1, "mmap");
	for (i = 0; i < size / 16 * 15; i += page)
		mem[i] = 1;
	for (i = 0; i < size; i += 2 * page)
		madvise(mem + i, page, MADV_DONTNEED);
}

static void used_add(void)
{
	small_add();
	use_memory();
}

static void virtio_mem_used(void)
{
	virtio_mem_resize(SMALL_MIB);
	use_memory();
}

/* QEMU takes the balloon from all memory there is: 2 GiB and the DIMM. */
static void balloon_inflate(void)
{
	change_total("balloon 10112M", -128);
}

static void balloon_deflate(void)
{
	change_total("balloon 10240M", 128);
}

/* Hwpoisoned pages and free ones take turns. */
static void bad_add(void)
{
	unsigned long pfn = small_add() * block_pages();
	char text[32];

	must("printk", write_line("/proc/sys/kernel/printk", "1"));
	for (int i = 0; i < BAD_PAGES; i++) {
		snprintf(text, sizeof(text), "%#lx", (pfn + 2 * i) * getpagesize());
		must("hard_offline_page", write_line(MEMORY_SYSFS "/hard_offline_page", text));
	}
}

/* A pair of operations: the second one undoes the first. Without a name: not measured. */
static const struct operation {
	const char *name;
	void (*run)(void);
} operations[][2] = {
	{ { "online_1", online_first }, { "offline_1", offline_first } },
	{ { "online_64", online_last }, { "offline_64", offline_last } },
	{ { "device_add", device_add }, { "device_del", device_del } },
	{ { "virtio_mem_plug", virtio_mem_plug }, { "virtio_mem_unplug", virtio_mem_unplug } },
	{ { "virtio_mem_plug_part", virtio_mem_plug }, { "virtio_mem_unplug_part", virtio_mem_part } },
	{ { NULL, virtio_mem_part }, { "virtio_mem_unplug_fake_offline", virtio_mem_unplug } },
	{ { NULL, virtio_mem_used }, { "virtio_mem_unplug_used", virtio_mem_unplug } },
	{ { "balloon_inflate", balloon_inflate }, { "balloon_deflate", balloon_deflate } },
	{ { NULL, used_add }, { "device_del_used", small_del } },
	{ { NULL, bad_add }, { "device_del_bad", small_del } },
};

struct section {
	long us;
	char function[64];
};

/* Who ended the longest section: the first caller of locking and tracing. */
static void read_function(struct section *s)
{
	FILE *trace = fopen(TRACING "trace", "r");
	bool stack = false;
	char line[256], name[64];

	strcpy(s->function, "?");
	while (trace && fgets(line, sizeof(line), trace)) {
		stack |= !!strstr(line, "<stack trace>");
		if (!stack || sscanf(line, " => %63s", name) != 1 ||
		    strstr(name, "trace") || strstr(name, "_raw_") || strstr(name, "preempt_"))
			continue;
		strcpy(s->function, name);
		break;
	}
	if (trace)
		fclose(trace);
}

/*
 * An interrupt may come anywhere and makes a section longer, but not each time:
 * the shortest of some runs is what the operation itself needs.
 */
static void measure(const struct operation *op, struct section *least)
{
	struct section s;

	if (!op->name) {
		op->run();
		return;
	}
	must("tracing", write_line(TRACING "tracing_max_latency", "0"));
	op->run();
	s.us = read_field(TRACING "tracing_max_latency", "");
	if (s.us <= 0)
		errx(1, "%s: the tracer saw nothing", op->name);
	read_function(&s);
	if (!least->us || s.us < least->us)
		*least = s;
}

static void measure_all(const char *tracer)
{
	must(tracer, write_line(TRACING "current_tracer", tracer));
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++) {
		struct section s[2] = {};

		must("policy", auto_online_set(i < 2 ? "offline" : "online_movable", NULL, 0));
		for (int n = 0; n < REPEAT; n++)
			for (int k = 0; k < 2; k++)
				measure(&operations[i][k], &s[k]);
		for (int k = !operations[i][0].name; k < 2; k++)
			printf("%s_%s %ld %s\n", tracer, operations[i][k].name, s[k].us,
			       s[k].function);
		/* What was offline up to now is the rest of the zone. */
		for (int b = 1; !i && b < BLOCKS; b++)
			set_block(b, "online_kernel");
	}
}

int main(int argc, char **argv)
{
	if (argc != 2)
		errx(2, "usage: latency irqsoff|preemptoff");
	must("policy", auto_online_set("offline", NULL, 0));
	must("virtio-mem", host_request(NULL, 0, "add virtio-mem vm0 1G"));
	must("DIMM", dimm_plug(&dimm, BLOCKS * block_bytes()));
	must("tracing", write_line(TRACING "trace_clock", "local"));
	measure_all(argv[1]);
	return 0;
}
