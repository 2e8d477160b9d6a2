/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the benches share: under QEMU -icount with shift=0 the time stamp counter
 * counts guest instructions, and the workqueue tracepoints tell how many of them the
 * kernel spends in the background.
 */
#ifndef _MEASURE_H
#define _MEASURE_H

#include <err.h>
#include <stdint.h>

#include "memhp.h"

#define TRACING	"/sys/kernel/tracing/"

/* What was migrated between trace_start() and trace_end(), in pages */
static uint64_t migrated;

static void trace_start(void)
{
	int fd = open(TRACING "trace", O_WRONLY | O_TRUNC);	/* empties it */

	close(fd);
	if (fd < 0 || write_line(TRACING "trace_clock", "x86-tsc") ||
	    write_line(TRACING "events/workqueue/workqueue_execute_start/enable", "1") ||
	    write_line(TRACING "events/workqueue/workqueue_execute_end/enable", "1") ||
	    write_line(TRACING "events/migrate/mm_migrate_pages/enable", "1"))
		errx(1, "cannot trace workqueues and migration");
}

/* Is it a workqueue event of one of @functions? */
static char *work_event(char *line, const char *const *functions)
{
	char *event = strstr(line, ": workqueue_execute_");

	for (; event && *functions; functions++) {
		char *at = strstr(event, *functions);

		if (at && at[strlen(*functions)] == '\n')
			return event;
	}
	return NULL;
}

/*
 * How long the work functions ran since trace_start(), sleeping included; @functions
 * ends with NULL. One CPU: none of them runs within another.
 */
static uint64_t trace_end(const char *const *functions)
{
	uint64_t sum = 0, start = 0, stamp;
	unsigned long pages;
	char line[512], *event;
	FILE *trace;

	write_line(TRACING "events/workqueue/enable", "0");
	write_line(TRACING "events/migrate/enable", "0");
	migrated = 0;
	trace = fopen(TRACING "trace", "r");
	if (!trace)
		err(1, TRACING "trace");
	while (fgets(line, sizeof(line), trace)) {
		if (parse_field(line, "nr_succeeded=", &pages))
			migrated += pages;
		event = work_event(line, functions);
		if (!event)
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

/* Sleep, rather than look often: looking is counted as well. */
static void wait_for_total(long kib)
{
	for (int i = 0; i < 600; i++) {
		if (read_field("/proc/meminfo", "MemTotal:") == kib)
			return;
		sleep(1);
	}
	errx(1, "MemTotal does not reach %ld KiB", kib);
}

/* BAR_PERCENT of the environment is for a configuration that costs more throughout. */
static void check_bar(const char *what, uint64_t value, uint64_t bar)
{
	const char *percent = getenv("BAR_PERCENT");

	if (percent)
		bar = bar / 100 * strtoul(percent, NULL, 10);
	ksft_test_result(value <= bar, "%s: %lu instructions, at most %lu\n", what, value, bar);
}

#endif /* _MEASURE_H */
