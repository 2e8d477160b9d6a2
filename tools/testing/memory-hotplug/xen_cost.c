// SPDX-License-Identifier: GPL-2.0
/*
 * What the balloon of Xen's dom0 costs, in guest instructions: the CPU time of its
 * kernel thread under QEMU -icount with shift=0. The hypervisor's own work for it is
 * in there; clearing the pages is not, as that depends on how a CPU does it.
 *
 *	xen_cost	print "NAME VALUE" lines for 1 GiB down and up
 *	xen_cost bars	check the bars that the stack has to keep, as TAP
 */
#include <err.h>
#include <stdint.h>

#include "memhp.h"

#define XEN	"/sys/devices/system/xen_memory/xen_memory0/"
#define KIB	(1UL << 20)		/* 1 GiB */
#define SECONDS	1800

static pid_t balloon_thread(void)
{
	struct dirent *entry;
	char path[300], name[32];
	DIR *dir = opendir("/proc");
	pid_t pid = 0;

	while (!pid && dir && (entry = readdir(dir))) {
		if (atoi(entry->d_name) <= 2)
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
		if (!read_line(path, name, sizeof(name)) && !strcmp(name, "xen-balloon"))
			pid = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (!pid)
		errx(4, "no thread called xen-balloon: not a Xen domain");
	return pid;
}

static uint64_t cpu_time(void)
{
	struct timespec ts;
	clockid_t clock;

	if (clock_getcpuclockid(balloon_thread(), &clock) || clock_gettime(clock, &ts))
		errx(1, "no CPU time of the balloon's thread");
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static long current_kb(void)
{
	char text[32];

	return read_line(XEN "info/current_kb", text, sizeof(text)) ? -1 : atol(text);
}

static uint64_t balloon_to(long kb)
{
	uint64_t start = cpu_time();
	char text[32];

	snprintf(text, sizeof(text), "%ld", kb);
	if (write_line(XEN "target_kb", text) || !wait_until(current_kb() == kb, SECONDS))
		errx(1, "the balloon does not reach %ld KiB but %ld", kb, current_kb());
	return cpu_time() - start;
}

int main(int argc, char **argv)
{
	bool bars = argc == 2 && !strcmp(argv[1], "bars");
	long kb = current_kb();
	uint64_t up, down;

	if (argc > 1 && !bars)
		errx(2, "usage: xen_cost [bars]");
	/* The first time, the hypervisor clears what nobody had yet. */
	if (auto_online_set("online_kernel", NULL, 0) || write_line(XEN "scrub_pages", "0"))
		errx(1, "no " XEN);
	balloon_to(kb + KIB);
	down = balloon_to(kb);
	up = balloon_to(kb + KIB);
	if (!bars) {
		printf("xen_up %lu\nxen_down %lu\n", up, down);
		return 0;
	}
	ksft_print_header();
	ksft_set_plan(2);
	ksft_test_result(up <= 400000000, "Xen balloon up by 1 GiB: %lu instructions\n", up);
	ksft_test_result(down <= 460000000, "Xen balloon down by 1 GiB: %lu instructions\n", down);
	ksft_finished();
}
