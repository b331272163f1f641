// Stands between a program and the C library's file functions: records the
// calls on files below $FAULT_ROOT, and lets the n-th fail, fall short, or be
// the last thing the process does. Loaded with LD_PRELOAD, so that what is
// tested is the very program that users run.
//
//   FAULT_ROOT   folder whose files count (an absolute path)
//   FAULT_LOG    file that receives a line a call: NUMBER OPERATION PATH
//   [DETAIL] FAULT_AT     number of the call that is disturbed; 0: every write
//   FAULT_DO     kill-before, kill-half (after half of a write), kill-after,
//                term (SIGTERM before the call), EIO, ENOSPC, EINTR (once), or
//                short (every write falls short)
//   FAULT_CLOCK  the clock of the day jumps to and fro with every look at it
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static atomic_int calls;

static int below(const char *path) {
  const char *root = getenv("FAULT_ROOT");
  return root && path && strncmp(path, root, strlen(root)) == 0;
}

// The path behind a descriptor, "" when there is none.
static const char *pathOf(int descriptor, char *path) {
  char link[64];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t bytes = readlink(link, path, PATH_MAX - 1);
  path[bytes > 0 ? bytes : 0] = 0;
  return path;
}

// The path that a call at a folder's descriptor means.
static const char *pathAt(int folder, const char *name, char *path) {
  if (name[0] == '/' || folder == AT_FDCWD)
    return name;
  pathOf(folder, path);
  const size_t length = strlen(path);
  snprintf(path + length, PATH_MAX - length, "/%s", name);
  return path;
}

static void record(int number, const char *operation, const char *path,
                   const char *detail) {
  static int log = -1;
  if (log < 0 && getenv("FAULT_LOG"))
    log = (int)syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"),
                       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  char line[2 * PATH_MAX + 64];
  const int length = snprintf(line, sizeof(line), "%d\t%s\t%s\t%s\n", number,
                              operation, path, detail ? detail : "");
  if (log >= 0)
    syscall(SYS_write, log, line, (size_t)length);
}

static int faultIs(const char *name) {
  const char *fault = getenv("FAULT_DO");
  return fault && strcmp(fault, name) == 0;
}

// Counts a call on `path` and says whether it is the one to disturb.
static int isDisturbed(const char *operation, const char *path,
                       const char *detail) {
  if (!below(path))
    return 0;
  const int number = atomic_fetch_add(&calls, 1) + 1;
  record(number, operation, path, detail);
  const char *at = getenv("FAULT_AT");
  if (!at || atoi(at) != number)
    return 0;
  if (faultIs("kill-before"))
    raise(SIGKILL);
  if (faultIs("term"))
    raise(SIGTERM);
  return 1;
}

