// A hostile program: each sub-command tries one way out or over a limit, prints what happened on one line or more, and says by its
// exit status whether it worked. The tests run it inside a sandbox, where it must not work, and outside, where it must: a probe
// that cannot succeed proves nothing.
//   0   contained: the attempt failed       10  reached: the attempt worked
//   11  the probe could not try (its own fault or the host lacks the thing): a test treats it as a failure unless it expects it
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kContained = 0, kReached = 10, kCannotTry = 11 };

static int contained(const char* what) {
  printf("contained: %s: %s\n", what, errno ? strerror(errno) : "refused");
  return kContained;
}
static int reached(const char* what) {
  printf("REACHED: %s\n", what);
  return kReached;
}
static int cannot(const char* what) {
  printf("cannot try: %s: %s\n", what, strerror(errno));
  return kCannotTry;
}
// Worst of two outcomes.
static int worse(int a, int b) { return a > b ? a : b; }

// ---- files

// read PATH...: reads a byte of any.
static int do_read(int count, char** paths) {
  int outcome = kContained;
  for (int i = 0; i < count; ++i) {
    char byte;
    errno = 0;
    int fd = open(paths[i], O_RDONLY | O_NONBLOCK);
    if (fd >= 0 && read(fd, &byte, 1) == 1)
      outcome = worse(outcome, reached(paths[i]));
    else
      contained(paths[i]);
    if (fd >= 0) close(fd);
  }
  return outcome;
}

// open_write PATH...: opens for writing, writes nothing.
static int do_open_write(int count, char** paths) {
  int outcome = kContained;
  for (int i = 0; i < count; ++i) {
    errno = 0;
    int fd = open(paths[i], O_WRONLY | O_NONBLOCK);
    if (fd >= 0)
      outcome = worse(outcome, reached(paths[i]));
    else
      contained(paths[i]);
    if (fd >= 0) close(fd);
  }
  return outcome;
}

// link PATH: hard link and symbolic link of PATH from /tmp, then reading through them.
static int do_link(int count, char** paths) {
  if (count != 1) return kCannotTry;
  unlink("/tmp/probe-hard");
  unlink("/tmp/probe-soft");
  if (symlink(paths[0], "/tmp/probe-soft") != 0) return cannot("symlink in /tmp");
  int outcome = kContained;
  if (link(paths[0], "/tmp/probe-hard") == 0)
    outcome = reached("hard link");
  else
    contained("hard link");
  char* soft[] = {(char*)"/tmp/probe-soft"};
  outcome = worse(outcome, do_read(1, soft));
  unlink("/tmp/probe-hard");
  unlink("/tmp/probe-soft");
  return outcome;
}

static int write_outcome;
static int visited;
static int whole_root;
static int is_volatile(const char* path) {
  static const char* const kAllowed[] = {"/tmp",        "/proc",        "/dev/null", "/dev/zero", "/dev/full",
                                         "/dev/random", "/dev/urandom", "/dev/fd",   "/dev/std"};
  for (size_t i = 0; i < sizeof kAllowed / sizeof *kAllowed; ++i) {
    if (strncmp(path, kAllowed[i], strlen(kAllowed[i])) == 0) return 1;
  }
  return 0;
}
static int try_writing(const char* path, const struct stat* info, int kind, struct FTW* where) {
  (void)where;
  if (whole_root && is_volatile(path)) return FTW_SKIP_SUBTREE;
  ++visited;
  if (kind == FTW_D) {
    char name[4200];
    snprintf(name, sizeof name, "%s/.probe-%d", path, getpid());
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd >= 0) {
      close(fd);
      unlink(name);
      write_outcome = reached(name);
      return FTW_STOP;
    }
  } else if (kind == FTW_F && S_ISREG(info->st_mode)) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
      close(fd);
      write_outcome = reached(path);
      return FTW_STOP;
    }
  }
  return FTW_CONTINUE;
}
// write_anywhere ROOT: tries every directory and file beneath ROOT; beneath "/" not /tmp, /proc and the harmless devices.
static int do_write_anywhere(int count, char** paths) {
  if (count != 1) return kCannotTry;
  write_outcome = kContained;
  whole_root = strcmp(paths[0], "/") == 0;
  nftw(paths[0], try_writing, 64, FTW_PHYS | FTW_ACTIONRETVAL);
  printf("visited %d\n", visited);
  if (write_outcome == kContained) {
    errno = 0;
    contained("every place");
  }
  return write_outcome;
}

// fds: descriptors beyond 0 to 5.
static int do_fds(int count, char** args) {
  (void)count, (void)args;
  int outcome = kContained;
  for (int fd = 0; fd < 65536; ++fd) {
    char link[64];
    char target[256] = {0};
    if (fcntl(fd, F_GETFD) < 0) continue;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, target, sizeof target - 1) < 0) strcpy(target, "?");
    printf("fd %d -> %s\n", fd, target);
    if (fd > 5) outcome = reached("a descriptor that was not given");
    if (fd <= 5 && strncmp(target, "pipe:", 5) != 0 && strcmp(target, "/dev/null") != 0)
      outcome = reached("a descriptor that is neither pipe nor /dev/null");
    if (isatty(fd)) outcome = reached("a terminal");
  }
  if (outcome == kContained) contained("only 0 to 5");
  return outcome;
}

// fd_walk: leaves the root through an inherited descriptor or the working directory.
static int do_fd_walk(int count, char** args) {
  (void)count, (void)args;
  char up[256] = "";
  for (int i = 0; i < 30; ++i) strcat(up, "../");
  strcat(up, "etc/shadow");
  int outcome = kContained;
  for (int fd = -1; fd < 1024; ++fd) {
    int at = fd < 0 ? AT_FDCWD : fd;
    if (fd >= 0 && fcntl(fd, F_GETFD) < 0) continue;
    char byte;
    int file = openat(at, up, O_RDONLY);
    if (file >= 0 && read(file, &byte, 1) == 1) outcome = reached("../../etc/shadow from a descriptor");
    if (file >= 0) close(file);
  }
  if (outcome == kContained) contained("walking up");
  return outcome;
}

