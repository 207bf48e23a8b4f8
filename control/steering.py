"""Which of the SO_REUSEPORT sockets of one address the kernel gives new connections to.

    SYN ──▶ program: one of the allowed indices ──▶ that slot's queue
                      at random, or by the client's address

By its address a client always comes to the same slot while the same slots accept: what is counted
by address is then counted in one place. Of IPv6 the first half counts, which is one client's.

A classic BPF program on the group (SO_ATTACH_REUSEPORT_CBPF, socket(7)) returns an index into the
sockets that listen, in the order in which they began to; when one stops, the last moves into its
place (reuseport_add_sock, reuseport_detach_sock in net/core/sock_reuseport.c). An index too large
falls back to the hash, so a program that is out of date for a moment loses nobody.
"""

import ctypes
import socket
import struct

_SO_ATTACH_REUSEPORT_CBPF, _SO_DETACH_REUSEPORT_BPF = 51, 68  # asm-generic/socket.h
_LOAD_RANDOM = struct.pack("HBBI", 0x20, 0, 0, 0xFFFFF000 + 56)  # ld [SKF_AD_OFF + SKF_AD_RANDOM]
# Not the packet's hash: a network card may not have made one, and then it is always 0.
_NET = 0xFFF00000  # SKF_NET_OFF: counted from the IP header on
_SCATTER = 0x9E3779B1  # Knuth's multiplier; the high half of the product is what is scattered best
_LOAD_SOURCE = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, _NET),  # ldb [0]: the version is in its high half
        (0x74, 0, 0, 4),  # rsh #4
        (0x15, 0, 6, 6),  # jeq #6, next, over six
        (0x20, 0, 0, _NET + 8),  # ld [8]
        (0x24, 0, 0, _SCATTER),  # mul
        (0x07, 0, 0, 0),  # tax
        (0x20, 0, 0, _NET + 12),  # ld [12]
        (0xAC, 0, 0, 0),  # xor x
        (0x05, 0, 0, 1),  # ja over one
        (0x20, 0, 0, _NET + 12),  # IPv4: ld [12]
        (0x24, 0, 0, _SCATTER),  # mul
        (0x74, 0, 0, 16),  # rsh #16
    )
)
MAX_STEERED = 2_000  # two instructions each, of the 4,096 a program may have (BPF_MAXINSNS)


def listens(sock: socket.socket) -> bool:
    """Whether connections can arrive at the socket."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def attach(sock: socket.socket, indices: list[int], *, by_source: bool = False) -> None:
    """Give new connections to these members of the group of a socket that listens."""
    code = _LOAD_SOURCE if by_source else _LOAD_RANDOM
    code += struct.pack("HBBI", 0x94, 0, 0, len(indices))  # mod #n
    for place, index in enumerate(indices):
        code += struct.pack("HBBI", 0x15, 0, 1, place)  # jeq #place, next, over it
        code += struct.pack("HBBI", 0x06, 0, 0, index)  # ret #index
    code += struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF)
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, program)


def detach(sock: socket.socket) -> None:
    """Let the kernel spread new connections over the whole group again."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


class Group:
    """The sockets of one address by slot, in the kernel's order as far as that is known."""

    def __init__(self, order: list[int] | None = None) -> None:
        """Know the order of those that listen; None: nobody does, so there is no steering."""
        self.order = order
        self.by_source = False
        """Whether a client's address says where it comes to."""
        self._attached: tuple[bool, list[int]] = (False, [])

    def began(self, slot: int) -> None:
        """Note that a slot's socket listens from now on."""
        if self.order is not None:
            self.order.append(slot)

    def steer(self, sockets: dict[int, socket.socket], allowed: set[int]) -> None:
        """Give new connections to the allowed slots, or to all when that makes no difference.

        Args:
            sockets: every socket of the group, by slot.
            allowed: the slots where somebody accepts.
        """
        self._forget_closed(sockets)
        order = self.order or []
        indices = [i for i, slot in enumerate(order) if slot in allowed]
        listening = [sock for sock in sockets.values() if listens(sock)]
        if len(indices) in {0, len(order)} or len(indices) > MAX_STEERED:
            # All are as good as another: in which order they are does not matter then.
            indices = list(range(len(listening))) if self.by_source else []
        if (self.by_source, indices) == self._attached:
            return
        if listening:
            if indices:
                attach(listening[0], indices, by_source=self.by_source)
            else:
                detach(listening[0])
        self._attached = self.by_source, indices

    def _forget_closed(self, sockets: dict[int, socket.socket]) -> None:
        """Repeat what the kernel did when members stopped, if it could only be one thing."""
        open_slots = {slot for slot, sock in sockets.items() if listens(sock)}
        if len(open_slots) <= 1:
            self.order = sorted(open_slots)
        if self.order is None:
            return
        gone = [slot for slot in self.order if slot not in open_slots]
        if len(gone) > 1 or len(open_slots) > len(self.order) - len(gone):
            self.order = None
        elif gone:
            place = self.order.index(gone[0])
            last = self.order.pop()
            if place < len(self.order):
                self.order[place] = last
