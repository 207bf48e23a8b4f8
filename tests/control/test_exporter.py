"""The exporter as a process: real HTTP, real ZeroMQ, real signals, real workers."""

import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import msgspec
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from aegis import bus
from aegis.config_file import load_config
from aegis.messages import SeatFigures, Supervision
from aegis.metrics import CATALOGUE
from aegis.runtime import living
from tests.control.exporters import FRONT, Exporter, Place, made_place
from tests.control.test_exporter_state import worker_figures
from tests.harness import DEADLINE_S, Rig, receive, receive_all, wait_until

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def place() -> Iterator[Place]:
    with made_place() as place:
        yield place


# --- metrics ---------------------------------------------------------------------------------


def test_what_a_worker_pushes_is_on_the_page(place: Place) -> None:
    exporter = place.serving()
    bus.send(place.push_socket(), worker_figures(1, accepted=5))
    exporter.await_accepted(5)
    series = exporter.series()
    assert series["aegis_sessions_active", FRONT] == 1
    assert series["aegis_received_bytes_total", (("from", "server"), *FRONT)] == 9
    assert ("aegis_build_info", (("version", "0.1.0"),)) in series


def test_a_real_workers_sessions_are_counted(place: Place) -> None:
    exporter = place.serving()
    rig = Rig(place.directory)
    try:
        upstream = rig.upstream()
        proxy = rig.proxy(upstream.address, telemetry=False)
        for _ in range(3):
            client, server = proxy.pair(upstream)
            client.sendall(b"question")
            receive(server, 8)
            server.close()
            receive_all(client)
            client.close()
        exporter.await_accepted(3)
        assert exporter.ask("/healthz").text == exporter.ask("/readyz").text == "ok\n"
        rig.finish()
        exporter.await_accepted(3)
        closed = "aegis_sessions_closed_total"
        series = exporter.series()
        assert sum(v for (name, _), v in series.items() if name == closed) == 3
        assert ("aegis_sessions_active", FRONT) not in series
        assert exporter.ask("/readyz").text == "the last worker has stopped\n"
    finally:
        rig.close()


def test_counters_are_where_they_were_after_the_exporter_was_killed(place: Place) -> None:
    exporter = place.serving()
    workers = {pid: place.push_socket() for pid in (1, 2)}
    for pid, sock in workers.items():
        bus.send(sock, worker_figures(pid, accepted=pid * 100))
    exporter.await_accepted(300)
    exporter.end(signal.SIGKILL)
    for pid, sock in workers.items():  # nobody is there; that is not the workers' trouble
        assert bus.send(sock, worker_figures(pid, accepted=pid * 100 + 1))
    with socket.create_connection(("127.0.0.1", place.port), DEADLINE_S) as early:
        early.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")  # the socket outlives the exporter
        place.start()
        page = receive_all(early).decode()
    assert 'aegis_sessions_total{listener="front",worker="0"} 302.0' in page


def test_messages_that_make_no_sense_are_counted_and_ignored(place: Place) -> None:
    exporter = place.serving()
    sock = place.push_socket()
    for nonsense in (b"", b"\xc1", msgspec.msgpack.encode({"type": "gossip"})):
        sock.send(nonsense)
    bus.send(sock, worker_figures(1, accepted=5))
    exporter.await_accepted(5)
    ignored = (("socket", "telemetry"), ("why", "malformed"))
    assert exporter.series()["aegis_bus_ignored_total", ignored] == 3


def test_an_exporter_whose_socket_file_was_removed_can_be_found_again(place: Place) -> None:
    exporter = place.serving()
    old = place.push_socket()
    bus.send(old, worker_figures(1, accepted=5))
    exporter.await_accepted(5)
    (place.directory / "telemetry.ipc").unlink()  # as a controller does that starts or ends
    bus.send(place.push_socket(), worker_figures(2, accepted=10))
    exporter.await_accepted(15)
    bus.send(old, worker_figures(1, accepted=6))
    exporter.await_accepted(16)


def test_the_pages_tell_whether_clients_are_welcome(place: Place) -> None:
    exporter = place.serving()
    assert exporter.ask("/healthz").status == exporter.ask("/readyz").status == 503
    assert exporter.ask("/healthz").text.startswith("no worker heard in the ")
    sock = place.push_socket()
    bus.send(sock, worker_figures(1))
    wait_until(lambda: exporter.ask("/readyz").status == 200, "readiness")
    assert exporter.ask("/healthz").text == "ok\n"
    bus.send(sock, Supervision("draining", 2, [SeatFigures(0, "running", 0)]))
    wait_until(lambda: exporter.ask("/readyz").status == 503, "a drain that shows")
    assert exporter.ask("/readyz").text == "aegis is draining\n"


# --- HTTP ------------------------------------------------------------------------------------