// euid UID: whether this process runs as another user than UID, or with capabilities (after executing a set-user-id program).
static int do_euid(int count, char** args) {
  if (count != 1) return kCannotTry;
  char line[256];
  unsigned long long effective = 0;
  FILE* status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) sscanf(line, "CapEff: %llx", &effective);
  if (status) fclose(status);
  printf("euid %d capabilities %llx\n", (int)geteuid(), effective);
  if ((int)geteuid() != atoi(args[0])) return reached("another user");
  if (effective != 0) return reached("capabilities");
  errno = 0;
  return contained("the same user without capabilities");
}

// exec_euid PROGRAM: executes PROGRAM, a copy of this probe with privileges on its file, to see whether it got them.
static int do_exec_euid(int count, char** args) {
  if (count != 1) return kCannotTry;
  char uid[16];
  snprintf(uid, sizeof uid, "%d", (int)getuid());
  execl(args[0], args[0], "euid", uid, (char*)NULL);
  return contained("execute a privileged file");
}

// caps: capability sets, no_new_privs, seccomp, groups.
static int do_caps(int count, char** args) {
  (void)count, (void)args;
  int outcome = kContained;
  char line[256];
  FILE* status = fopen("/proc/self/status", "r");
  if (!status) return cannot("/proc/self/status");
  int seen = 0;
  while (fgets(line, sizeof line, status)) {
    unsigned long long set = 0;
    int value = 0;
    if (strncmp(line, "Cap", 3) == 0 && sscanf(line, "Cap%*[A-Za-z]: %llx", &set) == 1) {
      ++seen;
      if (set) printf("%s", line), outcome = reached("capabilities");
    }
    if (sscanf(line, "NoNewPrivs: %d", &value) == 1 && (++seen, value != 1)) outcome = reached("no no_new_privs");
    if (sscanf(line, "Seccomp: %d", &value) == 1 && (++seen, value != 2)) outcome = reached("no seccomp filter");
    if (strncmp(line, "Groups:", 7) == 0 && (++seen, strspn(line + 7, " \t\n") != strlen(line + 7)))
      outcome = reached("supplementary groups");
  }
  fclose(status);
  if (seen < 8) return cannot("read all of /proc/self/status");
  if (getuid() == 0) outcome = worse(outcome, reached("user 0"));
  if (outcome == kContained) errno = 0, contained("no privileges");
  return outcome;
}

// mknod DIRECTORY: makes and opens the null device, which is harmless.
static int do_mknod(int count, char** args) {
  if (count != 1) return kCannotTry;
  char path[4096];
  snprintf(path, sizeof path, "%s/probe-device", args[0]);
  unlink(path);
  errno = 0;
  if (mknod(path, S_IFCHR | 0666, makedev(1, 3)) != 0) return contained("mknod");
  int fd = open(path, O_RDWR);
  int outcome = fd >= 0 ? reached("a new device node") : contained("open a new device node");
  unlink(path);
  return outcome;
}

// ---- processes

// processes: other processes than this one that can be seen.
static int do_processes(int count, char** args) {
  (void)count, (void)args;
  int outcome = kContained;
  DIR* proc = opendir("/proc");
  if (!proc) return cannot("/proc");
  for (struct dirent* entry; (entry = readdir(proc));) {
    int pid = atoi(entry->d_name);
    if (pid > 0 && pid != getpid()) outcome = reached(entry->d_name);
  }
  closedir(proc);
  if (outcome == kContained) errno = 0, contained("no other process is visible");
  return outcome;
}

// spy PID...: memory, descriptors, root, environment and tracing of each process.
static int do_spy(int count, char** args) {
  static const char* const kFiles[] = {"environ", "mem",     "maps", "exe",      "cwd", "root/etc/shadow",
                                       "stack",   "syscall", "auxv", "fdinfo/0", "fd/0"};
  int outcome = kContained;
  for (int i = 0; i < count; ++i) {
    int pid = atoi(args[i]);
    for (size_t f = 0; f < sizeof kFiles / sizeof *kFiles; ++f) {
      char path[128];
      snprintf(path, sizeof path, "/proc/%d/%s", pid, kFiles[f]);
      errno = 0;
      int fd = open(path, O_RDONLY | O_NONBLOCK);
      if (fd >= 0)
        outcome = worse(outcome, reached(path)), close(fd);
      else
        contained(path);
    }
    errno = 0;
    if (ptrace(PTRACE_ATTACH, pid, 0, 0) == 0)
      outcome = worse(outcome, reached("ptrace")), waitpid(pid, NULL, __WALL), ptrace(PTRACE_DETACH, pid, 0, 0);
    else
      contained("ptrace");
    char byte;
    struct iovec to = {&byte, 1}, from = {(void*)do_spy, 1};
    if (process_vm_readv(pid, &to, 1, &from, 1, 0) == 1)
      outcome = worse(outcome, reached("process_vm_readv"));
    else
      contained("process_vm_readv");
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int stolen = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, 0, 0);
    if (stolen >= 0)
      outcome = worse(outcome, reached("pidfd_getfd"));
    else
      contained("pidfd_getfd");
    if (kill(pid, 0) == 0 && pid != 1)
      outcome = worse(outcome, reached("a signal"));
    else
      contained("signal");
  }
  return outcome;
}

// spy_child: the same on a process of one's own, which everybody may do unless the call itself is closed.
static int do_spy_child(int count, char** args) {
  (void)count, (void)args;
  pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  int outcome = kContained;
  char byte;
  struct iovec to = {&byte, 1}, from = {(void*)do_spy_child, 1};
  errno = 0;
  if (process_vm_readv(child, &to, 1, &from, 1, 0) == 1)
    outcome = reached("process_vm_readv");
  else
    contained("process_vm_readv");
  errno = 0;
  if (process_vm_writev(child, &to, 1, &to, 1, 0) == 1)
    outcome = reached("process_vm_writev");
  else
    contained("process_vm_writev");
  int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
  errno = 0;
  if (pidfd >= 0 && syscall(SYS_pidfd_getfd, pidfd, 0, 0) >= 0)
    outcome = reached("pidfd_getfd");
  else
    contained("pidfd_getfd");
  errno = 0;
  if (ptrace(PTRACE_ATTACH, child, 0, 0) == 0)
    outcome = reached("ptrace"), waitpid(child, NULL, __WALL), ptrace(PTRACE_DETACH, child, 0, 0);
  else
    contained("ptrace");
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return outcome;
}

