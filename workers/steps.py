"""What is done with a connection before its bytes are relayed, written down as one sequence.

    steps: yield READ ──▶ epoll ─────────────▶ go on
           yield TURN ──▶ one of the next turns ─▶ go on      … return: done │ OSError: broke
           yield PARKED ▶ whoever says `go_on` ─▶ go on

A PROXY header, a ClientHello, a handshake, a place in a queue: they wait many times, for one client
after the other. As a generator such a sequence is a function that is read from top to bottom and
has its locals. This is for the beginning of a connection, never for its bytes.
"""

from collections.abc import Generator
from typing import Any, Final, TypeAlias, TypeVar

from workers.loop import ERROR, HANGUP, READ, WRITE, Loop
from workers.tls_loop import TlsLoop

PARKED: Final = 0
TURN: Final = READ | WRITE
"""What follows is expensive, and in each turn there is a bound on it."""

Result = TypeVar("Result")
Steps: TypeAlias = Generator[int, None, Result]


class Procedure:
    """Takes steps for one fd, as its reader and writer; a step may be called too early."""

    __slots__ = ("_fd", "_mask", "_steps", "_waits", "loop")

    def __init__(self, loop: Loop, fd: int, *, registered: int | None) -> None:
        """`registered` is the mask with which the fd stands in epoll; None if it does not."""
        self.loop = loop
        self._fd = fd
        self._mask = registered
        self._steps: Steps[Any] | None = None
        self._waits = PARKED

    def take(self, steps: Steps[Any]) -> None:
        """Take these steps, as far as they go at once."""
        self._steps = steps
        self.go_on()

    def go_on(self) -> None:
        """Take the next steps."""
        if self._steps is None:
            return
        try:
            waits = next(self._steps)
        except StopIteration as end:
            self._steps = None
            self.done(end.value)
        except OSError as error:
            self._steps = None
            self.broke(error)
        else:
            self._wait(waits)

    def cancel(self) -> None:
        """Take no more steps; the fd stays registered if it is."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def leave(self) -> None:
        """Take the fd out of epoll."""
        if self._mask is not None:
            self.loop.remove(self._fd)
            self._mask = None

    def _wait(self, waits: int) -> None:
        self._waits = waits
        if waits == TURN:
            assert isinstance(self.loop, TlsLoop)
            self.loop.handshakes.put(self)
        mask = PARKED if waits == TURN else waits
        if self._mask is None:
            if mask:
                self.loop.add(self._fd, mask, self, self)
                self._mask = mask
        elif mask != self._mask:
            self._mask = self.loop.switch(self._fd, self._mask, mask)

    def on_readable(self, mask: int) -> None:
        """Go on if this was waited for; who is parked can only have been reset."""
        if self._waits == READ or (self._waits == WRITE and mask & (ERROR | HANGUP)):
            self.go_on()
        elif self._waits == PARKED and mask & (ERROR | HANGUP) and self._steps is not None:
            self.cancel()
            self.broke(ConnectionResetError())

    def on_writable(self, mask: int) -> None:  # noqa: ARG002 - it says nothing more
        """Go on if this was waited for."""
        if self._waits == WRITE:
            self.go_on()

    def flush(self) -> None:
        """Go on: it is our turn, unless the fd has been closed since."""
        if self.loop.is_read_by(self._fd, self):
            self.go_on()

    # --- for the owner -------------------------------------------------------------------------

    def done(self, result: Any) -> None:
        """All steps have been taken."""
        raise NotImplementedError

    def broke(self, error: OSError) -> None:
        """The connection has broken."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """A step has raised what nobody foresaw."""
        raise NotImplementedError
