"""Giving up root: all that is ever needed of it is one capability.

The controller becomes the configured account before it opens anything, and so do the workers and
the exporter, which it starts. It keeps CAP_NET_BIND_SERVICE, to bind a port below 1024 at the start
and at a reload; that is not ambient, so no process it starts has it (capabilities(7)). Signals,
pidfd_getfd(2), the runtime directory, and SO_REUSEPORT, which is for sockets of one owner, are
matters among processes of one account.
"""

import ctypes
import grp
import os
import pwd
import struct
from pathlib import Path
from typing import NamedTuple

from aegis.config import Config
from aegis.errors import AegisError

_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 47, 2  # linux/prctl.h
_CAP_NET_BIND_SERVICE = 10
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)


class Account(NamedTuple):
    """Who to be."""

    name: str
    uid: int
    gid: int


def account_of(config: Config) -> Account | None:
    """Return the account to become; None: stay what we are.

    Raises:
        AegisError: there is no such account, or we may not become it.
    """
    if not config.user:
        return None
    try:
        entry = pwd.getpwnam(config.user)
    except KeyError:
        raise AegisError(f'user: "{config.user}": this machine has no such account') from None
    gid = entry.pw_gid
    if config.group:
        try:
            gid = grp.getgrnam(config.group).gr_gid
        except KeyError:
            raise AegisError(f'group: "{config.group}": this machine has no such group') from None
    if os.geteuid() not in {0, entry.pw_uid}:
        raise AegisError(f'user: "{config.user}": only root can become another account')
    return Account(config.user, entry.pw_uid, gid) if os.geteuid() != entry.pw_uid else None


def give_directory(path: Path, account: Account) -> None:
    """Make the runtime directory and all that is in it the account's."""
    for each in [path, *path.iterdir()]:
        os.chown(each, account.uid, account.gid, follow_symlinks=False)


def become(account: Account) -> None:
    """Be the account from here on.

    Raises:
        AegisError: the kernel refuses.
    """
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.initgroups(account.name, account.gid)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        _set_capabilities(inheritable=False)
    except OSError as error:
        raise AegisError(f'user: cannot become "{account.name}": {error.strerror}') from None


def keep_through_exec() -> None:
    """Let the capability live through the next execve(2), if we have it and are not root."""
    if os.geteuid() != 0 and _may_bind():
        _set_capabilities(inheritable=True)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_NET_BIND_SERVICE)


def withhold_from_children() -> None:
    """After that execve(2): keep the capability to ourselves again."""
    if os.geteuid() != 0 and _may_bind():
        _set_capabilities(inheritable=False)  # what is not inheritable stops being ambient


def _may_bind() -> bool:
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return bool(int(line.split()[1], 16) >> _CAP_NET_BIND_SERVICE & 1)
    return False


def _set_capabilities(*, inheritable: bool) -> None:
    bit = 1 << _CAP_NET_BIND_SERVICE
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("6I", bit, bit, bit if inheritable else 0, 0, 0, 0)
    if _libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _prctl(option: int, *arguments: int) -> None:
    if _libc.prctl(option, *(list(arguments) + [0] * (4 - len(arguments)))) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
