// SPDX-License-Identifier: GPL-2.0
/* What programs that plug, online and offline memory have in common, see memhp.h. */
#include "memhp.h"

int complain(const char *what, int err)
{
	fprintf(stderr, "# %s: %s (%d)\n", what, strerror(-err), err);
	return err;
}

/* One line, without its newline. */
int read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "r");
	int err = 0;

	if (!f)
		return complain(path, -errno);
	errno = 0;
	if (!fgets(buf, size, f))
		err = complain(path, errno ? -errno : -ENODATA);
	fclose(f);
	if (!err)
		buf[strcspn(buf, "\n")] = '\0';
	return err;
}

int write_line(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* What becomes of new blocks; stores what did so far. */
int auto_online_set(const char *policy, char *old, size_t size)
{
	int err = old ? read_line(AUTO_ONLINE, old, size) : 0;

	return err ? err : write_line(AUTO_ONLINE, policy);
}

/* The number after @field; @value stays as it is when the line has none. */
bool parse_field(const char *line, const char *field, unsigned long *value)
{
	const char *at = strstr(line, field);

	if (at)
		*value = strtoul(at + strlen(field), NULL, 10);
	return at;
}

/* As in meminfo files; there the numbers are in KiB. */
long read_field(const char *path, const char *field)
{
	FILE *f = fopen(path, "r");
	unsigned long value = 0;
	bool found = false;
	char line[256];

	if (!f)
		return complain(path, -errno);
	while (!found && fgets(line, sizeof(line), f))
		found = parse_field(line, field, &value);
	fclose(f);
	return found ? (long)value : complain(path, -ENOENT);
}

/* Count @event, SYSTEM/NAME, in a trace of our own. */
int events_start(const char *event)
{
	char path[128];

	snprintf(path, sizeof(path), TRACE_INSTANCE "/events/%s/enable", event);
	if (mkdir(TRACE_INSTANCE, 0755) && errno != EEXIST)
		return -errno;
	return write_line(path, "1");
}

void events_stop(void)
{
	rmdir(TRACE_INSTANCE);
}

/* In the buffers of all CPUs, and what no longer is because they are small. */
long events(void)
{
	long sum = 0, nr, lost;
	char path[128];
	int cpu;

	for (cpu = 0; cpu < cpus_online(); cpu++) {
		snprintf(path, sizeof(path), TRACE_INSTANCE "/per_cpu/cpu%d/stats", cpu);
		nr = read_field(path, "entries:");
		lost = read_field(path, "overrun:");
		if (nr < 0 || lost < 0)
			return -EIO;
		sum += nr + lost;
	}
	return sum;
}

int events_clear(void)
{
	int fd = open(TRACE_INSTANCE "/trace", O_WRONLY | O_TRUNC | O_CLOEXEC);

	if (fd < 0)
		return complain(TRACE_INSTANCE, -errno);
	close(fd);
	return 0;
}

unsigned long block_bytes(void)
{
	char text[32] = "";

	if (read_line(MEMORY_SYSFS "/block_size_bytes", text, sizeof(text)))
		return 0;
	return strtoul(text, NULL, 16);
}

unsigned long block_pages(void)
{
	return block_bytes() / getpagesize();
}

/*
 * With memmap_on_memory a block's own first pages hold its struct pages: they
 * are present, but never given to the page allocator.  A struct page has 64
 * bytes; where it has not, the feature is off.
 */
unsigned long block_memmap_pages(void)
{
	char text[16] = "N";

	read_line("/sys/module/memory_hotplug/parameters/memmap_on_memory",
		  text, sizeof(text));
	return text[0] == 'N' ? 0 : block_pages() * 64 / getpagesize();
}

/* Fills a map of MAX_BLOCKS when there is one; returns how many there are. */
int blocks_present(bool *map)
{
	DIR *dir = opendir(MEMORY_SYSFS);
	struct dirent *e;
	int b, count = 0;

	if (!dir)
		return complain(MEMORY_SYSFS, -errno);
	if (map)
		memset(map, 0, MAX_BLOCKS * sizeof(*map));
	while ((e = readdir(dir))) {
		if (sscanf(e->d_name, "memory%d", &b) != 1)
			continue;
		count++;
		if (map && b < MAX_BLOCKS)
			map[b] = true;
	}
	closedir(dir);
	return count;
}

int wait_for_blocks(int count, int seconds)
{
	if (wait_until(blocks_present(NULL) == count, seconds))
		return 0;
	fprintf(stderr, "# %d memory blocks instead of %d after %d s\n",
		blocks_present(NULL), count, seconds);
	return -ETIMEDOUT;
}

int block_read(int block, const char *file, char *buf, size_t size)
{
	char path[96];

	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d/%s", block, file);
	return read_line(path, buf, size);
}

/* The block that has the page @p points to. */
int block_of(const void *p)
{
	unsigned long long entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t at = (unsigned long)p / getpagesize() * sizeof(entry);

	if (fd < 0)
		return complain("/proc/self/pagemap", -errno);
	if (pread(fd, &entry, sizeof(entry), at) != sizeof(entry))
		entry = 0;
	close(fd);
	/* Bits 0-54 are the page frame number. */
	return (entry & ((1ULL << 55) - 1)) / block_pages();
}

/* 1: online, 0: offline; -EBUSY is a state that no finished write leaves. */
int block_online(int block)
{
	char state[32];
	int err = block_read(block, "state", state, sizeof(state));

	if (err)
		return err;
	if (!strcmp(state, "online"))
		return 1;
	return strcmp(state, "offline") ? -EBUSY : 0;
}

void ignore_signal(int sig __maybe_unused)
{
}

/*
 * The state files of plugged blocks, 0 for none: opened by dimm_plug(), as an
 * open file takes memory of just the block that shall go offline.
 */
int block_fds[MAX_BLOCKS];

int block_open(int block)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), MEMORY_SYSFS "/memory%d/state", block);
	/* A directory is there before the files in it. */
	wait_until(!access(path, F_OK), RETRY_SECONDS);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? complain(path, -errno) : fd;
}

