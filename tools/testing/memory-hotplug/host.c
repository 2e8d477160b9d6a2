// SPDX-License-Identifier: GPL-2.0
/*
 * Ask the host for something, from a shell: host add dimm d1 1G. That returns when
 * the blocks of the DIMM are there.
 */
#include "memhp.h"

int main(int argc, char **argv)
{
	char request[200] = "", reply[200] = "", unit = 0;
	int old = blocks_present(NULL);
	unsigned long size = 0;
	size_t len = 0;

	for (int i = 1; i < argc && len < sizeof(request); i++)
		len += snprintf(request + len, sizeof(request) - len, "%s%s",
				i > 1 ? " " : "", argv[i]);
	if (host_request(reply, sizeof(reply), "%s", request))
		return 1;
	sscanf(request, "add dimm %*s %lu%c", &size, &unit);
	size <<= unit == 'G' ? 30 : unit == 'M' ? 20 : 0;
	if (size && wait_for_blocks(old + size / block_bytes(), BLOCK_SECONDS))
		return 1;
	if (*reply)
		puts(reply);
	return 0;
}
