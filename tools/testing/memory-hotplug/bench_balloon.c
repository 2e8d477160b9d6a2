// SPDX-License-Identifier: GPL-2.0
/*
 * What the virtio balloon costs, in guest instructions: under QEMU -icount with
 * shift=0 the time stamp counter counts them. The driver works in the background,
 * so the workqueue tracepoints tell how long. Prints "NAME VALUE" lines.
 *
 *	bench_balloon size		inflate by 1 GiB and deflate
 *	bench_balloon reporting		report free pages after 16 GiB were hot-added
 *	bench_balloon size_bars		check the bars that the stack has to keep, as TAP
 *	bench_balloon reporting_bars	the same for reporting
 *	bench_balloon reporting_written	that memory is reported if onlining writes to it
 */
#include <sys/mman.h>

#include "measure.h"

#define GIB_KB		(1L << 20)
/* Reporting takes turns of 2 s; each looks at a sixteenth of what is free. */
#define REPORT_SECONDS	120
/* To report a GiB takes 2.35 M instructions. */
#define REPORT_GIB	2000000UL

/* The reserves are computed by a work function of its own. */
static uint64_t resize(long ram_kb, long balloon_kb)
{
	static const char *const functions[] = {
		"update_balloon_size_func", "reserve_work_fn", NULL
	};
	static long old_kb;
	long total_kb = read_field("/proc/meminfo", "MemTotal:");

	trace_start();
	if (host_request(NULL, 0, "balloon %ldM", (ram_kb - balloon_kb) >> 10))
		errx(1, "no balloon");
	wait_for_total(total_kb + old_kb - balloon_kb);
	sleep(2);
	old_kb = balloon_kb;
	return trace_end(functions);
}

static int count_nodes(void)
{
	char path[64];
	int nr = 0;

	while (snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", nr),
	       !access(path, F_OK))
		nr++;
	return nr;
}

/* RAM at boot is not to be seen here: MemTotal is what the kernel leaves of it. */
static void measure_size(bool bars)
{
	long ram_kb = (read_field("/proc/meminfo", "MemTotal:") + GIB_KB - 1) & -GIB_KB;
	int nodes = count_nodes();
	uint64_t inflate, deflate;

	inflate = resize(ram_kb, GIB_KB);
	deflate = resize(ram_kb, 0);
	if (bars) {
		ksft_print_header();
		ksft_set_plan(2);
		check_bar("inflate by 1 GiB", inflate, 100000000);
		check_bar("deflate by 1 GiB", deflate, 95000000);
		ksft_finished();
	}
	printf("balloon_inflate_%d %lu\nballoon_deflate_%d %lu\n",
	       nodes, inflate, nodes, deflate);
}

/* What reporting costs after a change, from a state in which it has nothing to do. */
static uint64_t report_end(void)
{
	static const char *const functions[] = { "page_reporting_process", NULL };

	sleep(REPORT_SECONDS);
	return trace_end(functions);
}

static uint64_t report_plugged(struct dimm *dimm, unsigned long gib)
{
	/* What is free since boot is reported first. */
	shrink_kernel_memory();
	sleep(REPORT_SECONDS);
	trace_start();
	if (dimm_plug(dimm, gib << 30))
		errx(1, "no DIMM");
	return report_end();
}

/* Touch memory of the DIMM, and free it. */
static uint64_t report_used(const struct dimm *dimm)
{
	size_t size = 256UL << 20;
	char *map;

	trace_start();
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		err(1, "256 MiB");
	for (size_t at = 0; at < size; at += getpagesize())
		map[at] = 1;
	for (size_t at = 0; at < size; at += 32UL << 20)
		if (block_of(map + at) < dimm->first)
			errx(1, "the memory is not of the DIMM");
	munmap(map, size);
	return report_end();
}

static uint64_t report_online_again(const struct dimm *dimm)
{
	int block;

	trace_start();
	if (dimm_offline(dimm))
		errx(1, "the DIMM stays online");
	for_each_block(block, dimm)
		if (block_set(block, "online_movable"))
			errx(1, "memory%d does not go online again", block);
	return report_end();
}

/*
 * @written: memory is written to when it goes online, with init_on_free for instance,
 * so that all of it has to be reported, and costs what it does. The host backs all
 * of it then, and may not have much.
 */
static void measure_reporting(bool bars, bool written)
{
	const unsigned long gib = written ? 1 : 16, all = gib * REPORT_GIB;
	struct dimm dimm = { .id = "report" };
	uint64_t plugged, used, again;

	if (write_line(AUTO_ONLINE, "online_movable"))
		errx(1, "cannot set " AUTO_ONLINE);
	/* It may have nothing to do: the kernel is told when large chunks are freed. */
	plugged = report_plugged(&dimm, gib);
	used = report_used(&dimm);
	if (!used)
		errx(1, "free pages are not reported: QEMU needs --balloon free-page-reporting=on");
	printf("reporting %lu\n", plugged);
	if (!bars)
		return;
	again = report_online_again(&dimm);
	ksft_print_header();
	ksft_set_plan(3);
	if (written)
		ksft_test_result(plugged >= all, "all of a DIMM is reported: %lu\n", plugged);
	else
		check_bar("report free pages after 16 GiB were hot-added", plugged, 150000);
	/* A quarter of a GiB; some of it may be on pcplists. */
	ksft_test_result(used >= REPORT_GIB / 6, "memory that was used is reported: %lu\n", used);
	ksft_test_result(again >= all, "a DIMM that was online before is reported: %lu\n",
			 again);
	ksft_finished();
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (write_line(TRACING "buffer_size_kb", "8192"))
		errx(1, "cannot trace");
	if (!strcmp(what, "size") || !strcmp(what, "size_bars"))
		measure_size(strstr(what, "bars"));
	else if (!strncmp(what, "reporting", strlen("reporting")))
		measure_reporting(strcmp(what, "reporting"), strstr(what, "written"));
	else
		errx(2, "usage: bench_balloon size|reporting|size_bars|reporting_bars|reporting_written");
	return 0;
}
