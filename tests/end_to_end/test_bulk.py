"""Bytes in bulk through a whole proxy; AEGIS_FULL=1 moves 2 GB each way instead of 32 MB."""

import contextlib
import socket
from time import monotonic

import pytest

from tests.end_to_end.streams import BLOCK, address_of, exchange, listen
from tests.harness import wait_until
from tests.proxy import FULL, Aegis, Proxies, sockaddr

EACH_WAY = 2_000_000_000 if FULL else 32_000_000
KERNEL_BUFFERS = 32_000_000
"""More than the kernel holds on the way: twice tcp_wmem and tcp_rmem, 4 and 6 MB by default."""
DEADLINE_S = 500.0 if FULL else 60.0


def settled(aegis: Aegis) -> None:
    """Everything that was borrowed or opened has been given back."""

    def all_is_back() -> bool:
        workers = aegis.workers()
        return not sum(w.sessions for w in workers) and not sum(w.slabs_used for w in workers)

    wait_until(all_is_back, "no session and no slab is left")


@pytest.mark.timeout(DEADLINE_S + 60)
@pytest.mark.parametrize("connections", [1, 50, 1000])
def test_random_bytes_both_ways_at_once_arrive_as_they_were(
    proxies: Proxies, connections: int
) -> None:
    server = listen(proxies.own)
    aegis = proxies.started(address_of(server))
    total = exchange(
        server,
        aegis.address,
        connections=connections,
        size=EACH_WAY // connections,
        deadline_s=DEADLINE_S,
    )
    print(total)
    settled(aegis)


@pytest.mark.parametrize(("slab_bytes", "slabs"), [(64, 2), (512, 4)])
@pytest.mark.parametrize("connections", [1, 50])
def test_so_they_do_with_tiny_slabs(
    proxies: Proxies, connections: int, slab_bytes: int, slabs: int
) -> None:
    server = listen(proxies.own)
    aegis = proxies.started(address_of(server), slab_bytes=slab_bytes, slabs=slabs)
    print(
        exchange(
            server,
            aegis.address,
            connections=connections,
            size=400_000 // connections,
            deadline_s=60,
        )
    )
    settled(aegis)


def test_a_slow_reader_holds_nobody_up_but_itself(proxies: Proxies) -> None:
    """It takes 1 KB a second, from a server that never stops sending."""
    server = listen(proxies.own)
    aegis = proxies.started(address_of(server), slabs=4)
    slow = proxies.own.enter_context(socket.socket())
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.settimeout(DEADLINE_S)
    slow.connect(sockaddr(aegis.address))
    flooding = proxies.own.enter_context(server.accept()[0])
    flooding.setblocking(False)
    began = monotonic()
    sent, heard, last = 0, bytearray(), began

    def meanwhile() -> None:
        nonlocal sent, last
        with contextlib.suppress(BlockingIOError):
            sent += flooding.send(memoryview(BLOCK)[sent % len(BLOCK) :][:65536])
        if monotonic() - began > len(heard) / 1000:
            heard.extend(slow.recv(1024))
            last = monotonic()

    total = exchange(
        server,
        aegis.address,
        connections=50,
        size=EACH_WAY // 50,
        deadline_s=DEADLINE_S,
        meanwhile=meanwhile,
    )
    print(f"{total}; the slow reader took {len(heard)} bytes meanwhile, {sent} were sent to it")
    while len(heard) < 4000:
        heard.extend(slow.recv(1024))
    assert bytes(heard) == BLOCK[: len(heard)]
    assert sent < KERNEL_BUFFERS, "the server is not held back"
    assert sum(worker.slabs_used for worker in aegis.workers()) <= 1
