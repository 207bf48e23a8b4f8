"""Server-sent events among browsers that are many, slow, silent or gone: real sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import msgspec
import pytest

from aegis import bus
from aegis.limits import MAX_STREAMS, STREAM_BUFFER_BYTES
from aegis.messages import SeatFigures, Supervision
from control.exporter.streams import Streams, limit_buffer
from tests.control.exporters import Exporter, Place, made_place
from tests.control.test_exporter_state import worker_figures
from tests.harness import DEADLINE_S, receive_all, wait_until

REQUEST = b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture
def place() -> Iterator[Place]:
    with made_place() as place:
        yield place


class Browser:
    """Reads a stream as an EventSource does."""

    def __init__(self, own: ExitStack, exporter: Exporter) -> None:
        self.sock = own.enter_context(
            socket.create_connection(("127.0.0.1", exporter.port), DEADLINE_S)
        )
        self.sock.sendall(REQUEST)
        self._file = own.enter_context(self.sock.makefile("rb"))
        self.status = int(self._file.readline().split()[1])
        self.headers = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.partition(b": ")
            self.headers[name.decode().lower()] = value.decode()

    def event(self) -> tuple[str, dict[str, object]]:
        """Wait for the next event; its name and its data."""
        name, data, end = (self._file.readline().rstrip(b"\n") for _ in range(3))
        assert (name[:7], data[:6], end) == (b"event: ", b"data: ", b"")
        return name[7:].decode(), msgspec.json.decode(data[6:])


@pytest.fixture
def own() -> Iterator[ExitStack]:
    with ExitStack() as own:
        yield own


def test_a_stream_begins_with_what_was_and_goes_on_with_what_is(
    place: Place, own: ExitStack
) -> None:
    exporter = place.serving()
    sock = place.push_socket()
    bus.send(sock, worker_figures(1, accepted=5))
    bus.send(sock, Supervision("serving", 4, [SeatFigures(0, "running", 0)]))
    exporter.await_accepted(5)
    browser = Browser(own, exporter)
    assert (browser.status, browser.headers["content-type"]) == (200, "text/event-stream")
    name, opening = browser.event()
    assert name == "opening"
    points = opening["points"]
    assert isinstance(points, list)
    assert len(points) >= 1
    before = points[-1][0]
    for _ in range(3):
        name, tick = browser.event()
        assert name == "tick"
        point = tick["point"]
        assert isinstance(point, list)
        assert point[0] > before
        before = point[0]
    again = Browser(own, exporter).event()[1]["points"]
    assert isinstance(again, list)
    assert again[: len(points)] == points, "a page that is loaded anew shows what was"
    assert before in [point[0] for point in again]


def test_events_reach_those_who_listen_and_those_who_come_later(
    place: Place, own: ExitStack
) -> None:
    exporter = place.serving()
    sock = place.push_socket()
    bus.send(sock, Supervision("serving", 4, [SeatFigures(0, "running", 0)]))
    browser = Browser(own, exporter)
    wait_until(lambda: '"phase": "serving"' in exporter.ask("/status.json").text, "the controller")
    bus.send(sock, Supervision("draining", 5, [SeatFigures(0, "running", 0)]))

    def texts(data: dict[str, object]) -> list[str]:
        events = data.get("events") or []
        assert isinstance(events, list)
        return [event["text"] for event in events]

    wait_until(lambda: "Aegis is draining" in texts(browser.event()[1]), "news of the drain")
    assert "Aegis is draining" in texts(Browser(own, exporter).event()[1])
    whole = msgspec.json.decode(exporter.ask("/status.json").text)
    assert (whole["phase"], whole["epoch"]) == ("draining", 5)
    assert "Aegis is draining" in texts(whole)


def test_one_page_too_many_is_told_so_and_there_is_room_when_one_has_left(
    place: Place, own: ExitStack
) -> None:
    exporter = place.serving()
    browsers = [Browser(own, exporter) for _ in range(MAX_STREAMS)]
    assert {browser.status for browser in browsers} == {200}
    assert Browser(own, exporter).status == 503
    assert exporter.ask("/metrics").status == 200
    for browser in browsers:
        assert browser.event()[0] == "opening"
    browsers[0].sock.shutdown(socket.SHUT_RDWR)
    wait_until(lambda: Browser(own, exporter).status == 200, "room for another page")
    assert browsers[1].event()[0] == "tick"


def test_a_hundred_slow_scrapers_and_all_streams_leave_room_for_another_scrape(
    place: Place, own: ExitStack
) -> None:
    exporter = place.serving()
    browsers = [Browser(own, exporter) for _ in range(MAX_STREAMS)]
    for _ in range(100):
        slow = own.enter_context(socket.create_connection(("127.0.0.1", place.port), DEADLINE_S))
        slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
    assert exporter.ask("/metrics").status == 200
    assert all(browser.event()[0] == "opening" for browser in browsers)
    assert all(browser.event()[0] == "tick" for browser in browsers)


def test_streams_end_with_the_exporter(place: Place, own: ExitStack) -> None:
    exporter = place.serving()
    browser = Browser(own, exporter)
    browser.event()
    before = monotonic()
    assert exporter.end() == 0
    assert monotonic() - before < DEADLINE_S / 2
    assert receive_all(browser.sock)[-2:] in {b"", b"\n\n"}
    assert "Traceback" not in exporter.stderr()


# --- Streams by itself -----------------------------------------------------------------------


def pair(own: ExitStack) -> tuple[socket.socket, socket.socket]:
    listener = own.enter_context(socket.create_server(("127.0.0.1", 0)))
    client = own.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(DEADLINE_S)
    client.connect(listener.getsockname())
    served, _ = listener.accept()
    limit_buffer(served)
    return client, served


def is_cut(sock: socket.socket) -> bool:
    try:
        return not sock.recv(65536)
    except ConnectionResetError:
        return True


def test_who_does_not_read_is_cut_and_costs_nobody_else_a_message(own: ExitStack) -> None:
    streams = Streams()
    (slow, at_slow), (quick, at_quick) = pair(own), pair(own)
    for sock in (at_slow, at_quick):
        assert streams.admit()
        streams.adopt(sock, seen=0)
    message = b"x" * 4096
    sent = 0
    while len(streams) == 2:
        streams.publish(message)
        sent += 1
        assert quick.recv(4096, socket.MSG_WAITALL) == message
        assert sent * len(message) < 8 * STREAM_BUFFER_BYTES, "it is never cut"
    streams.publish(b"still here")
    assert quick.recv(10, socket.MSG_WAITALL) == b"still here"
    wait_until(lambda: is_cut(slow), "the end of the slow one's connection")
    streams.close()
    assert len(streams) == 0


def test_what_was_published_while_the_beginning_was_read_is_made_up_for(own: ExitStack) -> None:
    streams = Streams()
    client, served = pair(own)
    streams.publish(b"one,")
    assert streams.admit()
    seen = streams.published
    streams.publish(b"two,")
    streams.publish(b"three,")
    streams.adopt(served, seen)
    streams.publish(b"four.")
    assert client.recv(15, socket.MSG_WAITALL) == b"two,three,four."
    streams.close()


def test_who_was_away_for_longer_than_is_remembered_must_come_again(own: ExitStack) -> None:
    streams = Streams(most=1)
    client, served = pair(own)
    assert streams.admit()
    assert not streams.admit()
    for _ in range(100):
        streams.publish(b"x")
    streams.adopt(served, seen=0)
    assert client.recv(1) == b""
    assert streams.admit(), "its place is free again"
    streams.leave()
    assert streams.admit()
