/*
 * What the kernel alone costs, and the stopwatch.
 *
 *   meter FILE PROGRAM...            run a program; append "wall_ns cpu_us maxrss_kib status" to FILE
 *   run ROOTFS USER NET CGROUP...    make the container that the bench's bundle describes, wait for it, take it away
 *   exec PID CGROUP...               run /bin/true in a container
 *   nop                              nothing
 *
 * `run` makes the system calls that such a container cannot do without, and neither reads a configuration nor keeps a
 * state. The stopwatch is here because the peak memory that the kernel reports for a program is never below that of
 * whoever started it: this one is small.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MS_BIND
#define MS_RDONLY 1
#define MS_NOSUID 2
#define MS_NODEV 4
#define MS_NOEXEC 8
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MS_SLAVE (1 << 19)
#define MS_RELATIME (1 << 21)
#endif
#define MNT_DETACH 2

int mount(const char *, const char *, const char *, unsigned long, const void *);
int umount2(const char *, int);

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void must(long result, const char *what)
{
	if (result < 0)
		die(what);
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	must(fd, path);
	must(write(fd, text, strlen(text)), path);
	close(fd);
}

static int meter(char **argv)
{
	struct timespec from, to;
	struct rusage usage;
	int status;
	clock_gettime(CLOCK_MONOTONIC, &from);
	pid_t pid = vfork();
	must(pid, "vfork");
	if (pid == 0) {
		execv(argv[1], argv + 1);
		_exit(127);
	}
	must(wait4(pid, &status, 0, &usage), "wait4");
	clock_gettime(CLOCK_MONOTONIC, &to);
	long long wall = (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec;
	long long cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	FILE *out = fopen(argv[0], "a");
	if (!out)
		die(argv[0]);
	fprintf(out, "%lld %lld %ld %d\n", wall, cpu, usage.ru_maxrss, code);
	fclose(out);
	return code;
}

static void limit_capabilities(void)
{
	/* CAP_KILL, CAP_NET_BIND_SERVICE, CAP_AUDIT_WRITE */
	uint64_t keep = 1ULL << 5 | 1ULL << 10 | 1ULL << 29;
	for (int number = 0; number <= 63; number++)
		if (!(keep >> number & 1) && prctl(PR_CAPBSET_DROP, number) < 0)
			break;
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2] = {{(uint32_t)keep, (uint32_t)keep, 0}, {0, 0, 0}};
	must(syscall(SYS_capset, &header, data), "capset");
	must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
}

static void restrict_path(const char *path, int mask)
{
	struct stat stat_of;
	if (stat(path, &stat_of) < 0)
		return;
	if (!mask) {
		must(mount(path, path, 0, MS_BIND | MS_REC, 0), path);
		unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
		must(mount(0, path, 0, flags, 0), path);
	} else if (S_ISDIR(stat_of.st_mode)) {
		must(mount("tmpfs", path, "tmpfs", MS_RDONLY, 0), path);
	} else {
		must(mount("/dev/null", path, 0, MS_BIND, 0), path);
	}
}

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const int minors[] = {3, 5, 7, 8, 9, 0};

static void cgroup_mounts(int count, char **cgroups, int user)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	if (count == 1 && !strncmp(cgroups[0], "/sys/fs/cgroup/berth-test", 25)) {
		must(mount("cgroup", "sys/fs/cgroup", "cgroup2", flags | MS_RDONLY, 0), "cgroup2");
		return;
	}
	must(mount("tmpfs", "sys/fs/cgroup", "tmpfs", flags, "mode=755"), "tmpfs for cgroups");
	for (int i = 0; i < count; i++) {
		char name[128], target[160];
		snprintf(name, sizeof name, "%s", cgroups[i] + strlen("/sys/fs/cgroup/"));
		*strchr(name, '/') = 0;
		snprintf(target, sizeof target, "sys/fs/cgroup/%s", name);
		must(mkdir(target, 0755), target);
		const char *data = strcmp(name, "systemd") ? name : "none,name=systemd";
		if (mount("cgroup", target, "cgroup", flags | MS_RDONLY, data) < 0 && !user)
			die(target);
	}
	must(mount(0, "sys/fs/cgroup", 0, MS_REMOUNT | MS_BIND | flags | MS_RDONLY, 0), "cgroups read-only");
}

/* The file by which a process enters: of version 1 the one that needs no lock on all processes of the machine. */
static int entrance(const char *cgroup)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/tasks", cgroup);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
		fd = open(path, O_WRONLY | O_CLOEXEC);
	}
	must(fd, path);
	return fd;
}

