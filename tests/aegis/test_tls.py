"""Contexts are made of files, or the error names the file and what is wrong with it."""

import ssl
import subprocess
from pathlib import Path

import pytest

from aegis.config_tls import BackendTls, ListenerTls
from aegis.errors import AegisError
from aegis.tls import client_context, fingerprint, server_context
from tests.certificates import Authority
from tests.proxy import needs


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_a_context_that_can_be_made_is_strict(authority: Authority) -> None:
    pair = authority.issue("db.example.org")
    conf = ListenerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.root)
    context = server_context(conf)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    assert context.options & ssl.OP_NO_RENEGOTIATION
    server = client_context(BackendTls(ca=authority.root, min_version="1.3"))
    assert server.minimum_version == ssl.TLSVersion.TLSv1_3
    assert (server.verify_mode, server.check_hostname) == (ssl.CERT_REQUIRED, True)
    unverified = client_context(BackendTls(verify=False))
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


def test_a_pair_that_is_none_says_which_file_is_wrong(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("a.example"), authority.issue("b.example")
    junk, missing = tmp_path / "junk.pem", tmp_path / "missing.pem"
    junk.write_text("hello\n")
    for certificate, key, words in (
        (good.certificate, other.key, f"{other.key}: not the key of the certificate in"),
        (str(junk), good.key, f"{junk}: no certificates in PEM format"),
        (good.key, good.key, f"{good.key}: no certificates in PEM format"),
        (good.certificate, str(junk), f"{junk}: no private key in PEM format"),
        (str(missing), good.key, f"{missing}: No such file or directory"),
        (good.certificate, str(missing), f"{missing}: No such file or directory"),
        (good.certificate, str(tmp_path), f"{tmp_path}: Is a directory"),
    ):
        with pytest.raises(AegisError) as caught:
            server_context(ListenerTls(certificate=certificate, key=key))
        assert str(caught.value).startswith(words)
        with pytest.raises(AegisError, match=words):
            client_context(BackendTls(certificate=certificate, key=key))


def test_roots_that_are_none_say_so(authority: Authority, tmp_path: Path) -> None:
    good = authority.issue("a.example")
    with pytest.raises(AegisError, match=f"{good.key}: no certificates"):
        server_context(ListenerTls(certificate=good.certificate, key=good.key, client_ca=good.key))
    with pytest.raises(AegisError, match="missing: No such file"):
        client_context(BackendTls(ca=str(tmp_path / "missing")))


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(
    authority: Authority, tmp_path: Path
) -> None:
    (openssl,) = needs("openssl")
    pair = authority.issue("a.example")
    key = tmp_path / "encrypted.key"
    subprocess.run(
        [openssl, "pkey", "-in", pair.key, "-aes256", "-passout", "pass:secret", "-out", key],
        check=True,
    )
    with pytest.raises(AegisError, match=f"{key}: the key is encrypted"):
        server_context(ListenerTls(certificate=pair.certificate, key=str(key)))


def test_a_fingerprint_changes_with_what_a_file_holds_and_with_nothing_else(
    authority: Authority,
) -> None:
    pair = authority.issue("a.example")
    listener = ListenerTls(certificate=pair.certificate, key=pair.key)
    backend = BackendTls(ca=authority.root)
    before = fingerprint([listener, backend])
    assert before == fingerprint([backend, listener, listener])
    assert before != fingerprint([listener])
    authority.renew(pair, "a.example")
    assert before != fingerprint([listener, backend])
    Path(pair.key).unlink()
    with pytest.raises(AegisError, match=pair.key):
        fingerprint([listener])
