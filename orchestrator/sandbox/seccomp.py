"""The container's system call filter: what is not named here fails with EPERM, for every process in it.

An allowlist of what CPython, gRPC and numerical libraries use, after the engine's own default profile, which allows far
more: io_uring, ptrace, sockets of any family, shared memory, keys, namespaces for whoever has a capability. The runner
gets a second, narrower filter on top (executor_image/launcher/seccomp.py). Sent inline with the create call.

Names that a processor does not have are left out by the engine. Another architecture's calls (i386, x32) end the
process, since only the native ones are listed.
"""

from __future__ import annotations

from typing import Any

ARCHITECTURES = ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")

FILES = (
    *("access", "chdir", "chmod", "chown", "close", "close_range", "copy_file_range", "creat", "dup", "dup2", "dup3"),
    *("faccessat", "faccessat2", "fadvise64", "fallocate", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown"),
    *("fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fstat", "fstatfs", "fsync", "ftruncate"),
    *("futimesat", "getcwd", "getdents", "getdents64", "getxattr", "lchown", "lgetxattr", "link", "linkat"),
    *("listxattr", "llistxattr", "lseek", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2"),
    *("pread64", "preadv", "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink"),
    *("readlinkat", "readv", "rename", "renameat", "renameat2", "rmdir", "sendfile", "stat", "statfs", "statx"),
    *("symlink", "symlinkat", "sync_file_range", "truncate", "umask", "unlink", "unlinkat", "utime", "utimensat"),
    *("utimes", "write", "writev"),
)
WAITING = (
    *("epoll_create", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "eventfd2"),
    *("inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "pause", "pipe", "pipe2", "poll"),
    *("ppoll", "pselect6", "select", "signalfd", "signalfd4"),
)
MEMORY = (
    *("brk", "madvise", "membarrier", "mincore", "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mremap", "msync"),
    *("munlock", "munlockall", "munmap"),
)
PROCESSES = (
    *("execve", "exit", "exit_group", "fork", "getpgid", "getpgrp", "getpid", "getppid", "getsid", "gettid", "kill"),
    *("setpgid", "setsid", "set_robust_list", "get_robust_list", "set_tid_address", "tgkill", "tkill", "vfork"),
    *("wait4", "waitid", "arch_prctl", "rseq", "futex", "futex_waitv", "prctl", "uname", "sysinfo", "getcpu"),
    *("rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend"),
    *("rt_sigtimedwait", "rt_tgsigqueueinfo", "sigaltstack", "restart_syscall"),
    *("getpriority", "setpriority", "getrlimit", "setrlimit", "prlimit64", "getrusage", "times"),
    *("sched_getaffinity", "sched_setaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler"),
    *("sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval", "sched_yield"),
)
TIME = (
    *("alarm", "clock_getres", "clock_gettime", "clock_nanosleep", "getitimer", "gettimeofday", "nanosleep"),
    *("setitimer", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime"),
    *("timerfd_create", "timerfd_gettime", "timerfd_settime", "getrandom"),
)
SOCKETS = (  # of which only local ones can be made, see below
    *("accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom"),
    *("recvmmsg", "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown"),
)
IDENTITY = (  # what the launcher gives up its privileges with; without a capability they change nothing
    *("capget", "capset", "getegid", "geteuid", "getgid", "getgroups", "getresgid", "getresuid", "getuid"),
    *("setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid", "setresuid", "setreuid", "setuid"),
    *("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "seccomp"),
)
ALLOWED = (*FILES, *WAITING, *MEMORY, *PROCESSES, *TIME, *SOCKETS, *IDENTITY)

_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET
_FILE_TYPE, _FIFO = 0o170000, 0o010000
_ENOSYS, _EAFNOSUPPORT = 38, 97
# Requests that Python and C libraries make: is it a terminal, is something there to read, close on exec.
IOCTLS = (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)


def profile() -> dict[str, Any]:
    """The filter as the engine takes it (``SecurityOpt: seccomp=<this as JSON>``)."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": list(ARCHITECTURES),
        "syscalls": [
            _allow(*ALLOWED),
            # No network, no netlink, no VM sockets, no kernel crypto: a family that is not local does not exist.
            _allow("socket", "socketpair", when=_argument(0, "SCMP_CMP_EQ", _AF_UNIX)),
            _fail(_EAFNOSUPPORT, "socket", "socketpair", when=_argument(0, "SCMP_CMP_NE", _AF_UNIX)),
            # Processes and threads, in the namespaces that there are. A filter cannot look into clone3's argument.
            _allow("clone", when=_argument(0, "SCMP_CMP_MASKED_EQ", _NEW_NAMESPACES, 0)),
            _fail(_ENOSYS, "clone3"),
            _allow("mknod", when=_argument(1, "SCMP_CMP_MASKED_EQ", _FILE_TYPE, _FIFO)),
            _allow("mknodat", when=_argument(2, "SCMP_CMP_MASKED_EQ", _FILE_TYPE, _FIFO)),
            *(_allow("ioctl", when=_argument(1, "SCMP_CMP_EQ", request)) for request in IOCTLS),
        ],
    }


def _allow(*names: str, when: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", "args": [when] if when else []}


def _fail(errno: int, *names: str, when: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": [when] if when else []}


def _argument(index: int, comparison: str, value: int, second: int = 0) -> dict[str, Any]:
    return {"index": index, "op": comparison, "value": value, "valueTwo": second}
