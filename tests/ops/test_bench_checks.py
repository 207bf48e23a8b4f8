"""What the loads say, and that a request that failed is never counted as one that was served."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ops.bench import ab_load, bulk, cpu, large_values, open_loop, redis_load, resp
from ops.bench.failure import MeasurementError
from ops.bench.open_loop import ANSWER, OpenLoop
from ops.bench.resp import Counts

CSV_HEAD = (
    '"test","rps","avg_latency_ms","min_latency_ms",'
    '"p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"\n'
)
CSV = CSV_HEAD + '"GET bench","45045.04","1.446","0.352","1.407","2.207","2.447","3.831"\n'

AB = """\
This is ApacheBench, Version 2.3 <$Revision: 1 $>
Document Path:          /
Document Length:        137 bytes

Concurrency Level:      200
Time taken for tests:   4.5 seconds
Complete requests:      50000
Failed requests:        0
Keep-Alive requests:    50000
Total transferred:      9900000 bytes
Requests per second:    11100.50 [#/sec] (mean)
Time per request:       18.017 [ms] (mean)

Percentage of the requests served within a certain time (ms)
  50%     17
  66%     18
  99%     31
 100%     45 (longest request)
"""


def test_figures_of_redis_benchmark_are_read() -> None:
    (test,) = redis_load.parse(CSV)
    assert test == redis_load.Test("GET bench", 45045.04, 1.407, 2.447, 3.831)


@pytest.mark.parametrize(
    "text",
    [
        "Error from server: WRONGTYPE\n" + CSV,
        '"test","rps"\n"GET","12.0"\n',
        CSV_HEAD + '"GET","nan?","1","1","1","1","1","1"\n',
    ],
)
def test_what_is_no_result_of_redis_benchmark_is_refused(text: str) -> None:
    with pytest.raises(MeasurementError, match="redis-benchmark"):
        redis_load.parse(text)


SIZE = redis_load.Size(requests=1_000, clients=10)


def counted(**changes: int) -> Counts:
    """What a server counts when a run of SIZE and its opening went well, but for some changes."""
    counts = Counts({"calls.get": 1_010, "calls.set": 1_010, "hits": 1_010})
    counts.update({name.replace("_", "."): value for name, value in changes.items()})
    return counts


def test_a_run_whose_requests_the_server_has_counted_is_good() -> None:
    redis_load.check(Counts(), counted(), SIZE)
    redis_load.check(Counts(), counted(calls_get=1_020), SIZE)  # a pipeline that overshot


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"calls_get": 999}, "has had 999 get"),
        ({"calls_set": 2_020}, "has had 2020 set"),
        ({"failed_set": 1}, "1 of 1010 set failed"),
        ({"hits": 1_009}, "1009 of 1010 GET found"),
    ],
)
def test_requests_that_are_lost_doubled_failed_or_empty_are_detected(
    changes: dict[str, int], why: str
) -> None:
    with pytest.raises(MeasurementError, match=why):
        redis_load.check(Counts(), counted(**changes), SIZE)


AB_SIZE = ab_load.Size(50_000, 200, keep_alive=True)


def test_figures_of_ab_are_read() -> None:
    output = ab_load.parse(AB)
    assert (output.rate, output.complete, output.failed) == (11100.5, 50_000, 0)
    assert (output.p50_ms, output.p99_ms, output.max_ms) == (17, 31, 45)
    ab_load.check(output, AB_SIZE, 137)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("Failed requests:        0", "Failed requests:        3", "3 of 50000 requests failed"),
        ("Failed requests: ", "Write errors:  2\nFailed requests: ", "2 of 50000"),
        ("Keep-Alive req", "Non-2xx responses:      7\nKeep-Alive req", "7 of 50000"),
        ("Complete requests:      50000", "Complete requests:      49999", "49999 of 50000"),
        ("Length:        137", "Length:        21", "pages of 21 bytes"),
        ("Keep-Alive requests:    50000", "Keep-Alive requests:    100", "kept connections"),
    ],
)
def test_failures_that_ab_tells_of_are_detected(old: str, new: str, why: str) -> None:
    assert old in AB
    with pytest.raises(MeasurementError, match=why):
        ab_load.check(ab_load.parse(AB.replace(old, new)), AB_SIZE, 137)


def test_ab_that_ended_early_is_detected() -> None:
    with pytest.raises(MeasurementError, match="Requests per second"):
        ab_load.parse("apr_socket_recv: Connection reset by peer (104)\n")


@contextlib.contextmanager
def answering(*turns: bytes | None) -> Iterator[int]:
    """Serve one connection: each time something comes, send the next; None closes. Gives the port.

    It ends when the client does.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError), listener.accept()[0] as sock:
                for turn in turns:
                    if not sock.recv(65_536) or turn is None:
                        return
                    sock.sendall(turn)
                while sock.recv(65_536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            thread.join()


def open_loop_against(*turns: bytes | None) -> OpenLoop:
    with answering(*turns) as port:
        (sock,) = open_loop.connect(port, 1)
        with sock:
            loop = OpenLoop([sock], rate=1_000.0, total=3)
            loop.run()
        return loop


WARMED = (ANSWER,) * open_loop.WARM_UP


def test_an_open_loop_counts_each_request_from_when_it_was_due() -> None:
    """The server answers all three only when the third has come: the first has waited longest."""
    with answering(*WARMED) as port:
        (sock,) = open_loop.connect(port, 1)
        with sock:
            loop = OpenLoop([sock], rate=100.0, total=3)
            loop.lags.extend([0.0] * 3)
            for due in (1.0, 2.0, 3.0):
                loop._due[0].append(due)
            near, far = socket.socketpair()
            with near, far:
                near.setblocking(False)
                loop._socks[0] = near
                far.sendall(ANSWER * 3)
                loop._receive(0)
    first, second, third = loop.latencies
    assert first - second == pytest.approx(1.0)
    assert second - third == pytest.approx(1.0)


def test_an_open_loop_has_a_latency_and_a_lag_for_each_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def echo_answers() -> None:
            with listener.accept()[0] as sock:
                while data := sock.recv(65_536):
                    sock.sendall(ANSWER * data.count(open_loop.REQUEST))

        thread = threading.Thread(target=echo_answers)
        thread.start()
        (sock,) = open_loop.connect(listener.getsockname()[1], 1)
        with sock:
            loop = OpenLoop([sock], rate=1_000.0, total=20)
            loop.run()
        thread.join()
    assert len(loop.latencies) == len(loop.lags) == 20
    assert all(lag >= 0 for lag in loop.lags)
    assert all(latency > 0 for latency in loop.latencies)


@pytest.mark.parametrize(
    ("turn", "why"),
    [
        (b"-ERR no\r\n", "answered with b'-ERR no"),
        (b"$3\r\nabc\r\n", "answered with"),
        (ANSWER * 50, "nobody had asked for"),
    ],
)
def test_an_open_loop_detects_wrong_answers(turn: bytes, why: str) -> None:
    with pytest.raises(MeasurementError, match=why):
        open_loop_against(*WARMED, turn)


def test_an_open_loop_detects_a_connection_that_is_closed() -> None:
    with pytest.raises((MeasurementError, ConnectionError)):
        open_loop_against(*WARMED, None)


def test_an_open_loop_detects_answers_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_loop, "GRACE_S", 0.05)
    with pytest.raises(MeasurementError, match="3 of 3 requests had no answer"):
        open_loop_against(*WARMED)