def test_openmetrics_is_for_who_asks_for_it(place: Place) -> None:
    exporter = place.serving()
    plain = exporter.ask("/metrics")
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert plain.text.count("\n# TYPE ") == len(CATALOGUE)
    asked = exporter.ask("/metrics", headers={"Accept": f"{OPENMETRICS}; version=1.0.0"})
    assert asked.headers["Content-Type"].startswith(f"{OPENMETRICS}; version=1.0.0")
    parse: Callable[[str], Iterable[object]] = openmetrics.text_string_to_metric_families
    assert len(list(parse(asked.text))) == len(CATALOGUE)
    nonsense = exporter.ask("/metrics", headers={"Accept": f"{OPENMETRICS}; version=new"})
    assert (nonsense.status, nonsense.headers["Content-Type"]) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
    )


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/nowhere"])
def test_head_is_get_without_the_body(place: Place, path: str) -> None:
    exporter = place.serving()
    get, head = exporter.ask(path), exporter.ask(path, "HEAD")
    with socket.create_connection(("127.0.0.1", place.port), DEADLINE_S) as raw:
        raw.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        assert receive_all(raw).endswith(b"\r\n\r\n")
    assert head.status == get.status
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(get.headers["Content-Length"]) == len(get.text.encode())
    if path != "/healthz":  # which tells the time
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


def test_whoever_wants_to_write_is_told_that_it_is_not_allowed(place: Place) -> None:
    exporter = place.serving()
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        answer = exporter.ask("/metrics", method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD"), method
    assert exporter.ask("/", "PUT", headers={"Content-Length": "-1"}).status == 405


def test_whoever_sends_a_body_gets_to_the_answer(place: Place) -> None:
    place.serving()
    with socket.socket() as client:
        client.settimeout(DEADLINE_S)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.connect(("127.0.0.1", place.port))
        body = b"x" * 1_000_000
        client.sendall(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
        client.sendall(body)
        assert b" 405 " in receive_all(client)


def test_the_first_page_names_the_others(place: Place) -> None:
    exporter = place.serving()
    page = exporter.ask("/")
    assert page.status == 200
    assert all(name in page.text for name in ("/metrics", "/healthz", "/readyz"))
    assert exporter.ask("/nowhere").status == 404


def test_a_hundred_slow_scrapers_keep_nobody_from_being_answered(place: Place) -> None:
    exporter = place.serving()
    bus.send(place.push_socket(), worker_figures(1, accepted=5))
    exporter.await_accepted(5)
    with ExitStack() as slow:
        scrapers = []
        for _ in range(100):
            scraper = socket.create_connection(("127.0.0.1", place.port), DEADLINE_S)
            slow.enter_context(scraper)
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
            scrapers.append(scraper)
        assert exporter.accepted() == 5
        bus.send(place.push_socket(), worker_figures(1, accepted=6))
        exporter.await_accepted(6)
        for scraper in scrapers:  # they were slow, not wrong
            scraper.sendall(b"here\r\n\r\n")
        for scraper in scrapers:
            assert b"aegis_sessions_total{" in receive_all(scraper)
    assert exporter.end() == 0


# --- start and end ---------------------------------------------------------------------------


@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(
    place: Place, number: signal.Signals, supervised: bool
) -> None:
    exporter = place.serving(supervised=supervised)
    assert exporter.ask("/").status == 200
    (claim,) = living(place.directory)
    assert (claim.role, claim.pid, claim.supervised) == ("exporter", exporter.child.pid, supervised)
    assert exporter.end(number) == 0
    assert not list(place.directory.glob("*.pid"))
    assert not list(place.directory.glob("*.ipc"))
    assert "Traceback" not in exporter.stderr()


def test_it_makes_the_runtime_directory_when_it_is_first(place: Place) -> None:
    place.directory = place.directory / "run"
    exporter = place.serving(supervised=False)
    assert place.directory.stat().st_mode & 0o777 == 0o700
    assert exporter.ask("/").status == 200


def test_a_second_exporter_of_the_same_directory_says_so_and_fails(place: Place) -> None:
    first = place.serving()
    second = place.start()
    assert second.child.wait(DEADLINE_S) == 1
    pid = first.child.pid
    said = f"aegis-exporter: another exporter (pid {pid}) runs in {place.directory}\n"
    assert second.stderr() == said
    assert first.ask("/").status == 200


def test_a_port_in_use_is_one_plain_line(place: Place) -> None:
    place.serving(supervised=False)
    place.directory = place.directory / "another"
    place.directory.mkdir(0o700)
    config = ["--config", str(place.config)]
    second = place.own(Exporter(place.directory, place.port, config))
    assert second.child.wait(DEADLINE_S) == 1
    where = f"127.0.0.1:{place.port}"
    said = f"aegis-exporter: metrics: cannot bind {where}: the address is in use by another process"
    assert second.stderr() == said + "\n"
    assert not list(place.directory.glob("*.pid"))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--fd", "99"], "aegis-exporter: --fd 99: Bad file descriptor\n"),
        (["--fd", "0"], "aegis-exporter: --fd 0: Socket operation on non-socket\n"),
        (["--config", "/nowhere.toml"], "aegis-exporter: /nowhere.toml: cannot be read: No such"),
    ],
)
def test_what_keeps_it_from_starting_is_one_plain_line(
    place: Place, arguments: list[str], why: str
) -> None:
    told = load_config(place.config)
    exporter = place.own(Exporter(place.directory, place.port, arguments, told=told))
    assert exporter.child.wait(DEADLINE_S) == 1
    assert exporter.stderr().startswith(why)
    assert exporter.stderr().count("\n") == 1
