"""CURVE keys in files: what is made, and which files are used."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from aegis.curve import make_keys, own_pair, public_key
from aegis.errors import AegisError


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    directory = tmp_path / "curve"
    assert make_keys(directory) == ["proxy", "exporter", "operator"]
    return directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_made_once_and_for_their_owner_alone(keys: Path) -> None:
    before = {path.name: path.read_bytes() for path in keys.iterdir()}
    assert len(before) == 6
    assert mode(keys) == 0o700
    assert {mode(path) for path in keys.iterdir()} == {0o600}
    assert make_keys(keys) == []
    assert {path.name: path.read_bytes() for path in keys.iterdir()} == before


def test_a_pair_fits_and_each_role_has_its_own(keys: Path) -> None:
    pairs = [own_pair(keys, name) for name in ("proxy", "exporter", "operator")]
    assert all(zmq.curve_public(secret) == public for public, secret in pairs)
    assert len({secret for _, secret in pairs}) == 3
    assert public_key(keys / "proxy.key") == pairs[0][0]


def test_there_may_be_several_operators(keys: Path) -> None:
    assert make_keys(keys, "alice") == ["operator-alice"]
    assert public_key(keys / "operator-alice.key") != public_key(keys / "operator.key")
    for name in ("../proxy", "a b", "a.b"):
        with pytest.raises(AegisError, match="letters, digits, _ and - are allowed"):
            make_keys(keys, name)


def test_keys_are_not_made_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AegisError, match="mode 0777 lets others"):
        make_keys(tmp_path)
    assert list(tmp_path.iterdir()) == []


SECRET = "proxy.key_secret"


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def harm(keys: Path) -> None:
        (keys / SECRET).write_bytes(change((keys / SECRET).read_bytes()))

    return harm


def with_the_key_of_another(data: bytes) -> bytes:
    public = data.partition(b'public-key = "')[2][:40]
    return data.replace(public, zmq.curve_keypair()[0])


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda keys: (keys / SECRET).unlink(), "No such file or directory; `aegis-ctl keys`"),
        (lambda keys: (keys / SECRET).chmod(0o640), "mode 0640 lets others read it"),
        (lambda keys: (keys / SECRET).chmod(0o604), "mode 0604 lets others read it"),
        (lambda keys: keys.chmod(0o770), "mode 0770 lets others"),
        (rewritten(lambda _: b""), "not a CURVE key"),
        (rewritten(lambda _: b"\xff" * 1000), "not a CURVE key"),
        (rewritten(lambda data: data.replace(b"secret-key", b"sacred-key")), "not a secret key"),
        (rewritten(lambda data: data.replace(b'secret-key = "', b'secret-key = "~')), "not a sec"),
        (rewritten(lambda data: data.replace(b'public-key = "', b'public-key = "~')), "not a CUR"),
        (rewritten(lambda data: data.replace(b'public-key = "', b'public-key = "#####')), "not a"),
        (rewritten(with_the_key_of_another), "not a secret key with its public key"),
    ],
)
def test_a_secret_that_is_unfit_or_no_secret_is_refused(
    keys: Path, harm: Callable[[Path], None], why: str
) -> None:
    harm(keys)
    with pytest.raises(AegisError, match=why):
        own_pair(keys, "proxy")


def test_a_public_key_that_others_may_replace_is_refused(keys: Path) -> None:
    path = keys / "proxy.key"
    path.chmod(0o644)
    assert public_key(path)
    path.chmod(0o664)
    with pytest.raises(AegisError, match="mode 0664 lets others"):
        public_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_somebody_else_is_refused(keys: Path) -> None:
    os.chown(keys / SECRET, 65534, -1)
    with pytest.raises(AegisError, match="owned by uid 65534, not by us or root"):
        own_pair(keys, "proxy")