/*
 * Offlining tries for as long as there is hope to move the pages, maybe for
 * ever, but backs off with EINTR when a signal comes: that bounds it.
 */
int block_set_within(int block, const char *state, int seconds)
{
	struct sigaction act = { .sa_handler = ignore_signal }, old;
	int fd = block_fds[block], err;

	if (!fd)
		fd = block_open(block);
	if (fd < 0)
		return fd;
	sigaction(SIGALRM, &act, &old);
	alarm(seconds);
	err = write(fd, state, strlen(state)) < 0 ? -errno : 0;
	alarm(0);
	sigaction(SIGALRM, &old, NULL);
	if (fd != block_fds[block])
		close(fd);
	return err;
}

int block_set(int block, const char *state)
{
	return block_set_within(block, state, BLOCK_SECONDS);
}

/*
 * Let go of what the kernel keeps only because nobody wanted it back yet.  The
 * files stay open: looking them up takes memory that itself would be in the
 * way, so dimm_plug() already does.
 */
void shrink_kernel_memory(void)
{
	static int drop_caches, fds[512], nr;
	struct dirent *e;
	char path[300];
	DIR *dir;
	int i;

	if (!drop_caches)
		drop_caches = open("/proc/sys/vm/drop_caches",
				   O_WRONLY | O_CLOEXEC);
	dir = nr ? NULL : opendir("/sys/kernel/slab");
	while (dir && nr < (int)ARRAY_SIZE(fds) && (e = readdir(dir))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink",
			 e->d_name);
		fds[nr] = open(path, O_WRONLY | O_CLOEXEC);
		nr += fds[nr] >= 0;
	}
	if (dir)
		closedir(dir);
	if (pwrite(drop_caches, "3", 1, 0) < 0)
		complain("/proc/sys/vm/drop_caches", -errno);
	for (i = 0; i < nr; i++)
		if (write(fds[i], "1", 1) < 0)
			complain("/sys/kernel/slab", -errno);
}

/*
 * A block of a kernel zone gets all sorts of small allocations and can only go
 * offline once the last of them is freed.  For some the kernel says EBUSY at
 * once, for others it tries until the signal comes.
 */
int block_offline_retry(int block, int seconds)
{
	double end = now() + seconds;
	int err;

	for (;;) {
		err = block_set_within(block, "offline", RETRY_SECONDS / 4);
		if ((err != -EBUSY && err != -EINTR) || now() > end)
			return err;
		/* RCU and workqueues have to free things as well. */
		shrink_kernel_memory();
		usleep(200000);
		shrink_kernel_memory();
	}
}

