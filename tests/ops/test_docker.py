"""The container files agree with each other and with the repository; no engine is needed."""

import re
from pathlib import Path

from aegis.config_backend import servers_of
from aegis.config_file import load_config

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "ops" / "docker"
COMPOSE = (DIRECTORY / "docker-compose.yml").read_text()
DOCKERFILE = (DIRECTORY / "Dockerfile").read_text()


def test_the_configuration_is_valid_and_names_the_address_that_the_compose_file_gives() -> None:
    config = load_config(DIRECTORY / "aegis.toml")
    ((server,),) = [servers_of(backend.servers) for backend in config.backends]
    host, _, port = server.address.rpartition(":")
    assert f"ipv4_address: {host}}}" in COMPOSE
    assert f'"0.0.0.0:{port}"' in DOCKERFILE
    for bind in [config.metrics.bind, *(listener.bind for listener in config.listeners)]:
        port = bind.rpartition(":")[2]
        assert f'"127.0.0.1:{port}:{port}"' in COMPOSE, "published, and on loopback only"
        assert port in re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)[-1].split()


def test_every_mounted_and_copied_path_exists() -> None:
    mounted = re.findall(r"- (\.[^:]*):/", COMPOSE)
    assert len(mounted) >= 6
    assert [path for path in mounted if not (DIRECTORY / path).exists()] == []
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    paths = {path for line in copied for path in line.split()}
    assert [path for path in paths if not (ROOT / path).exists()] == []
    kept = (DIRECTORY / "Dockerfile.dockerignore").read_text().splitlines()
    assert [path for path in paths if f"!{path.split('/')[0]}" not in kept] == []


def test_nothing_runs_as_root_and_everything_published_is_on_loopback() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    last = [stage for stage in stages if "\nCMD " in stage]
    assert len(last) == 2
    assert all("\nUSER 10081:10081\n" in stage and "\nHEALTHCHECK " in stage for stage in last)
    published = re.findall(r'"([\d.:]+:\d+)"', COMPOSE.partition("networks:\n  proxy:\n")[0])
    assert len(published) == 5
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_scraped_target_is_the_service_and_its_port() -> None:
    port = load_config(DIRECTORY / "aegis.toml").metrics.bind.rpartition(":")[2]
    assert (DIRECTORY / "targets.yml").read_text() == f'- targets: ["aegis:{port}"]\n'
    assert "\n  aegis:\n" in COMPOSE
