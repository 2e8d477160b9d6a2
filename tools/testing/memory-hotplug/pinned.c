// SPDX-License-Identifier: GPL-2.0
/*
 * pinned direct|pipe THREADS KIB HELD_US RUNS: how long it takes to take a block
 * offline while each thread pins KIB of its pages, lets go, and pins them again:
 * for a read with O_DIRECT from /dev/pmem0, or for HELD_US in a pipe, with vmsplice().
 * Under QEMU -icount a nanosecond is a guest instruction. Prints the distribution.
 */
#include <err.h>
#include <pthread.h>
#include <sys/uio.h>

#include "memhp.h"

#define MAX_THREADS	16
#define MAX_RUNS	1000
#define DIMM_BYTES	(128UL << 20)

static volatile bool stop;
static size_t bytes;
static unsigned int held_us;

static void *read_direct(void *buf)
{
	int fd = open("/dev/pmem0", O_RDONLY | O_DIRECT);

	if (fd < 0)
		err(1, "/dev/pmem0");
	while (!stop)
		if (pread(fd, buf, bytes, 0) != (ssize_t)bytes)
			err(1, "pread");
	close(fd);
	return NULL;
}

static void *through_pipe(void *buf)
{
	char *sink = malloc(bytes);
	int p[2];

	if (!sink || pipe(p) || fcntl(p[1], F_SETPIPE_SZ, 1 << 20) < 0)
		err(1, "pipe");
	while (!stop) {
		struct iovec iov = { buf, bytes };
		ssize_t n;

		if (vmsplice(p[1], &iov, 1, 0) != (ssize_t)bytes)
			err(1, "vmsplice");
		usleep(held_us);
		for (size_t done = 0; done < bytes; done += n) {
			n = read(p[0], sink, bytes - done);
			if (n <= 0)
				err(1, "read");
		}
	}
	close(p[0]);
	close(p[1]);
	free(sink);
	return NULL;
}

static double time_offline(int block, void *(*pin)(void *), int threads)
{
	pthread_t thread[MAX_THREADS];
	char *buf[MAX_THREADS];
	double start, end;

	if (block_set(block, "online_movable"))
		errx(1, "memory%d does not go online", block);
	/* ZONE_MOVABLE is used first. */
	for (int i = 0; i < threads; i++) {
		buf[i] = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (buf[i] == MAP_FAILED || madvise(buf[i], bytes, MADV_NOHUGEPAGE))
			err(1, "mmap");
		memset(buf[i], 1, bytes);
		if (block_of(buf[i]) != block)
			errx(1, "the buffers are not in memory%d", block);
	}
	stop = false;
	for (int i = 0; i < threads; i++)
		if (pthread_create(&thread[i], NULL, pin, buf[i]))
			errx(1, "no thread");
	usleep(20000);
	start = now();
	if (block_set(block, "offline"))
		errx(1, "memory%d does not go offline", block);
	end = now();
	stop = true;
	for (int i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		munmap(buf[i], bytes);
	}
	return end - start;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
	static double ms[MAX_RUNS];
	struct dimm dimm = { .id = "pinned" };
	int threads, runs;
	bool direct;

	if (argc != 6)
		errx(2, "usage: pinned direct|pipe THREADS KIB HELD_US RUNS");
	direct = !strcmp(argv[1], "direct");
	threads = atoi(argv[2]);
	bytes = strtoul(argv[3], NULL, 10) << 10;
	held_us = atoi(argv[4]);
	runs = atoi(argv[5]);
	if (threads < 1 || threads > MAX_THREADS || runs < 1 || runs > MAX_RUNS)
		errx(2, "at most %d threads and %d runs", MAX_THREADS, MAX_RUNS);
	if (auto_online_set("offline", NULL, 0) || dimm_plug(&dimm, DIMM_BYTES))
		errx(1, "no DIMM");
	for (int i = 0; i < runs; i++)
		ms[i] = time_offline(dimm.first, direct ? read_direct : through_pipe,
				     threads) * 1e3;
	qsort(ms, runs, sizeof(*ms), compare);
	printf("%s %d x %zu KiB: median %.1f, 90 %% %.1f, max %.1f ms in %d runs\n", argv[1],
	       threads, bytes >> 10, ms[runs / 2], ms[runs * 9 / 10], ms[runs - 1], runs);
	if (dimm_unplug(&dimm))
		errx(1, "the DIMM stays");
	return 0;
}