/* Of version 2, the group that a process is born into: to move there waits until every processor has been seen. Else -1. */
static int birthplace(const char *cgroup)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/cgroup.type", cgroup);
	if (access(path, F_OK) < 0)
		return -1;
	int fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd, cgroup);
	return fd;
}

#define INSN(op, dst, src, off_, imm_) (struct bpf_insn){.code = (op), .dst_reg = (dst), .src_reg = (src), .off = (off_), .imm = (imm_)}

/* Of version 2, the devices that a container may use are a program's business: every device may be made, these be opened. */
static void device_program(int group)
{
	const int allowed[][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}};
	struct bpf_insn code[128];
	int n = 0;
	/* 0: access << 16 | type, 4: major, 8: minor */
	code[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 2, 1, 0, 0);
	code[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 4, 1, 4, 0);
	code[n++] = INSN(BPF_LDX | BPF_W | BPF_MEM, 5, 1, 8, 0);
	code[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0);
	code[n++] = INSN(BPF_ALU64 | BPF_RSH | BPF_K, 3, 0, 0, 16);
	code[n++] = INSN(BPF_ALU64 | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
	code[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 3, 0, 2, BPF_DEVCG_ACC_MKNOD);
	code[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
	code[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	for (int rule = 0; rule < 8; rule++) {
		int minor = allowed[rule][1] >= 0;
		code[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, 3 + minor, BPF_DEVCG_DEV_CHAR);
		code[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, 2 + minor, allowed[rule][0]);
		if (minor)
			code[n++] = INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 2, allowed[rule][1]);
		code[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
		code[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	}
	code[n++] = INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	code[n++] = INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insn_cnt = n, .insns = (uintptr_t)code, .license = (uintptr_t)"GPL"};
	int program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
	must(program, "device program");
	union bpf_attr attach = {.target_fd = group, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE, .attach_flags = BPF_F_ALLOW_MULTI};
	must(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach), "device program");
	close(program);
}

static pid_t born_in(int group, unsigned long long flags)
{
	struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
	if (group >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = group;
	}
	pid_t pid = syscall(SYS_clone3, &args, sizeof args);
	must(pid, "clone3");
	return pid;
}

static void inside(const char *rootfs, int user, int net, int count, char **cgroups)
{
	if (user) {
		must(setresgid(0, 0, 0), "setresgid");
		must(setresuid(0, 0, 0), "setresuid");
	}
	must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
	must(setsid(), "setsid");
	must(sethostname("bench", 5), "sethostname");
	if (net) {
		struct ifreq request = {.ifr_flags = IFF_UP};
		strcpy(request.ifr_name, "lo");
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		must(ioctl(fd, SIOCSIFFLAGS, &request), "lo");
		close(fd);
	}
	must(mount(0, "/", 0, MS_REC | MS_SLAVE, 0), "slave");
	must(mount(0, "/", 0, MS_PRIVATE, 0), "private");
	must(mount(rootfs, rootfs, 0, MS_BIND | MS_REC, 0), "root");
	must(mount(0, rootfs, 0, MS_PRIVATE, 0), "private root");
	must(chdir(rootfs), "root");
	must(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "proc");
	must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k"), "dev");
	umask(0);
	must(mkdir("dev/pts", 0755), "dev/pts");
	must(mkdir("dev/shm", 0755), "dev/shm");
	must(mkdir("dev/mqueue", 0755), "dev/mqueue");
	must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
	must(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k"), "shm");
	must(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), "mqueue");
	if (mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0) < 0)
		must(mount("/sys", "sys", 0, MS_BIND | MS_REC, 0), "sys");
	cgroup_mounts(count, cgroups, user);
	for (int i = 0; i < 6; i++) {
		char path[64], host[64];
		snprintf(path, sizeof path, "dev/%s", devices[i]);
		snprintf(host, sizeof host, "/dev/%s", devices[i]);
		if (user) {
			int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
			must(fd, path);
			close(fd);
			must(mount(host, path, 0, MS_BIND, 0), path);
		} else {
			must(mknod(path, S_IFCHR | 0666, makedev(i == 5 ? 5 : 1, minors[i])), path);
		}
	}
	must(symlink("/proc/self/fd", "dev/fd"), "dev/fd");
	must(symlink("/proc/self/fd/0", "dev/stdin"), "dev/stdin");
	must(symlink("/proc/self/fd/1", "dev/stdout"), "dev/stdout");
	must(symlink("/proc/self/fd/2", "dev/stderr"), "dev/stderr");
	must(symlink("pts/ptmx", "dev/ptmx"), "dev/ptmx");
	must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	must(umount2(".", MNT_DETACH), "old root");
	must(chdir("/"), "chdir");
	const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
	const char *const masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"};
	for (int i = 0; i < 5; i++)
		restrict_path(read_only[i], 0);
	for (int i = 0; i < 5; i++)
		restrict_path(masked[i], 1);
	umask(022);
	limit_capabilities();
	must(syscall(SYS_close_range, 3, ~0U, 4 /* cloexec */), "close_range");
	char *const argv[] = {"true", 0}, *const envp[] = {"PATH=/bin", 0};
	execve("/bin/true", argv, envp);
	die("/bin/true");
}