// grep_proc NEEDLE: looks for a secret in the command lines and environments of all processes but this one.
static int do_grep_proc(int count, char** args) {
  if (count != 1) return kCannotTry;
  int outcome = kContained;
  DIR* proc = opendir("/proc");
  for (struct dirent* entry; proc && (entry = readdir(proc));) {
    static const char* const kFiles[] = {"environ", "cmdline"};
    int pid = atoi(entry->d_name);
    if (pid <= 0 || pid == getpid()) continue;
    for (int f = 0; f < 2; ++f) {
      char path[512];
      static char text[1 << 17];
      snprintf(path, sizeof path, "/proc/%d/%s", pid, kFiles[f]);
      int fd = open(path, O_RDONLY);
      ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
      if (fd >= 0) close(fd);
      if (size > 0 && memmem(text, (size_t)size, args[0], strlen(args[0]))) outcome = reached(path);
    }
  }
  if (proc) closedir(proc);
  if (outcome == kContained) errno = 0, contained("no secret of another process");
  return outcome;
}

// kill_all: signals everything it can; kill_pid PID...: the processes with these numbers.
static int do_kill_all(int count, char** args) {
  (void)count, (void)args;
  pid_t child = fork();
  if (child == 0)
    for (;;) pause();
  kill(-1, SIGKILL);  // everything but itself and the first process
  int status = 0;
  waitpid(child, &status, 0);
  puts(WIFSIGNALED(status) ? "killed its own child only" : "its own child lives");
  return kContained;
}
static int do_kill_pid(int count, char** args) {
  int outcome = kContained;
  for (int i = 0; i < count; ++i) {
    errno = 0;
    if (kill(atoi(args[i]), SIGTERM) == 0)
      outcome = worse(outcome, reached(args[i]));
    else
      contained(args[i]);
  }
  return outcome;
}

// privileged_self: what a process may do to the machine through itself.
static int do_privileged_self(int count, char** args) {
  (void)count, (void)args;
  int outcome = kContained;
  struct sched_param realtime = {.sched_priority = 1};
  struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
  void* page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  errno = 0;
  if (setpriority(PRIO_PROCESS, 0, -20) == 0)
    outcome = reached("setpriority(-20)");
  else
    contained("setpriority(-20)");
  if (sched_setscheduler(0, SCHED_FIFO, &realtime) == 0)
    outcome = reached("real-time scheduling");
  else
    contained("real-time scheduling");
  if (setrlimit(RLIMIT_NOFILE, &more) == 0 || setrlimit(RLIMIT_CORE, &more) == 0)
    outcome = reached("raised a limit");
  else
    contained("raise a limit");
  if (mlock(page, 1 << 20) == 0)
    outcome = reached("locked a MiB of memory");
  else
    contained("lock a MiB of memory");
  if (sethostname("probe", 5) == 0)
    outcome = reached("sethostname");
  else
    contained("sethostname");
  if (setuid(0) == 0 || setgid(0) == 0)
    outcome = reached("setuid(0)");
  else
    contained("setuid(0)");
  return outcome;
}

// daemonize: leaves a process that writes to standard output for ever; the first process ends.
static int do_daemonize(int count, char** args) {
  (void)count, (void)args;
  if (fork() == 0) {
    setsid();
    if (fork() != 0) _exit(0);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "probe-daemon");
    for (;;) {
      (void)!write(1, "beat\n", 5);
      usleep(20000);
    }
  }
  usleep(100000);
  return kContained;
}

// hang: waits to be killed. churn TARGET: renames, and links to TARGET, in /tmp until then.
static int do_hang(int count, char** args) {
  (void)count, (void)args;
  puts("hanging");
  fflush(stdout);
  for (;;) pause();
}
static int do_churn(int count, char** args) {
  if (count != 1) return kCannotTry;
  mkdir("/tmp/a", 0700);
  (void)!symlink(args[0], "/tmp/out");
  if (fork() == 0 || fork() == 0) {
    for (unsigned i = 0;; ++i) {
      rename("/tmp/a", "/tmp/b");
      (void)!symlink(args[0], "/tmp/a");
      unlink("/tmp/a");
      rename("/tmp/b", "/tmp/a");
      int fd = open(i % 2 ? "/tmp/a/x" : "/tmp/b/x", O_CREAT | O_WRONLY, 0600);
      if (fd >= 0) close(fd);
    }
  }
  puts("churning");
  fflush(stdout);
  for (;;) pause();
}

// ---- system calls

struct attempt {
  const char* name;
  long (*try)(void);
};
static char clone_stack[65536] __attribute__((aligned(16)));
static int clone_child(void* unused) {
  (void)unused;
  return 0;
}
static long try_clone(int flags) {
  int pid = clone(clone_child, clone_stack + sizeof clone_stack, flags | SIGCHLD, NULL);
  if (pid > 0) waitpid(pid, NULL, 0);
  return pid > 0 ? 0 : -1;
}
static long unshare_in_child(int flags) {
  pid_t child = fork();
  if (child == 0) _exit(unshare(flags) == 0 ? 0 : errno);
  int status = 0;
  waitpid(child, &status, 0);
  errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
  return errno == 0 ? 0 : -1;
}
#define UNSHARE(name, flag)                                           \
  static long unshare_##name(void) { return unshare_in_child(flag); } \
  static long clone_##name(void) { return try_clone(flag); }