int zones_read(int node, struct zone *zones)
{
	FILE *f = fopen("/proc/zoneinfo", "r");
	struct zone *z = NULL, new = { .free = 0 };
	unsigned long pcp;
	char line[256];
	int n, nr = 0;

	if (!f)
		return complain("/proc/zoneinfo", -errno);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone %15s", &n, new.name) == 2) {
			z = NULL;
			if (n == node && nr < MAX_ZONES) {
				z = &zones[nr++];
				*z = new;
			}
		}
		if (!z)
			continue;
		parse_field(line, "pages free ", &z->free);
		parse_field(line, "spanned ", &z->spanned);
		parse_field(line, "present ", &z->present);
		parse_field(line, "managed ", &z->managed);
		parse_field(line, "start_pfn: ", &z->start_pfn);
		if (parse_field(line, "count: ", &pcp))
			z->pcp += pcp;
	}
	fclose(f);
	return nr ? nr : complain("/proc/zoneinfo", -ENOENT);
}

const struct zone *zone_find(const struct counters *c, const char *name)
{
	static const struct zone none;
	int i;

	for (i = 0; i < c->nr_zones; i++)
		if (!strcmp(c->zones[i].name, name))
			return &c->zones[i];
	return &none;
}

/* One line of buddyinfo is how many free areas there are of each order. */
long buddy_pages(int node, const char *zone)
{
	FILE *f = fopen("/proc/buddyinfo", "r");
	char line[512], name[16], *at;
	int n, order, used;
	long areas, sum = 0;

	if (!f)
		return complain("/proc/buddyinfo", -errno);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Node %d, zone %15s%n", &n, name, &used) != 2 ||
		    n != node || strcmp(name, zone))
			continue;
		at = line + used;
		for (order = 0; sscanf(at, "%ld%n", &areas, &used) == 1; order++) {
			sum += areas << order;
			at += used;
		}
	}
	fclose(f);
	return sum;
}

int counters_read(int node, struct counters *c)
{
	long kb_page = getpagesize() / 1024, total, node_total;
	char path[64];

	memset(c, 0, sizeof(*c));
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo",
		 node);
	total = read_field("/proc/meminfo", "MemTotal:");
	node_total = read_field(path, "MemTotal:");
	c->nr_zones = zones_read(node, c->zones);
	if (total < 0 || node_total < 0 || c->nr_zones < 0)
		return -EIO;
	c->total = total / kb_page;
	c->node_total = node_total / kb_page;
	return 0;
}

/*
 * What the counters have to be when on top of @base the blocks of the map @as
 * are online: each zone spans exactly from its first to its last block, holes
 * included.
 */
void counters_expect(struct counters *c, const struct counters *base,
		     const unsigned char *as)
{
	unsigned long pages = block_pages();
	unsigned long managed = pages - block_memmap_pages();
	struct zone *z;
	int b;

	*c = *base;
	for (b = 0; b < MAX_BLOCKS; b++) {
		unsigned long start = b * pages, end = start + pages;

		if (as[b] == OFFLINE)
			continue;
		z = (struct zone *)zone_find(c, zone_name[as[b]]);
		if (z->spanned && z->start_pfn < start)
			start = z->start_pfn;
		if (z->spanned && z->start_pfn + z->spanned > end)
			end = z->start_pfn + z->spanned;
		z->start_pfn = start;
		z->spanned = end - start;
		z->present += pages;
		z->managed += managed;
		c->node_total += managed;
		c->total += managed;
	}
}

int differs(const char *zone, const char *what, unsigned long expected,
	    unsigned long seen)
{
	if (expected != seen)
		fprintf(stderr, "# %s %s: %lu pages instead of %lu\n", zone,
			what, seen, expected);
	return expected != seen;
}

/* How many counters differ; each is named. */
int counters_differ(const struct counters *expected,
		    const struct counters *seen)
{
	const struct zone *e = expected->zones, *s = seen->zones;
	unsigned long sum = 0;
	int i, bad;

	bad = differs("all", "MemTotal", expected->total, seen->total);
	bad += differs("node", "MemTotal", expected->node_total,
		       seen->node_total);
	bad += differs("node", "zones", expected->nr_zones, seen->nr_zones);
	for (i = 0; i < seen->nr_zones; i++, e++, s++) {
		bad += differs(s->name, "spanned", e->spanned, s->spanned);
		bad += differs(s->name, "present", e->present, s->present);
		bad += differs(s->name, "managed", e->managed, s->managed);
		bad += differs(s->name, "start_pfn", e->start_pfn, s->start_pfn);
		sum += s->managed;
	}
	return bad + differs("node", "sum of managed", sum, seen->node_total);
}

