// SPDX-License-Identifier: GPL-2.0
/*
 * kdump_load COMMAND [ARGUMENT...]: load a kdump image, and run the command. The image
 * has an empty elfcorehdr and no kernel: what is looked at is how Linux keeps it up to
 * date. Boot with crashkernel=32M.
 */
#include <elf.h>
#include <err.h>
#include <linux/kexec.h>
#include <sys/syscall.h>

#include "memhp.h"

#define HEADER_BYTES	(64UL << 10)
/* Debian 12's headers are older. */
#ifndef KEXEC_CRASH_HOTPLUG_SUPPORT
#define KEXEC_CRASH_HOTPLUG_SUPPORT	0x00000008
#endif

int main(int argc, char **argv)
{
	static Elf64_Ehdr header __attribute__((aligned(4096))) = {
		.e_ident = ELFMAG, .e_phentsize = sizeof(Elf64_Phdr),
	};
	struct kexec_segment segment = {
		.buf = &header, .bufsz = sizeof(header), .memsz = HEADER_BYTES,
	};
	unsigned long start = crash_kernel();

	if (argc < 2)
		errx(2, "usage: kdump_load COMMAND [ARGUMENT...]");
	if (!start)
		errx(1, "no memory for a crash kernel: boot with crashkernel=32M");
	segment.mem = (void *)start;
	if (syscall(SYS_kexec_load, start, 1UL, &segment, KEXEC_ON_CRASH |
		    KEXEC_CRASH_HOTPLUG_SUPPORT))
		err(1, "kexec_load");
	execvp(argv[1], argv + 1);
	err(1, "%s", argv[1]);
}
