// SPDX-License-Identifier: GPL-2.0
/* Ask the host for something, from a shell: host add dimm d1 1G */
#include "memhp.h"

int main(int argc, char **argv)
{
	char request[200] = "", reply[200] = "";
	size_t len = 0;

	for (int i = 1; i < argc && len < sizeof(request); i++)
		len += snprintf(request + len, sizeof(request) - len, "%s%s",
				i > 1 ? " " : "", argv[i]);
	if (host_request(reply, sizeof(reply), "%s", request))
		return 1;
	if (*reply)
		puts(reply);
	return 0;
}
