"""The buffers of a worker, allocated once.

The loop reads into the *hot* slab and writes it straight out. Only when the sink takes less than
was read does the flow keep the slab, with the rest still in it (no copy), and a spare becomes hot:

    recv ─▶ hot ─▶ send            all taken: the same slab is hot again
                     └─ short ─▶ park(): the flow holds the slab, a spare is hot
                                 release(): written out, the slab is a spare again

Invariant: there always is a hot slab, so `park` may be called only while `spare` is not empty. A
flow that finds it empty peeks and leaves the bytes in the kernel (workers/flow.py), so running out
of slabs slows nobody but the flows that would have parked one.
"""

from typing import NamedTuple

from aegis.figures import Figures


class Slab(NamedTuple):
    """One buffer and a view of all of it, made once because a view per read would be garbage."""

    buffer: bytearray
    view: memoryview


def make_slab(slab_bytes: int) -> Slab:
    """Allocate one buffer."""
    buffer = bytearray(slab_bytes)
    return Slab(buffer, memoryview(buffer))


class Slabs:
    """All slabs of one worker. Not thread-safe: the loop is the only user."""

    __slots__ = ("_figures", "_half", "hot", "spare")

    def __init__(self, count: int, slab_bytes: int, figures: Figures) -> None:
        """Allocate `count` slabs of `slab_bytes` each, `count` at least 2."""
        slabs = [make_slab(slab_bytes) for _ in range(count)]
        self.hot = slabs.pop()
        self.spare = slabs
        self._half = count // 2
        self._figures = figures

    @property
    def ample(self) -> bool:
        """Whether one may be taken for what can wait in the kernel as well."""
        return len(self.spare) >= self._half

    def park(self) -> Slab:
        """Hand over the hot slab with what is in it; the caller gives it back to `release`."""
        parked = self.hot
        self.hot = self.spare.pop()
        self._figures.slabs_used += 1
        return parked

    def borrow(self) -> Slab:
        """Hand over a spare; only while there is one. The caller gives it back to `release`."""
        self._figures.slabs_used += 1
        return self.spare.pop()

    def release(self, slab: Slab) -> None:
        """Take a parked slab back."""
        self.spare.append(slab)
        self._figures.slabs_used -= 1