/* Stores the path of the port the host listens to. */
static int host_port(char *path, size_t size)
{
	DIR *dir = opendir("/sys/class/virtio-ports");
	char attr[300], name[32];
	struct dirent *e;
	int err = -ENODEV;

	while (dir && err && (e = readdir(dir))) {
		snprintf(attr, sizeof(attr), "/sys/class/virtio-ports/%s/name",
			 e->d_name);
		if (e->d_name[0] == '.' || read_line(attr, name, sizeof(name)))
			continue;
		if (strcmp(name, "host"))
			continue;
		snprintf(path, size, "/dev/%s", e->d_name);
		err = 0;
	}
	if (dir)
		closedir(dir);
	return err;
}

static int poll_retry(struct pollfd *pfd)
{
	int n;

	do
		n = poll(pfd, 1, -1);
	while (n < 0 && errno == EINTR);
	return n;
}

bool have_host(void)
{
	char path[300];

	return !host_port(path, sizeof(path));
}

/* Begins or ends what scripts/profile counts: a system call that nothing else makes. */
void profile_mark(void)
{
	syscall(SYS_personality, 0xffffffff);
}

/*
 * Ask the host for something; @reply is what it answered, less "ok ".  It always
 * answers, and when is not measured with the guest's clock.
 */
int host_request(char *reply, size_t size, const char *fmt, ...)
{
	struct pollfd pfd = { .events = POLLOUT };
	char path[300], line[256] = "";
	size_t len;
	va_list ap;
	ssize_t n;
	int err;

	err = host_port(path, sizeof(path));
	if (err)
		return complain("virtio port \"host\"", err);
	pfd.fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (pfd.fd < 0)
		return complain(path, -errno);

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line) - 1, fmt, ap);
	va_end(ap);
	strcat(line, "\n");
	len = strlen(line);
	err = -EIO;
	if (poll_retry(&pfd) != 1 || write(pfd.fd, line, len) != (ssize_t)len)
		goto out;

	pfd.events = POLLIN;
	for (len = 0; !len || line[len - 1] != '\n'; len += n) {
		err = -EIO;
		if (poll_retry(&pfd) != 1)
			goto out;
		n = read(pfd.fd, line + len, sizeof(line) - 1 - len);
		err = n < 0 ? -errno : -EPIPE;
		if (n <= 0)
			goto out;
	}
	line[len - 1] = '\0';
	err = strncmp(line, "ok", 2) ? -EIO : 0;
	if (reply)
		snprintf(reply, size, "%.*s", (int)size - 1,
			 err ? line : line[2] ? line + 3 : "");
	if (err)
		fprintf(stderr, "# the host: %s\n", line);
out:
	close(pfd.fd);
	return err ? complain(path, err) : 0;
}

/*
 * The host answers as soon as the device is there, the kernel then handles the
 * event.  Where the DIMM ended up shows in which blocks are new.
 */
int dimm_plug(struct dimm *d, unsigned long bytes)
{
	static bool before[MAX_BLOCKS], after[MAX_BLOCKS];
	int b, err, old = blocks_present(before);

	shrink_kernel_memory();
	d->count = bytes / block_bytes();
	err = host_request(NULL, 0, "add dimm %s %luM %d", d->id, bytes >> 20, d->node);
	if (!err)
		err = wait_for_blocks(old + d->count, BLOCK_SECONDS);
	if (err)
		return err;
	blocks_present(after);
	for (b = 0; b < MAX_BLOCKS - d->count && after[b] == before[b]; b++)
		;
	d->first = b;
	for_each_block(b, d) {
		if (before[b] || !after[b])
			return complain("blocks of the DIMM", -ERANGE);
		if (block_fds[b])
			close(block_fds[b]);
		/* Only so many files can be open. */
		block_fds[b] = d->count <= 64 ? block_open(b) : 0;
		if (block_fds[b] < 0)
			return block_fds[b];
	}
	return 0;
}

/*
 * For a fixture: @id and the pid name a DIMM of two blocks or more, which stay offline;
 * @c are the counters with it, and @policy is what auto_online_blocks was.
 */
