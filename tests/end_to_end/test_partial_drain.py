"""Drains of one listener and one server, the lame duck, and closes spread over time."""

from time import monotonic
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from aegis.messages import Drain, Reload
from tests.end_to_end.echo import Echo, Load, works
from tests.harness import wait_until
from tests.proxy import Aegis, Proxies, connect, refuses, reserve


def with_a_side(proxies: Proxies, echo: Echo) -> tuple[Aegis, str]:
    aegis = proxies.new()
    side = reserve(proxies.own, "tcp4", aegis.directory)
    binds = {"front": aegis.address, "side": side}
    aegis.configure(echo.address, listeners={name: {"bind": bind} for name, bind in binds.items()})
    aegis.start()
    return aegis, side


def test_a_listener_is_drained_alone_and_serves_again(proxies: Proxies, echo: Echo) -> None:
    aegis, side = with_a_side(proxies, echo)
    with connect(side) as staying, Load(aegis.address) as load:
        assert works(staying)
        draining = aegis.ctl_in_background("drain", "--listener", "side")
        wait_until(lambda: refuses(side), "new ones are refused")
        assert works(staying)
        staying.close()
        assert draining.communicate(timeout=30)[0] == "side is drained\n"
        assert [row.drained for row in aegis.status().listeners] == [False, True]
        aegis.ask(Reload(force=True))
        wait_until(lambda: len(aegis.pids()) == 2 and len(aegis.workers()) == 2, "successors")
        assert refuses(side), "a successor does not open what is drained"
        aegis.done("start", "--listener", "side")
        with connect(side) as client:
            assert works(client)
    assert load.broken == []
    assert [a for a in load.attempts if a.refused] == []


def test_what_a_drained_listener_still_has_at_the_deadline_is_cut_and_listed(
    proxies: Proxies, echo: Echo
) -> None:
    aegis, side = with_a_side(proxies, echo)
    with connect(side) as client, connect(aegis.address) as other:
        assert works(client)
        assert works(other)
        host, port = client.getsockname()
        aegis.done("drain", "--listener", "side", "--timeout", "0.5")
        assert not works(client)
        assert works(other)
    cuts = [cut for worker in aegis.workers() for cut in worker.cuts]
    assert [(c.listener, c.client, c.server) for c in cuts] == [
        ("side", f"{host}:{port}", echo.address)
    ]
    assert f"{host}:{port} -> side" in aegis.log()


def test_a_drained_server_gets_nobody_new_and_lets_the_others_finish(
    proxies: Proxies, echo: Echo
) -> None:
    second = proxies.own.enter_context(Echo())
    aegis = proxies.started(echo.address, second.address)
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(8)]
    assert all(works(client) for client in clients)
    aegis.ask(Drain(None, server=f"db/{echo.address}"))
    wait_until(lambda: aegis.status().backends[0].servers[0].drained, "it is drained")
    wait_until(lambda: {w.epoch for w in aegis.workers()} == {aegis.status().epoch}, "all know")
    before = aegis.status().backends[0].servers[0].connects_total
    for _ in range(10):
        with connect(aegis.address) as client:
            assert works(client)
    assert all(works(client) for client in clients)
    assert aegis.status().backends[0].servers[0].connects_total == before
    aegis.done("drain", "--server", f"db/{echo.address}", "--timeout", "0.2")
    assert sum(works(client) for client in clients) < 8, "the deadline has cut its sessions"
    aegis.done("start", "--server", f"db/{echo.address}")
    assert not aegis.status().backends[0].servers[0].drained


def test_pipes_to_a_drained_server_go_and_their_clients_stay(proxies: Proxies, echo: Echo) -> None:
    second = proxies.own.enter_context(Echo())
    aegis = proxies.new(workers=1)
    front = {"bind": aegis.address, "protocol": "line", "pooling": "multiplex"}
    aegis.configure(echo.address, second.address, listeners={"front": front}, workers=1)
    aegis.start()
    with connect(aegis.address) as client:
        for address in (echo.address, second.address):
            client.sendall(b"one\n")
            assert client.recv(4) == b"one\n"
            aegis.done("drain", "--server", f"db/{address}")
            aegis.done("start", "--server", f"db/{address}")
        client.sendall(b"two\n")
        assert client.recv(4) == b"two\n"


def test_a_part_that_is_not_there_is_named_with_those_that_are(
    proxies: Proxies, echo: Echo
) -> None:
    aegis = proxies.started(echo.address)
    result = aegis.ctl("drain", "--listener", "sid")
    assert (result.returncode, result.stderr) == (
        1, 'aegis-ctl: no listener "sid"; known listeners: front\n',
    )  # fmt: skip
    result = aegis.ctl("drain", "--server", "db")
    assert result.returncode == 1
    assert f"known servers: db/{echo.address}" in result.stderr


def ready(aegis: Aegis) -> bool:
    try:
        with urlopen(f"http://{aegis.metrics}/readyz", timeout=20) as answer:
            return bool(answer.status == 200)
    except HTTPError as error:
        error.close()
        return False
    except URLError:  # the exporter is not there yet
        return False


def test_a_lame_duck_is_not_ready_and_still_accepts(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(echo.address, lame_duck_s=4)
    aegis.start("--detach")
    wait_until(lambda: ready(aegis), "it is ready")
    began = monotonic()
    aegis.ask(Drain(None))
    wait_until(lambda: not ready(aegis), "it is not ready any more")
    with connect(aegis.address) as client:
        assert works(client)
    wait_until(lambda: refuses(aegis.address), "then it refuses")
    assert monotonic() - began >= 4
    aegis.done("start")
    wait_until(lambda: ready(aegis), "it is ready again")
    aegis.ask(Drain(0.0))
    wait_until(lambda: aegis.status().phase == "drained", "a drain that cuts is no lame duck")


def test_idle_clients_are_closed_one_after_another(proxies: Proxies, echo: Echo) -> None:
    aegis = proxies.new(workers=1)
    front = {"bind": aegis.address, "protocol": "line", "pooling": "multiplex"}
    aegis.configure(
        echo.address, listeners={"front": front}, workers=1, close_spread_s=3, drain_timeout_s=60
    )
    aegis.start()
    clients = [proxies.own.enter_context(connect(aegis.address)) for _ in range(30)]
    for client in clients:
        client.sendall(b"ping")
        client.sendall(b"\n")
        assert client.recv(5) == b"ping\n"
    left: list[int] = []
    aegis.ask(Drain(None))

    def empty() -> bool:
        left.append(aegis.status().listeners[0].sessions)
        return not left[-1]

    wait_until(empty, "all have been closed")
    assert [client.recv(1) for client in clients] == [b""] * 30
    assert any(0 < count < 30 for count in left), f"all at once: {left}"
    assert sum(worker.cut for worker in aegis.workers()) == 0
