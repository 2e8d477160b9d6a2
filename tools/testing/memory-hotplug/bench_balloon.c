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
 */
#include <err.h>
#include <stdint.h>

#include "memhp.h"

#define TRACING		"/sys/kernel/tracing/"
#define GIB_KB		(1L << 20)
#define PLUG_GIB	16
/* Reporting takes turns of 2 s; each looks at a sixteenth of what is free. */
#define REPORT_SECONDS	120

static void events_enable(const char *on)
{
	if (write_line(TRACING "events/workqueue/workqueue_execute_start/enable", on) ||
	    write_line(TRACING "events/workqueue/workqueue_execute_end/enable", on))
		errx(1, "cannot trace workqueues");
}

static void work_start(void)
{
	int fd = open(TRACING "trace", O_WRONLY | O_TRUNC);	/* empties it */

	close(fd);
	if (fd < 0 || write_line(TRACING "trace_clock", "x86-tsc") ||
	    write_line(TRACING "buffer_size_kb", "8192"))
		errx(1, "cannot trace");
	events_enable("1");
}

static bool ends_with(const char *line, const char *function)
{
	const char *at = strstr(line, function);

	return at && at[strlen(function)] == '\n';
}

/* How long the work functions ran since work_start(). One CPU: none runs within another. */
static uint64_t work_end(const char *const *functions)
{
	uint64_t sum = 0, start = 0, stamp;
	char line[512], *event;
	FILE *trace;
	int i;

	events_enable("0");
	trace = fopen(TRACING "trace", "r");
	if (!trace)
		err(1, TRACING "trace");
	while (fgets(line, sizeof(line), trace)) {
		event = strstr(line, ": workqueue_execute_");
		for (i = 0; event && functions[i]; i++)
			if (ends_with(event, functions[i]))
				break;
		if (!event || !functions[i])
			continue;
		while (event > line && event[-1] != ' ')
			event--;
		stamp = strtoull(event, NULL, 10);
		if (strstr(event, "execute_start"))
			start = stamp;
		else if (start)
			sum += stamp - start;
	}
	fclose(trace);
	return sum;
}

/* Sleep, rather than look often: whoever looks is counted too. */
static void wait_for_total(long kb)
{
	for (int i = 0; i < 600; i++) {
		if (read_field("/proc/meminfo", "MemTotal:") == kb)
			return;
		sleep(1);
	}
	errx(1, "MemTotal does not reach %ld kB", kb);
}

/* The reserves are computed by a work function of its own. */
static uint64_t resize(long ram_kb, long balloon_kb)
{
	static const char *const functions[] = {
		"update_balloon_size_func", "reserve_work_fn", NULL
	};
	static long old_kb;
	long total_kb = read_field("/proc/meminfo", "MemTotal:");

	work_start();
	if (host_request(NULL, 0, "balloon %ldM", (ram_kb - balloon_kb) >> 10))
		errx(1, "no balloon");
	wait_for_total(total_kb + old_kb - balloon_kb);
	sleep(2);
	old_kb = balloon_kb;
	return work_end(functions);
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

static void check_bar(const char *what, uint64_t value, uint64_t bar)
{
	ksft_test_result(value <= bar, "%s: %lu instructions, at most %lu\n", what, value, bar);
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

static void measure_reporting(bool bars)
{
	static const char *const functions[] = { "page_reporting_process", NULL };
	long before = read_field("/proc/meminfo", "MemTotal:");
	uint64_t cost;

	if (write_line(AUTO_ONLINE, "online_movable"))
		errx(1, "cannot set " AUTO_ONLINE);
	/* What is free since boot has been reported. */
	sleep(REPORT_SECONDS);
	work_start();
	if (host_request(NULL, 0, "add dimm report %dG", PLUG_GIB))
		errx(1, "no DIMM");
	wait_for_total(before + PLUG_GIB * GIB_KB);
	sleep(REPORT_SECONDS);
	cost = work_end(functions);
	if (!cost)
		errx(1, "free pages are not reported: QEMU needs --balloon free-page-reporting=on");
	if (bars) {
		ksft_print_header();
		ksft_set_plan(1);
		check_bar("report free pages after 16 GiB were hot-added", cost, 100000);
		ksft_finished();
	}
	printf("reporting %lu\n", cost);
}

int main(int argc, char **argv)
{
	const char *what = argc == 2 ? argv[1] : "";

	if (!strcmp(what, "size") || !strcmp(what, "size_bars"))
		measure_size(strstr(what, "bars"));
	else if (!strcmp(what, "reporting") || !strcmp(what, "reporting_bars"))
		measure_reporting(strstr(what, "bars"));
	else
		errx(2, "usage: bench_balloon size|reporting|size_bars|reporting_bars");
	return 0;
}
