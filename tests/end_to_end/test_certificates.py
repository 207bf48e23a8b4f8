"""Certificates that are looked at before anything goes by them, and exchanged under way."""

import json
import socket
import ssl
from pathlib import Path

import pytest

from tests.certificates import Authority, Pair
from tests.end_to_end.echo import Echo, works
from tests.harness import DEADLINE_S
from tests.proxy import Aegis, Proxies, sockaddr


@pytest.fixture
def authority(proxies: Proxies) -> Authority:
    return Authority(proxies.directory)


def ending_tls(proxies: Proxies, echo: Echo, pair: Pair) -> Aegis:
    aegis = proxies.new()
    tls = {"certificate": pair.certificate, "key": pair.key}
    aegis.configure(echo.address, listeners={"front": {"bind": aegis.address, "tls": tls}})
    return aegis


def tls_client(aegis: Aegis, authority: Authority) -> ssl.SSLSocket:
    plain = socket.create_connection(sockaddr(aegis.address), DEADLINE_S)
    return authority.client_context().wrap_socket(plain, server_hostname="db.example.org")


def names(client: ssl.SSLSocket) -> list[str]:
    certificate = client.getpeercert()
    assert certificate is not None
    return [str(entry[1]) for entry in certificate["subjectAltName"]]


def test_a_reload_exchanges_certificates_and_drops_no_session(
    proxies: Proxies, echo: Echo, authority: Authority
) -> None:
    pair = authority.issue("db.example.org")
    aegis = ending_tls(proxies, echo, pair)
    aegis.start()
    pids = aegis.pids()
    old = [tls_client(aegis, authority) for _ in range(8)]
    assert all(works(client) for client in old)
    authority.renew(pair, "db.example.org", "new.example.org")
    aegis.done("reload")
    new = [tls_client(aegis, authority) for _ in range(8)]
    assert {tuple(names(client)) for client in new} == {("db.example.org", "new.example.org")}
    assert {tuple(names(client)) for client in old} == {("db.example.org",)}
    assert all(works(client) for client in old + new)
    assert aegis.pids() == pids, "nobody had to be replaced"
    for client in old + new:
        client.close()


def test_a_bad_pair_refuses_the_reload_and_says_why(
    proxies: Proxies, echo: Echo, authority: Authority
) -> None:
    pair, other = authority.issue("db.example.org"), authority.issue("db.example.org")
    aegis = ending_tls(proxies, echo, pair)
    aegis.start()
    good = Path(pair.key).read_bytes()
    with tls_client(aegis, authority) as client:
        for bad, why in (
            (Path(other.key).read_bytes(), f"{pair.key}: not the key of the certificate"),
            (b"nonsense", f"{pair.key}: no private key in PEM format"),
        ):
            Path(pair.key).write_bytes(bad)
            result = aegis.ctl("reload")
            assert result.returncode == 1
            assert why in result.stderr
            with tls_client(aegis, authority) as another:
                assert works(another)
        assert works(client)
    Path(pair.key).write_bytes(good)
    aegis.done("reload")


def test_nothing_is_started_with_a_certificate_that_is_missing(
    proxies: Proxies, echo: Echo, authority: Authority
) -> None:
    pair = authority.issue("db.example.org")
    aegis = ending_tls(proxies, echo, pair)
    Path(pair.certificate).unlink()
    result = aegis.ctl("start", "--detach", "--config", str(aegis.config_file), "--no-exporter")
    assert result.returncode == 1
    assert f"{pair.certificate}: No such file or directory" in result.stderr + aegis.log()
    assert not aegis.left_files()


def test_a_new_controller_goes_on_where_certificates_have_become_bad(
    proxies: Proxies, echo: Echo, authority: Authority
) -> None:
    """Whoever serves goes on; only new processes could not."""
    pair = authority.issue("db.example.org")
    aegis = ending_tls(proxies, echo, pair)
    aegis.start()
    with tls_client(aegis, authority) as client:
        good = Path(pair.key).read_bytes()
        Path(pair.key).write_bytes(b"nonsense")
        aegis.kill(aegis.controller)
        aegis.start()
        assert works(client)
        with tls_client(aegis, authority) as another:
            assert works(another)
        Path(pair.key).write_bytes(good)
        aegis.done("reload")
        assert json.loads(aegis.done("status", "--json"))["phase"] == "serving"