int dimm_set_up(struct dimm *d, const char *id, unsigned long bytes,
		char *policy, size_t size, struct counters *c)
{
	int err;

	snprintf(d->id, sizeof(d->id), "%s%d", id, getpid());
	err = auto_online_set("offline", policy, size);
	if (!err)
		err = dimm_plug(d, bytes);
	if (!err && d->count < 2)
		err = complain("blocks of the DIMM", -ERANGE);
	return err ? err : counters_read(0, c);
}

bool block_movable(int block)
{
	char zones[64];

	return !block_read(block, "valid_zones", zones, sizeof(zones)) &&
	       !strcmp(zones, "Movable");
}

/*
 * Takes offline what is online.  Last first, and again while some of it stays:
 * what describes a block (KASAN's shadow, page_ext) may be in another one.
 */
int dimm_offline(const struct dimm *d)
{
	double end = now() + RETRY_SECONDS;
	int b, err, busy;

	for (;;) {
		busy = 0;
		for (b = d->first + d->count - 1; b >= d->first; b--) {
			if (!block_online(b))
				continue;
			err = block_set_within(b, "offline", block_movable(b) ?
					       BLOCK_SECONDS : RETRY_SECONDS / 4);
			if (err && err != -EBUSY && err != -EINTR)
				return err;
			busy = err ? err : busy;
		}
		if (!busy || now() > end)
			return busy;
		shrink_kernel_memory();
		usleep(200000);
		shrink_kernel_memory();
	}
}

int dimm_unplug(const struct dimm *d)
{
	int err, left = blocks_present(NULL) - d->count;

	err = dimm_offline(d);
	if (err)
		return complain("offline", err);
	err = host_request(NULL, 0, "del %s", d->id);
	return err ? err : wait_for_blocks(left, BLOCK_SECONDS);
}

/*
 * Unmovable memory that user space can hold and let go: full pipes, 1 MiB each.
 * Open them before there is a kernel zone to fill, as what describes them is
 * in slabs that others use, too.
 */
int pipes_open(int (*pipes)[2], int nr)
{
	while (nr--) {
		if (pipe2(pipes[nr], O_NONBLOCK | O_CLOEXEC) ||
		    fcntl(pipes[nr][1], F_SETPIPE_SZ, 1 << 20) < 0)
			return complain("pipe", -errno);
	}
	return 0;
}

/* Returns how many pages they took. */
long pipes_fill(int (*pipes)[2], int nr)
{
	static const char page[4096] = "pipe";
	long pages = 0;

	while (nr--)
		while (write(pipes[nr][1], page, sizeof(page)) > 0)
			pages++;
	return pages;
}

void pipes_close(int (*pipes)[2], int nr)
{
	while (nr--) {
		close(pipes[nr][0]);
		close(pipes[nr][1]);
	}
}

/*
 * Memory to touch once there is a kernel zone, and to let go with
 * MADV_DONTNEED.  What describes it, page tables included, is there already:
 * else that would keep the zone from going away again.
 */
void *memory_map(size_t bytes)
{
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t at;

	if (p == MAP_FAILED || madvise(p, bytes, MADV_NOHUGEPAGE)) {
		complain("mmap", -errno);
		return NULL;
	}
	for (at = 0; at < bytes; at += 1 << 20)
		p[at] = 1;
	return p;
}

/* For kmsg_trouble(): it looks at what comes from now on. */
/* Where the memory for a crash kernel starts, 0 for none */
unsigned long crash_kernel(void)
{
	FILE *f = fopen("/proc/iomem", "r");
	unsigned long start = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, "Crash kernel") && sscanf(line, " %lx-", &start) == 1)
			break;
	if (f)
		fclose(f);
	return start;
}

int kmsg_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || lseek(fd, 0, SEEK_END) < 0)
		return complain("/dev/kmsg", -errno);
	return fd;
}

/* Whether the kernel complained; says how. */
bool kmsg_trouble(int fd)
{
	char record[8192];
	ssize_t n;

	/* EPIPE: records were overwritten before we came, go on with the rest */
	while ((n = read(fd, record, sizeof(record) - 1)) > 0 ||
	       (n < 0 && errno == EPIPE)) {
		record[n < 0 ? 0 : n] = '\0';
		if (strstr(record, "WARNING:") || strstr(record, "BUG:")) {
			fprintf(stderr, "# kernel: %s", record);
			return true;
		}
	}
	return false;
}
