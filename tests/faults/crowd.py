"""Many seats with one checked client after another on each; alone, or a process of its own.

    python -m tests.faults.crowd < Task (one line of JSON)     figures every second, accounts last

Closing its standard input ends it before its time.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import Any

from tests.faults.accounts import MAX_FOUND, Accounts
from tests.faults.asks import Talk
from tests.faults.client import Client
from tests.faults.http1_talk import Http1Talk
from tests.faults.line_talk import LineTalk
from tests.faults.memcached_talk import MemcachedTalk
from tests.faults.poller import READ, Poller
from tests.faults.resp_talk import RespTalk

TALKS: dict[str, type[Talk]] = {
    "resp": RespTalk,
    "memcached": MemcachedTalk,
    "line": LineTalk,
    "http1": Http1Talk,
}
SWEEP_S = 0.5
ROOT = Path(__file__).parents[2]


class Crowd:
    """Clients on seats; a seat that is left is taken by the next client until it is over."""

    def __init__(
        self,
        poller: Poller,
        accounts: Accounts,
        address: tuple[str, int],
        *,
        protocol: str,
        requests: float,
        seconds: float,
        seed: Any,
        numbers: Iterable[int],
        big_bytes: int = 200_000,
        only: frozenset[str] = frozenset(),
    ) -> None:
        """Begin at once; `numbers` are the seats', `requests` ends it, and so do `seconds`."""
        self.poller = poller
        self.accounts = accounts
        self._address = address
        self._talk = TALKS[protocol]
        self._requests = requests
        self._give_up = monotonic() + seconds
        self._big_bytes = big_bytes
        self._only = only
        self._stopped = False
        self._turns: dict[int, int] = {}  # seat → clients it has had
        self._rngs = {number: random.Random(f"{seed}:{number}") for number in numbers}
        self._clients: dict[int, Client] = {}
        self._resting = 0
        for number in self._rngs:
            self._sit(number)
        poller.later(SWEEP_S, self._sweep)

    def over(self) -> bool:
        """Whether no more is to be asked."""
        accounts = self.accounts
        if accounts.answered >= self._requests or len(accounts.found) > MAX_FOUND:
            return True
        return self._stopped or self.poller.now > self._give_up

    def stop(self) -> None:
        """Let no more be asked."""
        self._stopped = True

    @property
    def ended(self) -> bool:
        """Whether every client has left."""
        return not self._clients and not self._resting

    def _sit(self, number: int) -> None:
        turn = self._turns[number] = self._turns.get(number, 0) + 1
        rng = self._rngs[number]
        talk = self._talk(b"c%d-%d" % (number, turn), rng, self._big_bytes, self._only)

        def parted(client: Client) -> None:
            self._clients.pop(number, None)
            self._resting += 1
            # The server may be gone: as clients do, try again in a moment.
            self.poller.later(rng.uniform(0.01, 0.1) if client.broken else 0.0, sit_again)

        def sit_again() -> None:
            self._resting -= 1
            if not self.over():
                self._sit(number)

        client = Client(self.accounts, self.poller, talk, rng, over=self.over, parted=parted)
        self._clients[number] = client
        client.begin(self._address)

    def _sweep(self) -> None:
        for client in list(self._clients.values()):
            client.expire()
        if not self.ended:
            self.poller.later(SWEEP_S, self._sweep)


class OtherCrowd:
    """A crowd in a process of its own."""

    def __init__(self, poller: Poller, accounts: Accounts, task: dict[str, Any]) -> None:
        self.poller = poller
        self.accounts = accounts
        self.asked = self.answered = 0
        self.ended = False
        self._line = bytearray()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crowd"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        self._stdin.write(json.dumps(task).encode() + b"\n")
        self._stdin.flush()
        poller.add(self._stdout.fileno(), READ, self._told)

    def _told(self, mask: int) -> None:
        data = os.read(self._stdout.fileno(), 1 << 20)
        self._line += data
        while (stop := self._line.find(b"\n")) >= 0:
            said = json.loads(self._line[:stop])
            del self._line[: stop + 1]
            if isinstance(said, dict):
                self.accounts.add(said)
            else:
                self.asked, self.answered = said
        if not data:
            self.close()

    def stop(self) -> None:
        """Let no more be asked."""
        self._stdin.close()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            self.poller.remove(self._stdout.fileno())
            self._stdin.close()
            self._stdout.close()
            self._child.kill()
            if self._child.wait() > 0:
                self.accounts.wrong("a process with clients has failed")


def main() -> None:
    """Be one process of a larger crowd."""
    task = json.loads(sys.stdin.readline())
    address, only = tuple(task.pop("address")), frozenset(task.pop("only"))
    poller, accounts = Poller(), Accounts()
    crowd = Crowd(poller, accounts, address, only=only, **task)

    def told(mask: int) -> None:
        poller.remove(0)
        crowd.stop()

    poller.add(0, READ, told)
    told_at = 0.0
    while not crowd.ended:
        poller.turn()
        if poller.now > told_at + 1:
            told_at = poller.now
            print(json.dumps([accounts.asked, accounts.answered]), flush=True)
    print(accounts.dump(), flush=True)


if __name__ == "__main__":
    main()
