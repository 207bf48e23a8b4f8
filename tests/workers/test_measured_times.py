"""What a worker measures of time: the server's first byte, and waits for a connection.

Bounds are exact, not tolerant: a worker's clock and the test's are one, so what is measured lies
between two instants of the test's own.
"""

import signal
import socket
from time import monotonic

import pytest

from aegis.figures import Histogram
from tests.faults.scripted import expect, sharing, words
from tests.harness import Proxy, Rig, receive, receive_all, wait_until


def observed(histogram: Histogram) -> int:
    return sum(histogram.buckets)


def first_bytes(proxy: Proxy) -> Histogram:
    return proxy.figures().servers[0].first_byte_seconds


def ask_after_thinking(client: socket.socket, server: socket.socket) -> tuple[float, float]:
    """Let time pass at either end; returns the least and the most the server can have taken."""
    begun = monotonic()
    wait_until(lambda: monotonic() > begun + 0.3, "a client that thinks")
    asked = monotonic()
    client.sendall(b"question")
    assert receive(server, 8) == b"question"
    heard = monotonic()
    wait_until(lambda: monotonic() > heard + 0.2, "a server that thinks")
    answers = monotonic()
    server.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    return answers - heard, monotonic() - asked


@pytest.mark.parametrize(
    ("pooling", "pool_min"), [("off", 0), ("warm", 1)], ids=["dialled", "opened ahead"]
)
def test_a_first_byte_is_waited_for_from_what_the_client_said_last(
    pooling: str, pool_min: int, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(
        upstream.address, listener={"pooling": pooling}, backend={"pool_min": pool_min}
    )
    client, server = proxy.pair(upstream)
    least, most = ask_after_thinking(client, server)
    first = first_bytes(proxy)
    assert observed(first) == 1
    assert least <= first.sum_s <= most
    server.sendall(b"further bytes are not the first")
    assert receive(client, 31)
    assert first_bytes(proxy) == first


def test_where_the_server_speaks_first_it_is_waited_for_from_the_connect(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    begun = monotonic()
    client, server = proxy.pair(upstream)
    proxy.figures_when(lambda f: f.servers[0].connects == 1, "the worker has connected")
    connected = monotonic()
    wait_until(lambda: monotonic() > connected + 0.2, "a server that thinks")
    greets = monotonic()
    server.sendall(b"greeting")
    assert receive(client, 8) == b"greeting"
    first = first_bytes(proxy)
    assert observed(first) == 1
    assert greets - connected <= first.sum_s <= monotonic() - begun


def test_an_end_without_a_byte_before_it_is_no_first_byte(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = rig.proxy(upstream.address)
    client, server = proxy.pair(upstream)
    server.close()
    assert receive_all(client) == b""
    client.close()
    proxy.closed_for("server_eof")
    assert observed(first_bytes(proxy)) == 0


def test_requests_on_pipes_and_what_follows_in_a_tunnel_have_no_first_byte_but_reply_times(
    rig: Rig,
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream)
    client = proxy.connect()
    client.sendall(words("GET", "a") * 3)
    server = upstream.accept()
    expect(server, words("GET", "a") * 3)
    pool = proxy.figures_when(lambda f: bool(f.pools[0].in_flight), "requests in flight").pools[0]
    assert (pool.in_flight, list(pool.reply_seconds)) == (3, [upstream.address])
    server.sendall(b"$1\r\nA\r\n" * 3)
    expect(client, b"$1\r\nA\r\n" * 3)
    client.sendall(words("SUBSCRIBE", "c"))
    expect(server, words("SUBSCRIBE", "c"))
    server.sendall(b"+said in the tunnel\r\n")
    expect(client, b"+said in the tunnel\r\n")
    figures = proxy.figures()
    assert figures.pools[0].in_flight == 0
    assert observed(figures.pools[0].reply_seconds[upstream.address]) == 3
    assert observed(figures.servers[0].first_byte_seconds) == 0


@pytest.mark.parametrize("pooling", ["off", "session"])
def test_a_wait_for_a_connection_is_seen_while_it_lasts_and_counted_when_it_is_over(
    pooling: str, rig: Rig
) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "line", upstream, pooling=pooling, backend={"queue_timeout_s": 60.0})
    begun = monotonic()  # times are as of a turn's beginning: it may be one that has begun by now
    client = proxy.connect()
    client.sendall(b"first\n")
    server = upstream.accept()
    expect(server, b"first\n")
    other = proxy.connect()
    other.sendall(b"second\n")
    figures = proxy.figures_when(lambda f: f.backends[0].waiting == 1, "a client that waits")
    earlier = figures.backends[0].wait_seconds  # the first client waited for its pipe to be opened
    assert observed(earlier) == (pooling == "session")
    seen = monotonic()
    wait_until(lambda: monotonic() > seen + 0.2, "a wait that can be told from none")
    before = monotonic()
    figures = proxy.figures()
    assert before - seen <= figures.backends[0].longest_wait_s <= monotonic() - begun
    assert figures.backends[0].wait_seconds == earlier
    server.sendall(b"done\n")
    expect(client, b"done\n")
    client.close()
    if pooling == "off":
        assert receive_all(server) == b""
        server.close()
        server = upstream.accept()
    expect(server, b"second\n")
    backend = proxy.figures().backends[0]
    assert (backend.waiting, backend.longest_wait_s) == (0, 0.0)
    assert observed(backend.wait_seconds) == observed(earlier) + 1
    waited_s = backend.wait_seconds.sum_s - earlier.sum_s
    assert before - seen <= waited_s <= monotonic() - begun


def test_a_reply_that_does_not_come_is_told_by_its_age(rig: Rig) -> None:
    upstream = rig.upstream()
    proxy = sharing(rig, "resp", upstream, backend={"max_connections": 2})
    client, other = proxy.connect(), proxy.connect()
    begun = monotonic()
    client.sendall(words("GET", "a"))
    server = upstream.accept()
    expect(server, words("GET", "a"))
    sent = monotonic()
    wait_until(lambda: monotonic() > sent + 0.3, "a server that thinks")
    asked = monotonic()
    (due_s,) = proxy.figures().pools[0].oldest_s.values()
    assert asked - sent <= due_s <= monotonic() - begun
    server.sendall(b"+A\r\n")
    expect(client, b"+A\r\n")
    other.sendall(words("BLPOP", "list", "0"))  # has a pipe alone, and waits on purpose
    expect(server, words("BLPOP", "list", "0"))
    assert set(proxy.figures().pools[0].oldest_s.values()) <= {0.0}


def test_a_core_that_was_taken_away_is_a_late_timer(rig: Rig) -> None:
    proxy = rig.proxy(rig.upstream().address)
    begun = monotonic()
    proxy.worker.freeze()
    wait_until(lambda: monotonic() > begun + 1.0, "somebody else's second")
    proxy.worker.signal(signal.SIGCONT)
    wait_until(lambda: proxy.bus.next_telemetry().longest_turn_s > 0.7, "it is told")
