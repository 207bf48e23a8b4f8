"""The listening sockets of all slots: who has which, what may be closed, where connections go.

A TCP address has one SO_REUSEPORT socket per slot, a unix address one for all slots, and so has an
address that was inherited from systemd (control/systemd.py). They are known by their addresses, so
a listener that is renamed or changed keeps its sockets, and what waits in them.
"""

import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from aegis.addresses import Address, parse_address
from aegis.config import Config
from aegis.config_listener import Listener
from aegis.errors import AegisError
from control.sockets import SlotSockets, close_all, open_listener, probe, take_over
from control.steering import Group, listens


class Slots:
    """Slot → its sockets. Whoever serves there inherits them; they outlive every worker."""

    def __init__(self, inherited: SlotSockets) -> None:
        """Own the sockets that systemd has opened, too."""
        self._inherited = inherited
        self._slots: dict[int, SlotSockets] = {}
        self._groups: dict[str, Group] = {}
        self._elsewhere: set[str] = set()  # addresses that only adopted workers have sockets of
        self._allowed: set[int] = set()
        self._by_source: set[str] = set()  # addresses where clients come by their own address
        self._alone: set[str] = set()  # those where only slot 0 accepts

    def prepare(self, config: Config, slots: Iterable[int]) -> None:
        """Open every socket that the configuration wants and a slot lacks, or none of them.

        Raises:
            AegisError: an address cannot be bound; what was opened for it is closed again.
        """
        opened: list[tuple[int, str]] = []
        made: list[Path] = []
        try:
            for listener in config.listeners:
                address = parse_address(listener.bind)
                lacking = [s for s in slots if address.text not in self._slots.get(s, {})]
                if not lacking:
                    continue
                what = f'listener "{listener.name}"'
                if not self._is_ours(address):
                    probe(address, what)
                for slot in lacking:
                    sock, is_new = self._open(address, what)
                    self._slots.setdefault(slot, {})[address.text] = sock
                    opened.append((slot, address.text))
                    if is_new and address.is_unix:
                        made.append(Path(str(address.sockaddr)))
        except AegisError:
            for slot, text in opened:
                self._slots[slot].pop(text).close()
            for path in made:
                path.unlink(missing_ok=True)
            raise
        for _, text in opened:
            self._groups.setdefault(text, Group([]))
        self._know_clients(config)

    def _know_clients(self, config: Config) -> None:
        """See where what is counted by client address must be counted in one place."""
        counting = {
            parse_address(each.bind).text: each.proxy_protocol == "required"
            for each in config.listeners
            if each.max_sessions_per_client or each.accept_rate_per_client
        }
        self._alone = {text for text, hidden in counting.items() if hidden or self.is_shared(text)}
        self._by_source = counting.keys() - self._alone
        for text in self._groups:
            self._steer(text)

    def elsewhere(self, config: Config, slot: int) -> list[str]:
        """Return the listeners of which the worker of a slot accepts nobody."""
        names = [x.name for x in config.listeners if parse_address(x.bind).text in self._alone]
        return names if slot else []

    def _open(self, address: Address, what: str) -> tuple[socket.socket, bool]:
        if (given := self._inherited.get(address.text)) is not None:
            return given.dup(), False
        others = (
            sockets[address.text] for sockets in self._slots.values() if address.text in sockets
        )
        if address.is_unix and (shared := next(others, None)) is not None:
            return shared.dup(), False
        return open_listener(address, what), True

    def _is_ours(self, address: Address) -> bool:
        """Whether a socket of ours would make a probe fail."""
        ours = self.addresses() | self._inherited.keys()
        return any(parse_address(text).overlaps(address) for text in ours)

    def addresses(self) -> set[str]:
        """Return every address that we, or workers before us, have a socket of."""
        return {text for sockets in self._slots.values() for text in sockets} | self._elsewhere

    def fds(self, config: Config, slot: int) -> dict[str, int]:
        """Return listener name → fd, for who is to serve on a slot that is prepared."""
        sockets = self._slots[slot]
        return {
            listener.name: sockets[parse_address(listener.bind).text].fileno()
            for listener in config.listeners
        }

    def of(self, slot: int) -> SlotSockets:
        """Return the sockets of a slot, by address."""
        return self._slots.get(slot, {})

    def is_shared(self, text: str) -> bool:
        """Whether all slots accept from one socket there."""
        return text.startswith("unix:") or text in self._inherited

    # --- between controllers -------------------------------------------------------------------

    def adopt(self, slot: int, pidfd: int, fds: dict[str, int]) -> dict[str, str] | None:
        """Take a worker's sockets over for its slot, unless the slot has some.

        Returns:
            Listener name → address; None when the kernel does not let us know.
        """
        taken = take_over(pidfd, fds)
        mine = self._slots.get(slot, {})
        for text, sock in taken.values():
            if text in mine:
                sock.close()
                continue
            self._slots.setdefault(slot, {})[text] = sock
            self._groups[text] = Group(None)
        if len(taken) < len(fds):
            return None
        return {name: text for name, (text, _) in taken.items()}

    def keep_away(self, config: Config) -> None:
        """Note that a worker keeps its sockets to itself: what it listens on is not foreign."""
        self._elsewhere |= {parse_address(each.bind).text for each in config.listeners}

    def hand_over(self) -> tuple[dict[int, dict[str, int]], dict[str, list[int] | None]]:
        """Let the sockets live through execve(2); returns what `receive` takes."""
        for sockets in self._slots.values():
            for sock in sockets.values():
                os.set_inheritable(sock.fileno(), True)
        fds = {
            slot: {text: sock.fileno() for text, sock in sockets.items()}
            for slot, sockets in self._slots.items()
        }
        return fds, {text: group.order for text, group in self._groups.items()}

    def receive(self, fds: dict[int, dict[str, int]], orders: dict[str, list[int] | None]) -> None:
        """Take the sockets of the program that we were before execve(2)."""
        for slot, by_text in fds.items():
            self._slots[slot] = {text: received(fd) for text, fd in by_text.items()}
        self._groups = {text: Group(order) for text, order in orders.items()}

    # --- listening -----------------------------------------------------------------------------

    def listen(self, listeners: Iterable[Listener], slot: int) -> None:
        """Let connections queue at a slot whose worker is about to serve."""
        for listener in listeners:
            text = parse_address(listener.bind).text
            sock = self.of(slot).get(text)
            if slot and text in self._alone:
                continue
            if sock is not None and not self.is_shared(text) and not listens(sock):
                self._steer(text)  # to those that listen now, so that it does not get any yet
                sock.listen(listener.backlog)
                self._groups[text].began(slot)
                self._steer(text)

    def steer(self, allowed: set[int]) -> None:
        """Give new connections to these slots, where somebody accepts."""
        self._allowed = allowed
        for text in self._groups:
            self._steer(text)

    def _steer(self, text: str) -> None:
        if self.is_shared(text):
            return
        members = {slot: socks[text] for slot, socks in self._slots.items() if text in socks}
        group = self._groups[text]
        group.by_source = text in self._by_source
        if text in self._alone and group.order is None:
            for slot, sock in members.items():
                if slot and listens(sock):
                    sock.shutdown(socket.SHUT_RD)
        with contextlib.suppress(OSError):  # the last one has just been shut down
            group.steer(members, {0} if text in self._alone else self._allowed)

    def shut(self, slot: int) -> None:
        """Stop a slot's sockets where there is no steering; what is queued there is reset."""
        for text, sock in self.of(slot).items():
            # One that does not listen must not be shut down: see workers/listener.py.
            if not self.is_shared(text) and self._groups[text].order is None and listens(sock):
                with contextlib.suppress(OSError):  # ENOTCONN: it has just been
                    sock.shutdown(socket.SHUT_RD)

    # --- closing -------------------------------------------------------------------------------

    def keep_only(self, texts: set[str]) -> None:
        """Close the sockets of all other addresses; workers go on with those they hold."""
        for sockets in self._slots.values():
            for text in sockets.keys() - texts:
                sockets.pop(text).close()
        for text in self._groups.keys() - texts:
            del self._groups[text]
            if text.startswith("unix:") and text not in self._inherited:
                Path(text.removeprefix("unix:")).unlink(missing_ok=True)
        self._elsewhere &= texts

    def drop(self, slot: int) -> None:
        """Close the sockets of a slot that nobody of ours is to serve on any more."""
        sockets = self._slots.pop(slot, {})
        for text, sock in sockets.items():
            if not self.is_shared(text) and listens(sock):
                self._groups[text].order = None  # a worker may hold it in the group yet
        close_all(sockets)

    def close(self) -> None:
        """Close all; connections still queued there are reset."""
        for slot in list(self._slots):
            self.drop(slot)
        close_all(self._inherited)


def received(fd: int) -> socket.socket:
    """Own a listening socket that came through execve(2)."""
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)  # as in `open_listener`
    return sock
