// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's init: mounts what programs expect, then runs commands for the
 * host (see scripts/vm). A command comes as its length in a line of its own
 * and its text; "o LENGTH" and so many bytes of output go back, and at the
 * end "x STATUS". With "shell" on the kernel command line it runs a shell on
 * the console instead. Started by another init, it only runs commands.
 */
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void mount_all(void)
{
	static const struct {
		const char *type, *where;
	} mounts[] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "devpts", "/dev/pts" },
		{ "tmpfs", "/tmp" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ }
	};

	for (int i = 0; mounts[i].type; i++) {
		mkdir(mounts[i].where, 0755);
		if (mount(mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL))
			warn("mount %s", mounts[i].where);
	}
}

static int open_port(const char *wanted)
{
	char path[300], name[32];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/virtio-ports");
	int fd = -1;

	while (fd < 0 && dir && (entry = readdir(dir))) {
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name",
			 entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fscanf(file, "%31s", name) == 1 && !strcmp(name, wanted)) {
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			fd = open(path, O_RDWR | O_CLOEXEC);
		}
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return fd;
}

static void write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t done = write(fd, data, len);

		if (done < 0 && errno != EINTR)
			err(1, "agent port");
		if (done > 0) {
			data += done;
			len -= done;
		}
	}
}

/* One write a frame: the host must never see a head without its end for long. */
static void send_frame(int port, char kind, int number, const char *data)
{
	char frame[8192];
	int len = snprintf(frame, sizeof(frame), "%c %d\n", kind, number);

	if (data) {
		memcpy(frame + len, data, number);
		len += number;
	}
	write_all(port, frame, len);
}

static char *read_command(int port)
{
	size_t len = 0, have = 0;
	char c, *text;

	while (read(port, &c, 1) == 1 && c != '\n')
		len = len * 10 + c - '0';
	text = calloc(1, len + 1);
	if (!len || !text)
		return NULL;
	while (have < len) {
		ssize_t done = read(port, text + have, len - have);

		if (done <= 0)
			return NULL;
		have += done;
	}
	return text;
}

static pid_t start_command(const char *text, int out)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(out, 1);
	dup2(out, 2);
	sigprocmask(SIG_SETMASK, &(sigset_t){ 0 }, NULL);
	execl("/bin/bash", "bash", "-c", text, NULL);
	_exit(127);
}

/* Relay output until the command ended; what it left in the background may live on. */
static void run_command(int port, int child_fd, const char *text)
{
	struct signalfd_siginfo info;
	int pipe_fds[2], status, left = -1;
	char data[4096];
	ssize_t got;
	pid_t pid, child;

	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK))
		err(1, "pipe");
	child = start_command(text, pipe_fds[1]);
	close(pipe_fds[1]);
	while (left < 0) {
		struct pollfd fds[] = {
			{ .fd = pipe_fds[0], .events = POLLIN },
			{ .fd = child_fd, .events = POLLIN },
		};

		poll(fds, 2, -1);
		if (fds[1].revents) {
			if (read(child_fd, &info, sizeof(info)) < 0)
				warn("signalfd");
			while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
				if (pid != child)
					continue;
				left = WIFEXITED(status) ? WEXITSTATUS(status) :
							   128 + WTERMSIG(status);
			}
		}
		while ((got = read(pipe_fds[0], data, sizeof(data))) > 0)
			send_frame(port, 'o', got, data);
	}
	close(pipe_fds[0]);
	send_frame(port, 'x', left, NULL);
}

static void run_shell(void)
{
	pid_t pid = fork(), gone;

	if (!pid) {
		setsid();
		execl("/bin/busybox", "cttyhack", "/bin/bash", "-l", NULL);
		_exit(127);
	}
	do {
		gone = wait(NULL);
	} while (gone > 0 && gone != pid);
	reboot(RB_POWER_OFF);
}

int main(void)
{
	char cmdline[4096] = "", *text;
	int child_fd, port = -1;
	sigset_t mask;
	FILE *file;

	if (getpid() == 1)
		mount_all();
	setenv("PATH", "/tests:/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/tmp", 1);
	file = fopen("/proc/cmdline", "r");
	if (file && fgets(cmdline, sizeof(cmdline), file) && strstr(cmdline, " shell"))
		run_shell();

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	child_fd = signalfd(-1, &mask, SFD_CLOEXEC);
	/* The host says when that takes too long. */
	while ((port = open_port("agent")) < 0)
		usleep(10000);
	send_frame(port, 'r', 0, NULL);
	while ((text = read_command(port))) {
		run_command(port, child_fd, text);
		free(text);
	}
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 1;
}
