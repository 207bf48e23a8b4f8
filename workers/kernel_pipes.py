"""The kernel pipes (pipe(7)) of a worker, opened once: what slabs are to a flow, to a BulkFlow.

    splice ─▶ hot pipe ─▶ splice     all taken: the same pipe is hot again
                            └─ short ─▶ park(): the flow holds the pipe, a spare is hot
                                        release(): written out, the pipe is a spare again

Invariant: the hot pipe is empty between two events, and there is one as long as there is a spare.
Running out of spares slows nobody but those who would have parked one: they copy (workers/bulk.py).
"""

import fcntl
import logging
import os
from typing import NamedTuple

from aegis.figures import Figures
from aegis.limits import KERNEL_PIPE_BYTES

log = logging.getLogger(__name__)


class KernelPipe(NamedTuple):
    """The fds of a pipe's ends."""

    outlet: int
    inlet: int


class KernelPipes:
    """All kernel pipes of one worker. Not thread-safe: the loop is the only user."""

    __slots__ = ("_figures", "hot", "spare")

    def __init__(self, count: int, figures: Figures) -> None:
        """Open so many, or fewer if that is all the kernel grants (pipe-user-pages-soft)."""
        self._figures = figures
        self.spare: list[KernelPipe] = []
        try:
            for _ in range(count):
                self.spare.append(_open())
        except OSError as error:
            log.info("%d of %d kernel pipes: %s", len(self.spare), count, error)
        self.hot = self.spare.pop() if self.spare else KernelPipe(-1, -1)

    def park(self) -> KernelPipe:
        """Hand over the hot pipe with what is in it; only while there is a spare one."""
        parked = self.hot
        self.hot = self.spare.pop()
        self._figures.kernel_pipes_used += 1
        return parked

    def release(self, pipe: KernelPipe) -> None:
        """Take an empty pipe back."""
        self.spare.append(pipe)
        self._figures.kernel_pipes_used -= 1


def _open() -> KernelPipe:
    pipe = KernelPipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        fcntl.fcntl(pipe.inlet, fcntl.F_SETPIPE_SZ, KERNEL_PIPE_BYTES)
    except OSError:
        os.close(pipe.inlet)
        os.close(pipe.outlet)
        raise
    return pipe