UNSHARE(user, CLONE_NEWUSER)
UNSHARE(mount, CLONE_NEWNS) UNSHARE(net, CLONE_NEWNET) UNSHARE(pid, CLONE_NEWPID) UNSHARE(ipc, CLONE_NEWIPC) UNSHARE(uts, CLONE_NEWUTS)
    UNSHARE(cgroup, CLONE_NEWCGROUP) static long t_clone3(void) {
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  } how = {.exit_signal = SIGCHLD};
  long pid = syscall(SYS_clone3, &how, sizeof how);
  if (pid == 0) _exit(0);
  if (pid > 0) waitpid((int)pid, NULL, 0);
  return pid > 0 ? 0 : -1;
}
static long t_setns(void) {
  int fd = open("/proc/self/ns/uts", O_RDONLY);
  return fd < 0 ? -1 : setns(fd, CLONE_NEWUTS);
}
static long t_mount_tmpfs(void) { return mount("probe", "/tmp", "tmpfs", 0, "size=4k") == 0 ? umount2("/tmp", MNT_DETACH) : -1; }
static long t_mount_bind(void) { return mount("/", "/tmp", NULL, MS_BIND | MS_REC, NULL) == 0 ? umount2("/tmp", MNT_DETACH) : -1; }
static long t_mount_proc(void) { return mount("probe", "/tmp", "proc", 0, NULL) == 0 ? umount2("/tmp", MNT_DETACH) : -1; }
static long t_mount_cgroup2(void) { return mount("probe", "/tmp", "cgroup2", 0, NULL) == 0 ? umount2("/tmp", MNT_DETACH) : -1; }
static long t_mount_cgroup1(void) { return mount("probe", "/tmp", "cgroup", 0, "freezer") == 0 ? umount2("/tmp", MNT_DETACH) : -1; }
static long t_remount(void) { return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL); }
static long t_umount(void) { return umount2("/proc", MNT_DETACH); }
static long t_fsopen(void) { return syscall(SYS_fsopen, "tmpfs", 0); }
static long t_open_tree(void) { return syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* clone */); }
static long t_move_mount(void) { return syscall(SYS_move_mount, AT_FDCWD, "/", AT_FDCWD, "/tmp", 0); }
static long t_mount_setattr(void) {
  uint64_t attributes[4] = {0};
  return syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, attributes, sizeof attributes);
}
static long t_pivot_root(void) { return syscall(SYS_pivot_root, "/tmp", "/tmp"); }
static long t_chroot(void) {
  pid_t child = fork();
  if (child == 0) _exit(chroot("/tmp") == 0 ? 0 : errno);
  int status = 0;
  waitpid(child, &status, 0);
  errno = WEXITSTATUS(status);
  return errno == 0 ? 0 : -1;
}
static long t_io_uring(void) {
  char parameters[120] = {0};
  return syscall(SYS_io_uring_setup, 4, parameters);
}
static long t_bpf(void) {
  struct {
    uint32_t type, key, value, entries;
    char rest[112];
  } map = {.type = 2, .key = 4, .value = 4, .entries = 1};
  return syscall(SYS_bpf, 0, &map, sizeof map);
}
static long t_perf(void) {
  char attributes[128] = {0};
  *(uint32_t*)attributes = 1;
  *(uint32_t*)(attributes + 4) = 112;
  return syscall(SYS_perf_event_open, attributes, 0, -1, -1, 0);
}
static long t_userfaultfd(void) { return syscall(SYS_userfaultfd, 1 /* user mode only */); }
static long t_add_key(void) { return syscall(SYS_add_key, "user", "probe", "x", 1, -2 /* process keyring */); }
static long t_keyctl(void) { return syscall(SYS_keyctl, 0, -3 /* session keyring */, 0); }
static long t_request_key(void) {
  long id = syscall(SYS_request_key, "user", "mayfly-probe", NULL, -2);
  return id < 0 && errno == ENOKEY ? 0 : id;
}
static long t_kexec(void) { return syscall(SYS_kexec_load, 0, 1000, NULL, 0); }
static long t_kexec_file(void) { return syscall(SYS_kexec_file_load, -1, -1, 0, NULL, 0); }
static long t_init_module(void) { return syscall(SYS_init_module, NULL, 0, ""); }
static long t_finit_module(void) { return syscall(SYS_finit_module, -1, "", 0); }
static long t_delete_module(void) { return syscall(SYS_delete_module, "mayfly_probe_no_such_module", O_NONBLOCK); }
static long t_by_handle(void) {
  struct {
    struct file_handle head;
    char room[128];
  } handle = {.head = {.handle_bytes = 128}};
  int mount_id;
  if (name_to_handle_at(AT_FDCWD, "/tmp", &handle.head, &mount_id, 0) != 0) handle.head.handle_bytes = 8;
  int at = open("/tmp", O_RDONLY | O_DIRECTORY);
  return open_by_handle_at(at, &handle.head, O_RDONLY);
}
static long t_personality(void) {
  int old = personality(0xffffffff);
  long done = personality(ADDR_NO_RANDOMIZE);
  personality((unsigned long)old);
  return done;
}
static long t_read_implies_exec(void) {
  long done = personality(READ_IMPLIES_EXEC);
  personality(0);
  return done;
}
static long t_modify_ldt(void) {
  char entry[16] = {0};
  return syscall(SYS_modify_ldt, 0, entry, sizeof entry);
}
static long t_syslog(void) { return syscall(SYS_syslog, 10 /* size of the buffer */, NULL, 0); }
static long t_swapon(void) { return syscall(SYS_swapon, "/tmp/probe-no-swap", 0); }
static long t_reboot(void) { return syscall(SYS_reboot, 0xfee1dead, 672274793, 0 /* CAD off */, NULL); }
static long t_settime(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  now.tv_nsec = -1;                                         // refused as wrong where it is not refused as forbidden
  return syscall(SYS_clock_settime, CLOCK_REALTIME, &now);  // libc checks by itself
}
static long t_acct(void) { return syscall(SYS_acct, "/tmp/probe-no-accounting"); }
static long t_quotactl(void) { return syscall(SYS_quotactl, 0x80000400 /* Q_GETFMT */, "/dev/null", 0, NULL); }
static long t_iopl(void) { return syscall(SYS_iopl, 3); }
static long t_ioperm(void) { return syscall(SYS_ioperm, 0x80, 1, 1); }
static long t_fanotify(void) { return syscall(SYS_fanotify_init, 0, O_RDONLY); }
static long t_kcmp(void) { return syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0); }
static long t_mbind(void) { return syscall(SYS_get_mempolicy, NULL, NULL, 0, NULL, 0); }
static long t_nfs(void) { return syscall(180 /* nfsservctl */, 0, NULL, NULL); }
static long t_unknown(void) { return syscall(470, 0, 0, 0); }

