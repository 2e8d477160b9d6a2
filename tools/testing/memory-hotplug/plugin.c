// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin for QEMU: what a guest with one CPU executes between two marks. A mark
 * is a call of the kernel function at the address MARK.
 *
 *	-plugin plugin.so,out=FILE,mark=ADDRESS[,l2=KIB,llc=KIB]
 *
 * At every second mark, the Nth of these, it writes "ADDRESS ~ COUNT L2 LLC N" for each
 * instruction of the kernel's text that was executed since the mark before: how often,
 * and how many of its accesses to data missed a modelled cache of 64-byte lines,
 * 16-way set-associative, with the least recently used line replaced. The caches keep
 * what they have when nothing is counted. Address 0 is user space, 1 the rest of the
 * kernel.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Of QEMU's qemu-plugin.h, which is not packaged everywhere */
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_hwaddr;
enum { QEMU_PLUGIN_CB_NO_REGS };
enum { QEMU_PLUGIN_MEM_RW = 3 };
enum { QEMU_PLUGIN_INLINE_ADD_U64 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
	void (*cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op,
						void *ptr, uint64_t imm);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
	void (*cb)(unsigned int cpu, void *data), int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
	void (*cb)(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data),
	int flags, int rw, void *data);
struct qemu_plugin_hwaddr *qemu_plugin_get_hwaddr(qemu_plugin_meminfo_t info, uint64_t vaddr);
bool qemu_plugin_hwaddr_is_io(const struct qemu_plugin_hwaddr *hwaddr);
uint64_t qemu_plugin_hwaddr_phys_addr(const struct qemu_plugin_hwaddr *hwaddr);
int qemu_plugin_version = 1;

/* The kernel's text without KASLR, by address; what is not executed takes no memory. */
#define TEXT	0xffffffff80000000UL
#define SPOTS	(96UL << 20)
#define WAYS	16

struct spot {
	uint64_t count, l2, llc;
	bool listed;
};

struct cache {
	uint64_t sets, *lines;
};

static struct spot *spots, **used;
static size_t nr_used, max_used;
static struct cache l2, llc;
static uint64_t mark;
static unsigned int marks;
static FILE *out;

static struct spot *spot_of(uint64_t address)
{
	uint64_t at = address - TEXT;
	struct spot *spot = &spots[at < SPOTS ? at : address >> 63];

	if (!spot->listed) {
		spot->listed = true;
		if (nr_used == max_used) {
			max_used = max_used * 2 + 4096;
			used = realloc(used, max_used * sizeof(*used));
		}
		used[nr_used++] = spot;
	}
	return spot;
}

static void on_mark(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	marks++;
	for (size_t i = 0; i < nr_used; i++) {
		struct spot *s = used[i];
		uint64_t at = s - spots;

		if (s->count && marks % 2 == 0)
			fprintf(out, "%016lx ~ %lu %lu %lu %u\n", at > 1 ? at + TEXT : at,
				s->count, s->l2, s->llc, marks / 2);
		*s = (struct spot){ .listed = true };
	}
	fflush(out);
}

static bool misses(struct cache *c, uint64_t line)
{
	uint64_t *set = c->lines + line % c->sets * WAYS;
	int way = 0;

	while (way < WAYS - 1 && set[way] != line)
		way++;
	bool missed = set[way] != line;

	memmove(set + 1, set, way * sizeof(*set));
	set[0] = line;
	return missed;
}

static void on_access(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
	struct qemu_plugin_hwaddr *hwaddr;
	struct spot *spot = data;
	uint64_t line;

	(void)cpu;
	if (!marks)
		return;
	hwaddr = qemu_plugin_get_hwaddr(info, vaddr);
	if (!hwaddr || qemu_plugin_hwaddr_is_io(hwaddr))
		return;
	line = qemu_plugin_hwaddr_phys_addr(hwaddr) / 64;
	if (misses(&l2, line)) {
		spot->l2++;
		spot->llc += misses(&llc, line);
	}
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	(void)id;
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);
		struct spot *spot = spot_of(address);

		if (address == mark)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64,
							   &spot->count, 1);
		if (l2.sets)
			qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
							 QEMU_PLUGIN_MEM_RW, spot);
	}
}

static void cache_init(struct cache *c, const char *kib)
{
	c->sets = strtoull(kib, NULL, 10) * 1024 / 64 / WAYS;
	c->lines = calloc(c->sets * WAYS, sizeof(*c->lines));
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		char *value = strchr(argv[i], '=') + 1;

		if (!strncmp(argv[i], "out=", 4))
			out = fopen(value, "w");
		else if (!strncmp(argv[i], "mark=", 5))
			mark = strtoull(value, NULL, 16);
		else
			cache_init(!strncmp(argv[i], "l2=", 3) ? &l2 : &llc, value);
	}
	spots = mmap(NULL, SPOTS * sizeof(*spots), PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!out || !mark || spots == MAP_FAILED || !l2.sets != !llc.sets)
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}