// The error that the disturbed call must give; 0 when it is to succeed.
static int injectedError(void) {
  return faultIs("EIO")      ? EIO
         : faultIs("ENOSPC") ? ENOSPC
         : faultIs("EINTR")  ? EINTR
                             : 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define DISTURB(operation, path, detail, call)                                 \
  do {                                                                         \
    const int disturbed = isDisturbed(operation, path, detail);                \
    if (disturbed && injectedError()) {                                        \
      errno = injectedError();                                                 \
      return -1;                                                               \
    }                                                                          \
    const __typeof__(call) result = call;                                      \
    if (disturbed && faultIs("kill-after"))                                    \
      raise(SIGKILL);                                                          \
    return result;                                                             \
  } while (0)

static mode_t modeOf(int flags, va_list arguments) {
  const int creates = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
  return creates ? (mode_t)va_arg(arguments, int) : 0;
}

static const char *flagsText(int flags) {
  return flags & O_CREAT ? "create" : "open";
}

#define DEFINE_OPEN(name)                                                      \
  int name(const char *path, int flags, ...) {                                 \
    va_list arguments;                                                         \
    va_start(arguments, flags);                                                \
    const mode_t mode = modeOf(flags, arguments);                              \
    va_end(arguments);                                                         \
    DISTURB(flagsText(flags), path, NULL, REAL(name)(path, flags, mode));      \
  }
DEFINE_OPEN(open)
DEFINE_OPEN(open64)

#define DEFINE_OPENAT(name)                                                    \
  int name(int folder, const char *path, int flags, ...) {                     \
    char buffer[2 * PATH_MAX];                                                 \
    va_list arguments;                                                         \
    va_start(arguments, flags);                                                \
    const mode_t mode = modeOf(flags, arguments);                              \
    va_end(arguments);                                                         \
    DISTURB(flagsText(flags), pathAt(folder, path, buffer), NULL,              \
            REAL(name)(folder, path, flags, mode));                            \
  }
DEFINE_OPENAT(openat)
DEFINE_OPENAT(openat64)

ssize_t write(int descriptor, const void *data, size_t bytes) {
  char path[PATH_MAX];
  const int disturbed = isDisturbed("write", pathOf(descriptor, path), NULL);
  if (disturbed && faultIs("kill-half")) {
    REAL(write)(descriptor, data, bytes / 2);
    raise(SIGKILL);
  }
  if (disturbed && injectedError()) {
    errno = injectedError();
    return -1;
  }
  if (faultIs("short") && below(path) && bytes > 1)
    bytes = 1 + bytes / 3;
  const ssize_t result = REAL(write)(descriptor, data, bytes);
  if (disturbed && faultIs("kill-after"))
    raise(SIGKILL);
  return result;
}

// What the program says, in order with what it does.
int fprintf(FILE *restrict file, const char *restrict format, ...) {
  va_list arguments;
  if (file == stderr) {
    char said[PATH_MAX];
    va_start(arguments, format);
    vsnprintf(said, sizeof(said), format, arguments);
    va_end(arguments);
    said[strcspn(said, "\n")] = 0;
    record(0, "say", said, NULL);
  }
  va_start(arguments, format);
  const int result = vfprintf(file, format, arguments);
  va_end(arguments);
  return result;
}

int fsync(int descriptor) {
  char path[PATH_MAX];
  DISTURB("fsync", pathOf(descriptor, path), NULL, REAL(fsync)(descriptor));
}

ssize_t read(int descriptor, void *data, size_t bytes) {
  char path[PATH_MAX];
  DISTURB("read", pathOf(descriptor, path), NULL,
          REAL(read)(descriptor, data, bytes));
}

int rename(const char *from, const char *to) {
  DISTURB("rename", from, to, REAL(rename)(from, to));
}

int mkdir(const char *path, mode_t mode) {
  DISTURB("mkdir", path, NULL, REAL(mkdir)(path, mode));
}

int unlink(const char *path) {
  DISTURB("unlink", path, NULL, REAL(unlink)(path));
}

int remove(const char *path) {
  DISTURB("unlink", path, NULL, REAL(remove)(path));
}

int unlinkat(int folder, const char *name, int flags) {
  char path[2 * PATH_MAX];
  DISTURB("unlink", pathAt(folder, name, path), NULL,
          REAL(unlinkat)(folder, name, flags));
}

// Every look at the clock of the day finds it ten days earlier or later.
static time_t jump(void) {
  static atomic_int looks;
  if (!getenv("FAULT_CLOCK"))
    return 0;
  return (atomic_fetch_add(&looks, 1) % 2 ? -1 : 1) * (time_t)864000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  const int result = REAL(clock_gettime)(clock, now);
  if (clock == CLOCK_REALTIME)
    now->tv_sec += jump();
  return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  const int result = REAL(gettimeofday)(now, zone);
  now->tv_sec += jump();
  return result;
}

time_t time(time_t *into) {
  const time_t now = REAL(time)(NULL) + jump();
  if (into)
    *into = now;
  return now;
}