static const struct attempt kCalls[] = {
    {"unshare-user", unshare_user},
    {"unshare-mount", unshare_mount},
    {"unshare-net", unshare_net},
    {"unshare-pid", unshare_pid},
    {"unshare-ipc", unshare_ipc},
    {"unshare-uts", unshare_uts},
    {"unshare-cgroup", unshare_cgroup},
    {"clone-user", clone_user},
    {"clone-mount", clone_mount},
    {"clone-net", clone_net},
    {"clone-pid", clone_pid},
    {"clone-ipc", clone_ipc},
    {"clone-uts", clone_uts},
    {"clone-cgroup", clone_cgroup},
    {"clone3", t_clone3},
    {"setns", t_setns},
    {"mount-tmpfs", t_mount_tmpfs},
    {"mount-bind", t_mount_bind},
    {"mount-proc", t_mount_proc},
    {"mount-cgroup2", t_mount_cgroup2},
    {"mount-cgroup1", t_mount_cgroup1},
    {"remount", t_remount},
    {"umount", t_umount},
    {"fsopen", t_fsopen},
    {"open_tree", t_open_tree},
    {"move_mount", t_move_mount},
    {"mount_setattr", t_mount_setattr},
    {"pivot_root", t_pivot_root},
    {"chroot", t_chroot},
    {"io_uring_setup", t_io_uring},
    {"bpf", t_bpf},
    {"perf_event_open", t_perf},
    {"userfaultfd", t_userfaultfd},
    {"add_key", t_add_key},
    {"keyctl", t_keyctl},
    {"request_key", t_request_key},
    {"kexec_load", t_kexec},
    {"kexec_file_load", t_kexec_file},
    {"init_module", t_init_module},
    {"finit_module", t_finit_module},
    {"delete_module", t_delete_module},
    {"open_by_handle_at", t_by_handle},
    {"personality-no-randomize", t_personality},
    {"personality-read-implies-exec", t_read_implies_exec},
    {"modify_ldt", t_modify_ldt},
    {"syslog", t_syslog},
    {"swapon", t_swapon},
    {"reboot", t_reboot},
    {"clock_settime", t_settime},
    {"acct", t_acct},
    {"quotactl", t_quotactl},
    {"iopl", t_iopl},
    {"ioperm", t_ioperm},
    {"fanotify_init", t_fanotify},
    {"kcmp", t_kcmp},
    {"get_mempolicy", t_mbind},
    {"nfsservctl", t_nfs},
    {"unknown-470", t_unknown},
};

// calls NAME...: makes each call (all without names). One line per call: "NAME open" when the kernel looked at it, "NAME closed
// errno" for EPERM, ENOSYS or EACCES.
static int do_calls(int count, char** names) {
  int outcome = kContained;
  for (size_t i = 0; i < sizeof kCalls / sizeof *kCalls; ++i) {
    int wanted = count == 0;
    for (int n = 0; n < count; ++n) wanted |= strcmp(names[n], kCalls[i].name) == 0;
    if (!wanted) continue;
    errno = 0;
    long done = kCalls[i].try();
    if (done < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES)) {
      printf("%s closed %s\n", kCalls[i].name, errno == ENOSYS ? "ENOSYS" : "EPERM");
    } else {
      printf("%s open%s%s\n", kCalls[i].name, done < 0 ? " " : "", done < 0 ? strerror(errno) : "");
      outcome = kReached;
    }
    fflush(stdout);
  }
  return outcome;
}

// int80, x32: system calls of the other two interfaces of this processor.
static int do_foreign_abi(int count, char** args) {
  if (count != 1) return kCannotTry;
#if defined(__x86_64__)
  pid_t child = fork();
  if (child == 0) {
    long result = 0;
    if (strcmp(args[0], "int80") == 0) {
      __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) /* getpid of i386 */ : "memory", "r8", "r9", "r10", "r11");
    } else {
      __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000L + 39) : "memory", "rcx", "r11");
    }
    printf("%s answered %ld\n", args[0], result);
    fflush(stdout);
    _exit(1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  errno = 0;
  if (WIFSIGNALED(status)) {
    printf("killed by signal %d\n", WTERMSIG(status));
    return contained(args[0]);
  }
  return reached(args[0]);
#else
  (void)args;
  return kCannotTry;
#endif
}

// sockets: families and types a function has no use for. As do_calls().
static int do_sockets(int count, char** args) {
  (void)count, (void)args;
  static const struct {
    const char* name;
    int family, type, protocol;
  } kSockets[] = {{"packet", AF_PACKET, SOCK_RAW, 0x0300},
                  {"packet-dgram", AF_PACKET, SOCK_DGRAM, 0},
                  {"vsock", 40, SOCK_STREAM, 0},
                  {"alg", 38, SOCK_SEQPACKET, 0},
                  {"raw-icmp", AF_INET, SOCK_RAW, IPPROTO_ICMP},
                  {"raw-tcp", AF_INET, SOCK_RAW, IPPROTO_TCP},
                  {"raw-raw", AF_INET, SOCK_RAW, IPPROTO_RAW},
                  {"raw6", AF_INET6, SOCK_RAW, IPPROTO_ICMPV6},
                  {"netfilter", AF_NETLINK, SOCK_RAW, 12},
                  {"audit", AF_NETLINK, SOCK_RAW, 9},
                  {"uevent", AF_NETLINK, SOCK_RAW, 15},
                  {"xfrm", AF_NETLINK, SOCK_RAW, 6},
                  {"generic-netlink", AF_NETLINK, SOCK_RAW, 16},
                  {"sock-diag", AF_NETLINK, SOCK_RAW, 4},
                  {"key", 15, SOCK_RAW, 2},
                  {"bluetooth", 31, SOCK_RAW, 1},
                  {"can", 29, SOCK_RAW, 1},
                  {"tipc", 30, SOCK_SEQPACKET, 0},
                  {"rds", 21, SOCK_SEQPACKET, 0},
                  {"xdp", 44, SOCK_RAW, 0}};
  int outcome = kContained;
  for (size_t i = 0; i < sizeof kSockets / sizeof *kSockets; ++i) {
    errno = 0;
    int fd = socket(kSockets[i].family, kSockets[i].type, kSockets[i].protocol);
    if (fd >= 0) {
      printf("%s open\n", kSockets[i].name);
      outcome = kReached;
      close(fd);
    } else {
      printf("%s closed %s\n", kSockets[i].name, strerror(errno));
    }
  }
  return outcome;
}

