"""`nc -N`: who sends, half-closes and then wants the answer. The client most users try first."""

import contextlib
import hashlib
import random
import socket
import subprocess
import threading

import pytest

from tests.harness import (
    DEADLINE_S,
    KINDS,
    bound_socket,
    listening_address,
    receive_all,
    wait_until,
)
from tests.proxy import Proxies, needs

QUESTION = random.Random(7).randbytes(3_000_000)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_to_a_half_close_comes_back_whole(proxies: Proxies, kind: str) -> None:
    """The server answers only once it has seen the end, so the end must get through, and alone."""
    (nc,) = needs("nc")
    server = proxies.own.enter_context(bound_socket("tcp4", proxies.directory))
    server.settimeout(DEADLINE_S)
    server.listen()
    aegis = proxies.started(listening_address(server), kind=kind)
    answer = QUESTION[::-1]
    heard = []

    def serve() -> None:
        client = server.accept()[0]
        with client:
            client.settimeout(DEADLINE_S)
            heard.append(receive_all(client))
            client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    result = subprocess.run(
        [nc, "-N", *nc_address(aegis.address)], input=QUESTION, capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    thread.join(DEADLINE_S)
    assert result.returncode == 0, result.stderr
    assert heard == [QUESTION]
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(answer).digest()


def test_netcat_at_both_ends(proxies: Proxies) -> None:
    """One way only: with both ways at once two of them lose bytes without a proxy between, too."""
    (nc,) = needs("nc")
    path = proxies.directory / "nc.sock"
    aegis = proxies.started(f"unix:{path}")
    with contextlib.ExitStack() as own, (proxies.directory / "heard").open("wb") as heard:
        listening = own.enter_context(subprocess.Popen([nc, "-d", "-l", "-U", path], stdout=heard))
        own.callback(listening.kill)
        wait_until(path.exists, "it listens")
        asking = subprocess.run(
            [nc, "-N", *nc_address(aegis.address)], input=QUESTION, timeout=60, check=False
        )
        assert asking.returncode == 0
        assert listening.wait(DEADLINE_S) == 0
    assert (proxies.directory / "heard").read_bytes() == QUESTION


def nc_address(address: str) -> list[str]:
    if address.startswith("unix:"):
        return ["-U", address.removeprefix("unix:")]
    host, _, port = address.rpartition(":")
    return [host.strip("[]"), port]


def test_an_end_without_a_byte_is_an_end(proxies: Proxies) -> None:
    (nc,) = needs("nc")
    server = proxies.own.enter_context(socket.create_server(("127.0.0.1", 0)))
    server.settimeout(DEADLINE_S)
    aegis = proxies.started(listening_address(server))
    with subprocess.Popen(
        [nc, "-N", *nc_address(aegis.address)], stdin=subprocess.DEVNULL
    ) as child:
        with server.accept()[0] as client:
            client.settimeout(DEADLINE_S)
            assert client.recv(1) == b""
        assert child.wait(DEADLINE_S) == 0