def bulk_down(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"go")
        stream = bulk._Down(sock, 10)
        sock.settimeout(20)
        while stream.step() is not None:
            pass


def bulk_up(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(b"go")
        stream = bulk._Up(sock, 0, bulk._Source())
        sock.settimeout(20)
        stream.step()


def large_value(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        large_values.fetch(sock, bytearray(1 << 20))


@pytest.mark.parametrize(
    ("load", "turn", "why"),
    [
        (bulk_down, b"x" * 11, "1 bytes too many"),
        (bulk_up, bytes(7) + b"\x01", "not received what was sent"),
        (large_value, b"-ERR too large, not on a shared pipe\r\n", "began with b'-ERR"),
    ],
)
def test_bulk_that_is_not_what_was_asked_for_is_detected(
    load: Callable[[int], None], turn: bytes, why: str
) -> None:
    with answering(turn) as port, pytest.raises(MeasurementError, match=why):
        load(port)


def test_an_error_reply_of_the_server_is_no_value() -> None:
    with answering(b"-ERR unknown\r\n") as port, pytest.raises(MeasurementError, match="GET"):
        resp.ask(port, b"GET", b"key")


def test_cpu_time_is_the_sum_of_its_parts_and_a_dead_process_is_detected() -> None:
    before = {1: cpu._Reading(10.0, 100, 300), 2: cpu._Reading(5.0, 0, 0)}
    after = {1: cpu._Reading(11.0, 130, 310), 2: cpu._Reading(5.6, 0, 0)}
    spent = cpu.spent(before, after)
    assert spent.total_s == pytest.approx(1.6)
    assert spent.user_share == pytest.approx(0.75)
    assert cpu.spent(before, before) == cpu.Cpu(0.0, 0.0)
    with pytest.raises(MeasurementError, match="ended during"):
        cpu.read((2**22 + 1,))