// tiocsti: pushes a character into the terminal this process was given, as if its owner had typed it.
static int do_tiocsti(int count, char** args) {
  (void)count, (void)args;
  int outcome = kContained;
  int tty = open("/dev/tty", O_RDWR);
  if (tty >= 0)
    outcome = reached("/dev/tty");
  else
    contained("/dev/tty");
  for (int fd = 0; fd < 64; ++fd) {
    char key = '\n';
    if (!isatty(fd)) continue;
    outcome = reached("a terminal");
    if (ioctl(fd, TIOCSTI, &key) == 0) reached("TIOCSTI");
  }
  return outcome;
}

// ---- resources

// fork_bomb LIMIT: processes until refused or LIMIT are there. thread_bomb the same with threads.
static int do_fork_bomb(int count, char** args) {
  if (count != 1) return kCannotTry;
  int limit = atoi(args[0]);
  int made = 0;
  for (; made < limit; ++made) {
    pid_t child = fork();
    if (child < 0) break;
    if (child == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      pause();
      _exit(0);
    }
  }
  int refused = errno;
  printf("made %d\n", made);
  signal(SIGTERM, SIG_IGN);
  kill(0, SIGTERM);
  errno = refused;
  return made < limit ? contained("fork") : reached("as many processes as wanted");
}
static void* sleep_for_ever(void* unused) {
  (void)unused;
  for (;;) pause();
  return NULL;
}
static int do_thread_bomb(int count, char** args) {
  if (count != 1) return kCannotTry;
  int limit = atoi(args[0]);
  int made = 0;
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 16384);
  for (; made < limit; ++made) {
    pthread_t thread;
    if ((errno = pthread_create(&thread, &small, sleep_for_ever, NULL)) != 0) break;
  }
  printf("made %d\n", made);
  return made < limit ? contained("pthread_create") : reached("as many threads as wanted");
}

static int touch(char* memory, size_t size) {
  for (size_t at = 0; at < size; at += 4096) memory[at] = (char)(at >> 12);
  return memory[0] + memory[size - 1];
}
// eat KIND MIB: takes that much memory and holds it.
static int do_eat(int count, char** args) {
  if (count != 2) return kCannotTry;
  const char* kind = args[0];
  size_t size = (size_t)atoi(args[1]) << 20;
  errno = 0;
  if (strcmp(kind, "anonymous") == 0) {
    char* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return contained("mmap");
    touch(memory, size);
  } else if (strcmp(kind, "shared") == 0) {
    char* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return contained("mmap");
    touch(memory, size);
  } else if (strcmp(kind, "memfd") == 0) {
    int fd = memfd_create("probe", 0);
    static char block[1 << 20];
    memset(block, 'x', sizeof block);
    for (size_t at = 0; at < size; at += sizeof block) {
      if (write(fd, block, sizeof block) != (ssize_t)sizeof block) return contained("write to a memfd");
    }
  } else if (strcmp(kind, "sysv") == 0) {
    int id = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
    if (id < 0) return contained("shmget");
    char* memory = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
    if (memory == (void*)-1) return contained("shmat");
    touch(memory, size);
  } else if (strcmp(kind, "processes") == 0) {
    for (int i = 0; i < 8; ++i) {
      if (fork() != 0) continue;
      touch(mmap(NULL, size / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size / 8);
      sleep(2);
      _exit(7);
    }
    int whole = 0;
    for (int status; wait(&status) > 0;) whole += WIFEXITED(status) && WEXITSTATUS(status) == 7;
    if (whole < 8) return contained("eight processes together");
  } else if (strcmp(kind, "sockets") == 0 || strcmp(kind, "pipes") == 0) {
    size_t held = 0;
    static char block[65536];
    while (held < size) {
      int ends[2];
      int wide = 1 << 20;
      if (kind[0] == 'p' ? pipe2(ends, O_NONBLOCK) : socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends))
        return contained("more descriptors");
      if (kind[0] == 'p')
        fcntl(ends[1], F_SETPIPE_SZ, wide);
      else
        setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &wide, sizeof wide);
      ssize_t put;
      while ((put = write(ends[1], block, sizeof block)) > 0) held += (size_t)put;
    }
  } else if (strcmp(kind, "page-tables") == 0) {
    // One page in each 2 MiB: a page table (4 KiB) for each page touched.
    size_t span = size / 8192 * (2UL << 20);
    char* memory = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return contained("mmap");
    for (size_t at = 0; at < span; at += 2UL << 20) memory[at] = 1;
  } else {
    return kCannotTry;
  }
  return reached("as much memory as wanted");
}

// open_files LIMIT: descriptors until refused.
static int do_open_files(int count, char** args) {
  if (count != 1) return kCannotTry;
  int limit = atoi(args[0]);
  int made = 0;
  while (made < limit && dup(0) >= 0) ++made;
  printf("made %d\n", made);
  return made < limit ? contained("dup") : reached("as many descriptors as wanted");
}
// ptys: a terminal of one's own.
static int do_ptys(int count, char** args) {
  (void)count, (void)args;
  errno = 0;
  int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY);
  return fd < 0 ? contained("/dev/ptmx") : reached("a pseudo terminal");
}

// fill DIRECTORY MIB: writes until the disk refuses.
static int do_fill(int count, char** args) {
  if (count != 2) return kCannotTry;
  char path[4096];
  static char block[1 << 20];
  memset(block, 'x', sizeof block);
  snprintf(path, sizeof path, "%s/probe-fill", args[0]);
  int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  if (fd < 0) return cannot("make a file to fill");
  int made = 0;
  int wanted = atoi(args[1]);
  while (made < wanted && write(fd, block, sizeof block) == (ssize_t)sizeof block) ++made;
  if (made == wanted && fsync(fd) != 0) made = -1;
  int refused = errno;
  printf("wrote %d MiB\n", made);
  close(fd);
  unlink(path);
  errno = refused;
  return made == wanted ? reached("as much disk as wanted") : contained("write");
}