static int run(const char *rootfs, int user, int net, int count, char **cgroups)
{
	char path[4096];
	for (int i = 0; i < count; i++) {
		must(mkdir(cgroups[i], 0755), cgroups[i]);
		if (strstr(cgroups[i], "/cpuset/"))
			for (int file = 0; file < 2; file++) {
				const char *const names[] = {"cpuset.cpus", "cpuset.mems"};
				char value[256] = "";
				snprintf(path, sizeof path, "%s/../%s", cgroups[i], names[file]);
				int fd = open(path, O_RDONLY | O_CLOEXEC);
				if (fd < 0 || read(fd, value, sizeof value - 1) < 0)
					continue;
				close(fd);
				snprintf(path, sizeof path, "%s/%s", cgroups[i], names[file]);
				put(path, value);
			}
		if (strstr(cgroups[i], "/devices/")) {
			const char *const allowed[] = {"c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
				"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm"};
			snprintf(path, sizeof path, "%s/devices.deny", cgroups[i]);
			put(path, "a");
			snprintf(path, sizeof path, "%s/devices.allow", cgroups[i]);
			for (int rule = 0; rule < 10; rule++)
				put(path, allowed[rule]);
		}
	}
	int channel[2], entrances[64], group = birthplace(cgroups[0]);
	for (int i = 0; group < 0 && i < count; i++)
		entrances[i] = entrance(cgroups[i]);
	if (group >= 0)
		device_program(group);
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel), "socketpair");
	unsigned long long flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (net ? CLONE_NEWNET : 0) | (user ? CLONE_NEWUSER : 0);
	pid_t pid = born_in(group, flags);
	char byte = 0;
	if (pid == 0) {
		for (int i = 0; group < 0 && i < count; i++)
			must(write(entrances[i], "0", 1), cgroups[i]);
		if (user)
			must(read(channel[1], &byte, 1), "channel");
		inside(rootfs, user, net, count, cgroups);
	}
	if (user) {
		snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
		put(path, "0 100000 65536");
		snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
		put(path, "0 100000 65536");
		must(write(channel[0], &byte, 1), "channel");
	}
	int status;
	must(waitpid(pid, &status, 0), "waitpid");
	for (int i = 0; i < count; i++)
		must(rmdir(cgroups[i]), cgroups[i]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int enter(pid_t target, int count, char **cgroups)
{
	int pidfd = syscall(SYS_pidfd_open, target, 0);
	must(pidfd, "pidfd_open");
	int group = birthplace(cgroups[0]);
	for (int i = 0; group < 0 && i < count; i++)
		must(write(entrance(cgroups[i]), "0", 1), cgroups[i]);
	must(setns(pidfd, CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP), "setns");
	pid_t pid = born_in(group, 0);
	if (pid == 0) {
		limit_capabilities();
		char *const argv[] = {"true", 0}, *const envp[] = {"PATH=/bin", 0};
		execve("/bin/true", argv, envp);
		die("/bin/true");
	}
	int status;
	must(waitpid(pid, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
	if (argc >= 4 && !strcmp(argv[1], "meter"))
		return meter(argv + 2);
	if (argc >= 6 && !strcmp(argv[1], "run"))
		return run(argv[2], atoi(argv[3]), atoi(argv[4]), argc - 5, argv + 5);
	if (argc >= 4 && !strcmp(argv[1], "exec"))
		return enter(atoi(argv[2]), argc - 3, argv + 3);
	return argc == 2 && !strcmp(argv[1], "nop") ? 0 : 2;
}
