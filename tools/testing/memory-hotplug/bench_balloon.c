// SPDX-License-Identifier: GPL-2.0
/*
 * What the virtio balloon costs, in guest instructions: under QEMU -icount with
 * shift=0 the time stamp counter counts them. The driver works in the background,
 * so the workqueue tracepoints tell how long. Prints "NAME VALUE" lines.
 *
 *	bench_balloon size		inflate by 1 GiB and deflate
 *	bench_balloon size_bars		check the bars that the stack has to keep, as TAP
 */
#include <sys/mman.h>

#include "measure.h"

#define GIB_KB		(1L << 20)

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

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (write_line(TRACING "buffer_size_kb", "8192"))
		errx(1, "cannot trace");
	if (!strcmp(what, "size") || !strcmp(what, "size_bars"))
		measure_size(strstr(what, "bars"));
	else
		errx(2, "usage: bench_balloon size|size_bars");
	return 0;
}