// ---- network

static int connect_within(int fd, const struct sockaddr* name, socklen_t size) {
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (connect(fd, name, size) == 0) return 0;
  if (errno != EINPROGRESS) return -1;
  struct pollfd ready = {fd, POLLOUT, 0};
  if (poll(&ready, 1, 700) != 1) return errno = ETIMEDOUT, -1;
  socklen_t length = sizeof errno;
  int error = 0;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
  return errno = error, error ? -1 : 0;
}
// connect ADDRESS PORT [ADDRESS PORT]...: TCP, IPv4 or IPv6.
static int do_connect(int count, char** args) {
  int outcome = kContained;
  for (int i = 0; i + 1 < count; i += 2) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[i + 1]))};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = v4.sin_port};
    int is_v4 = inet_pton(AF_INET, args[i], &v4.sin_addr) == 1;
    if (!is_v4 && inet_pton(AF_INET6, args[i], &v6.sin6_addr) != 1) return kCannotTry;
    int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
    if (fd < 0) return cannot("socket");
    errno = 0;
    if (connect_within(fd, is_v4 ? (void*)&v4 : (void*)&v6, is_v4 ? sizeof v4 : sizeof v6) == 0)
      outcome = worse(outcome, reached(args[i]));
    else
      contained(args[i]);
    close(fd);
  }
  return outcome;
}
// unix_connect NAME...: local sockets; a leading '@' is the abstract name space.
static int do_unix_connect(int count, char** args) {
  int outcome = kContained;
  for (int i = 0; i < count; ++i) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, args[i], sizeof name.sun_path - 1);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(args[i]));
    if (args[i][0] == '@')
      name.sun_path[0] = 0;
    else
      ++size;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    errno = 0;
    if (connect(fd, (struct sockaddr*)&name, size) == 0)
      outcome = worse(outcome, reached(args[i]));
    else
      contained(args[i]);
    close(fd);
  }
  return outcome;
}
// listen PORT: accepts one connection within three seconds on every address.
static int do_listen(int count, char** args) {
  if (count != 1) return kCannotTry;
  int on = 1;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[0]))};
  if (bind(fd, (struct sockaddr*)&any, sizeof any) != 0 || listen(fd, 8) != 0) return cannot("listen");
  struct ifreq device = {0};
  strcpy(device.ifr_name, "eth0");
  char text[INET_ADDRSTRLEN] = "none";
  if (ioctl(fd, SIOCGIFADDR, &device) == 0) inet_ntop(AF_INET, &((struct sockaddr_in*)&device.ifr_addr)->sin_addr, text, sizeof text);
  printf("listening %s\n", text);
  fflush(stdout);
  struct pollfd ready = {fd, POLLIN, 0};
  errno = ETIMEDOUT;
  return poll(&ready, 1, 3000) == 1 && accept(fd, NULL, NULL) >= 0 ? reached("somebody connected") : contained("nobody connected");
}
// spoof SOURCE ADDRESS PORT: a datagram under a borrowed source address.
static int do_spoof(int count, char** args) {
  if (count != 3) return kCannotTry;
  struct sockaddr_in own = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(args[2]))};
  inet_pton(AF_INET, args[0], &own.sin_addr);
  inet_pton(AF_INET, args[1], &to.sin_addr);
  int on = 1;
  int fd = socket(AF_INET, SOCK_DGRAM, 0);
  setsockopt(fd, SOL_IP, 15 /* IP_FREEBIND */, &on, sizeof on);
  setsockopt(fd, SOL_IP, 19 /* IP_TRANSPARENT */, &on, sizeof on);
  errno = 0;
  if (bind(fd, (struct sockaddr*)&own, sizeof own) != 0) return contained("bind a borrowed address");
  if (sendto(fd, "spoof", 5, 0, (struct sockaddr*)&to, sizeof to) != 5) return contained("send from a borrowed address");
  return reached("sent from a borrowed address");
}

static int say_where(void) {
  uint64_t cookie = 0;
  socklen_t size = sizeof cookie;
  struct stat tmp;
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || getsockopt(fd, SOL_SOCKET, 71 /* SO_NETNS_COOKIE */, &cookie, &size) != 0 || stat("/tmp", &tmp) != 0) return -1;
  close(fd);
  printf("network %llu tmp %llu\n", (unsigned long long)cookie, (unsigned long long)tmp.st_dev);
  return 0;
}
static int bind_abstract(const char* name) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path + 1, name, strlen(name));
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
  return bind(fd, (struct sockaddr*)&address, size) == 0 && listen(fd, 8) == 0 ? fd : -1;
}

// leave ADDRESS: everything a sandbox might leave to the one after it; a daemon holds it to the very end.
static int do_leave(int count, char** args) {
  if (count != 1 || say_where() != 0) return cannot("say where");
  struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8080)};
  struct sockaddr_in away = {.sin_family = AF_INET, .sin_port = htons(80)};
  inet_pton(AF_INET, args[0], &away.sin_addr);
  int listener = socket(AF_INET, SOCK_STREAM, 0), bound = socket(AF_INET, SOCK_DGRAM, 0), open_end = socket(AF_INET, SOCK_STREAM, 0),
      half_open = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (bind(listener, (struct sockaddr*)&any, sizeof any) != 0 || listen(listener, 8) != 0 ||
      bind(bound, (struct sockaddr*)&any, sizeof any) != 0 || bind_abstract("left-behind") < 0)
    return cannot("listen");
  if (connect(open_end, (struct sockaddr*)&away, sizeof away) != 0) return cannot("connect");
  away.sin_port = htons(81);
  connect(half_open, (struct sockaddr*)&away, sizeof away);
  sendto(bound, "left", 4, 0, (struct sockaddr*)&away, sizeof away);
  int file = open("/tmp/left-behind", O_CREAT | O_RDWR, 0666);
  int nameless = open("/tmp", O_TMPFILE | O_RDWR, 0666);
  if (write(file, "left behind", 11) != 11 || write(nameless, "left behind", 11) != 11) return cannot("write to /tmp");
  fsync(file);
  if (shmget(0x1ef7, 4096, IPC_CREAT | 0666) < 0) return cannot("shmget");
  int fd = open("/dev/shm/left-behind", O_CREAT | O_RDWR, 0666);  // where there is one
  if (fd >= 0) (void)!write(fd, "left behind", 11);
  if (fork() == 0) {
    setsid();
    pause();
  }
  return kContained;
}

// whisper: a message to the sandbox after it in what the owner of /tmp may set about it, without any file.
enum { kMessage = 0x6d657373 };
static int do_whisper(int count, char** args) {
  (void)count, (void)args;
  struct stat before;
  if (say_where() != 0 || stat("/tmp", &before) != 0) return cannot("say where");
  int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const struct timespec times[2] = {{.tv_sec = kMessage, .tv_nsec = 7}, before.st_mtim};
  const int generation = kMessage;
  uint64_t hint = RWH_WRITE_LIFE_LONG;
  int said = 0;
  if (futimens(tmp, times) == 0) ++said;
  if (ioctl(tmp, FS_IOC_SETVERSION, &generation) == 0) ++said;
  if (fcntl(tmp, F_SET_RW_HINT, &hint) == 0) ++said;
  return said > 0 ? kContained : cannot("say anything");
}

// Lines of a file of /proc/net behind its head.
static int lines_of(const char* path) {
  char line[512];
  int count = -1;
  FILE* file = fopen(path, "re");
  if (file == NULL) return 0;
  while (fgets(line, sizeof line, file) != NULL) ++count;
  fclose(file);
  return count;
}
static int find_trace(const char* what, int found) { return found ? reached(what) : kContained; }

// successor: looks for what do_leave() left.
static int do_successor(int count, char** args) {
  (void)count, (void)args;
  if (say_where() != 0) return cannot("say where");
  int outcome = kContained;
  // Of TCP and UDP the server's own listeners, which are there before anything runs inside.
  outcome = worse(outcome, find_trace("TCP sockets", lines_of("/proc/net/tcp") > 3));
  outcome = worse(outcome, find_trace("UDP sockets", lines_of("/proc/net/udp") > 1));
  outcome = worse(outcome, find_trace("local sockets", lines_of("/proc/net/unix") > 0));
  outcome = worse(outcome, find_trace("neighbours", lines_of("/proc/net/arp") > 0));
  outcome = worse(outcome, find_trace("an abstract name that is taken", bind_abstract("left-behind") < 0));
  outcome = worse(outcome, find_trace("System V memory", shmget(0x1ef7, 0, 0) >= 0));
  struct stat tmp;
  struct statfs space;
  DIR* directory = opendir("/tmp");
  int entries = 0;
  while (directory != NULL && readdir(directory) != NULL) ++entries;
  outcome = worse(outcome, find_trace("files in /tmp", entries != 2));
  outcome = worse(outcome, find_trace("/tmp of another", stat("/tmp", &tmp) != 0 || tmp.st_uid != getuid() || (tmp.st_mode & 07777) != 0700));
  int generation = 0, root = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  uint64_t hint = 0;
  (void)ioctl(root, FS_IOC_GETVERSION, &generation);  // not on a tmpfs
  outcome = worse(outcome, find_trace("a time of /tmp", fstat(root, &tmp) != 0 || tmp.st_atim.tv_sec == kMessage));
  outcome = worse(outcome, find_trace("the generation of /tmp", generation == kMessage));
  outcome = worse(outcome, find_trace("the write hint of /tmp", fcntl(root, F_GET_RW_HINT, &hint) == 0 && hint != 0));
  outcome = worse(outcome, find_trace("attributes of /tmp", listxattr("/tmp", NULL, 0) != 0));
  outcome = worse(outcome, find_trace("/dev/shm", access("/dev/shm/left-behind", F_OK) == 0));
  if (statfs("/tmp", &space) == 0) printf("free %llu %llu\n", (unsigned long long)space.f_bfree, (unsigned long long)space.f_ffree);
  char line[512];
  FILE* devices = fopen("/proc/net/dev", "re");
  while (devices != NULL && fgets(line, sizeof line, devices) != NULL) {
    unsigned long long received = 1, sent = 1;
    char* numbers = strchr(line, ':');
    if (numbers == NULL) continue;
    if (sscanf(numbers + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &received, &sent) != 2 || received + sent != 0)
      outcome = worse(outcome, reached("traffic of another"));
  }
  return outcome;
}

static const struct {
  const char* name;
  int (*run)(int, char**);
} kCommands[] = {
    {"read", do_read},
    {"open_write", do_open_write},
    {"link", do_link},
    {"write_anywhere", do_write_anywhere},
    {"fds", do_fds},
    {"fd_walk", do_fd_walk},
    {"euid", do_euid},
    {"exec_euid", do_exec_euid},
    {"caps", do_caps},
    {"mknod", do_mknod},
    {"processes", do_processes},
    {"spy", do_spy},
    {"spy_child", do_spy_child},
    {"grep_proc", do_grep_proc},
    {"kill_all", do_kill_all},
    {"kill_pid", do_kill_pid},
    {"privileged_self", do_privileged_self},
    {"daemonize", do_daemonize},
    {"hang", do_hang},
    {"churn", do_churn},
    {"calls", do_calls},
    {"foreign_abi", do_foreign_abi},
    {"sockets", do_sockets},
    {"tiocsti", do_tiocsti},
    {"fork_bomb", do_fork_bomb},
    {"thread_bomb", do_thread_bomb},
    {"eat", do_eat},
    {"open_files", do_open_files},
    {"ptys", do_ptys},
    {"fill", do_fill},
    {"connect", do_connect},
    {"unix_connect", do_unix_connect},
    {"listen", do_listen},
    {"spoof", do_spoof},
    {"leave", do_leave},
    {"whisper", do_whisper},
    {"successor", do_successor},
};

int main(int argc, char** argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  for (size_t i = 0; argc > 1 && i < sizeof kCommands / sizeof *kCommands; ++i) {
    if (strcmp(argv[1], kCommands[i].name) == 0) return kCommands[i].run(argc - 2, argv + 2);
  }
  fprintf(stderr, "usage: probe COMMAND [ARGUMENT]...\n");
  return kCannotTry;
}
