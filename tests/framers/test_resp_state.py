"""What resp remembers of a client: its setup, its name, and what pins it."""

import pytest

from aegis.framers.contract import NO_SETUP, Setup, Special, Verdict
from aegis.framers.resp_requests import RespRequests
from aegis.framers.resp_state import MAX_NAME_BYTES, MAX_SETUP_BYTES, encode
from tests.framers.test_resp_vectors import RESP, follow, frames_of

OK = b"+OK\r\n"


class Client:
    """Sends one request at a time."""

    def __init__(self) -> None:
        self.requests = RespRequests()

    def send(self, *words: bytes) -> Special | None:
        data = bytearray(encode(*words))
        stop, replies, special = self.requests.scan(data, 0, len(data))
        assert (stop, replies) == ((len(data), 1) if special is None else (0, 0))
        assert special is None or special.end == len(data)
        return special

    def verdict(self, line: bytes) -> str:
        special = self.send(*line.split())
        return "SHARE" if special is None else special.verdict.name

    def reply(self, *words: bytes) -> bytes:
        special = self.send(*words)
        assert special is not None
        assert special.verdict is Verdict.ANSWER
        return special.reply

    @property
    def pinned(self) -> str:
        return self.requests.pinned

    @property
    def setup(self) -> Setup:
        return self.requests.setup


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize("end", [b"EXEC", b"discard"])
def test_a_transaction_pins_until_it_ends(client: Client, end: bytes) -> None:
    assert client.verdict(b"WATCH k") == "PIN"
    assert client.pinned == "watch"
    assert client.verdict(b"MULTI") == "PIN"
    for line in (b"GET k", b"UNWATCH", end + b" x"):
        assert client.verdict(line) == "SHARE"
        assert client.pinned == "multi"
    assert client.verdict(end) == "SHARE"
    assert client.pinned == ""


def test_unwatch_ends_watch_and_exec_without_multi_does_not(client: Client) -> None:
    client.send(b"WATCH", b"k")
    assert client.verdict(b"EXEC") == "SHARE"
    assert client.verdict(b"UNWATCH x") == "SHARE"
    assert client.pinned == "watch"
    assert client.verdict(b"UNWATCH") == "SHARE"
    assert client.pinned == ""


def test_a_whole_transaction_in_one_packet_is_one_pin_and_a_run(client: Client) -> None:
    queued = encode(b"SET", b"k", b"v") + encode(b"EXEC") + encode(b"GET", b"k")
    assert frames_of(RESP, encode(b"MULTI") + queued) == [
        ("PIN", encode(b"MULTI"), "multi", b"", 1),
        ("SHARE", queued, 3),
    ]


def test_asking_pins_for_one_more_request(client: Client) -> None:
    assert client.verdict(b"ASKING") == "PIN"
    assert client.pinned == "asking"
    assert client.verdict(b"GET k") == "SHARE"
    assert client.pinned == ""
    stream = encode(b"GET", b"k") * 2
    assert frames_of(RESP, encode(b"ASKING") + stream)[1] == ("SHARE", stream, 2)


def test_asking_pins_through_an_empty_request_and_a_followed_one(client: Client) -> None:
    client.send(b"ASKING")
    data = bytearray(b"\r\n")
    assert client.requests.scan(data, 0, 2) == (2, 0, None)
    assert client.pinned == "asking"
    data = bytearray(encode(b"SET", b"k", b"v" * 1000))
    assert client.requests.follow(data, 0, len(data)) == (len(data), True)
    assert client.pinned == ""


def test_readonly_pins_until_readwrite_whatever_else_ends(client: Client) -> None:
    for line in (b"READONLY", b"WATCH k", b"MULTI"):
        assert client.verdict(line) == "PIN"
    client.send(b"EXEC")
    assert client.pinned == "readonly"
    assert client.verdict(b"READWRITE") == "SHARE"
    assert client.pinned == ""


def test_blocking_pins_for_its_own_reply_only(client: Client) -> None:
    special = client.send(b"BLPOP", b"k", b"0")
    assert special is not None
    assert (special.verdict, special.replies) == (Verdict.PIN, 1)
    assert client.pinned == ""


def test_select_switches_and_back_to_none(client: Client) -> None:
    assert client.verdict(b"SELECT 3") == "SWITCH"
    assert client.setup == (encode(b"SELECT", b"3"), 1)
    assert client.verdict(b"SELECT 3") == "SHARE"
    assert client.verdict(b"SELECT 0") == "SWITCH"
    assert client.requests.setup is NO_SETUP


def test_equal_states_reached_on_different_ways_have_equal_setups() -> None:
    one, other = Client(), Client()
    for line in (b"AUTH bob pw", b"HELLO 3", b"SELECT 2"):
        assert one.verdict(line) == "SWITCH"
    for line in (b"SELECT 2", b"SELECT 5", b"HELLO 3 SETNAME me AUTH bob pw", b"SELECT 2"):
        assert other.verdict(line) == "SWITCH"
    script = encode(b"AUTH", b"bob", b"pw") + encode(b"HELLO", b"3") + encode(b"SELECT", b"2")
    assert one.setup == other.setup == (script, 3)
    assert other.reply(b"CLIENT", b"GETNAME") == b"$2\r\nme\r\n"
    assert one.verdict(b"HELLO 2") == "SWITCH"
    assert one.verdict(b"HELLO 2 SETNAME x") == "SHARE"


@pytest.mark.parametrize("line", [b"SELECT x", b"SELECT -1", b"SELECT +1", b"SELECT 01"])
def test_a_select_that_redis_refuses_is_answered_and_changes_nothing(
    client: Client, line: bytes
) -> None:
    assert client.reply(*line.split()).startswith(b"-ERR ")
    assert client.requests.setup is NO_SETUP


@pytest.mark.parametrize(
    "line",
    [
        b"HELLO x",
        b"HELLO 4",
        b"HELLO 1",
        b"HELLO 3 AUTH bob",
        b"HELLO 3 AUTH bob pw NONSENSE",
        b"HELLO 3 SETNAME",
        b"HELLO 3 SETNAME \xff",
        b"HELLO 3 AUTH a b AUTH c d",
        b"HELLO 3 SETNAME " + b"x" * (MAX_NAME_BYTES + 1),
    ],
)
def test_a_wrong_hello_is_answered_and_never_half_carried_out(client: Client, line: bytes) -> None:
    assert client.reply(*line.split()).startswith(b"-")
    assert client.requests.setup is NO_SETUP
    assert client.reply(b"CLIENT", b"GETNAME") == b"$-1\r\n"


def test_names_are_kept_and_checked(client: Client) -> None:
    assert client.reply(b"client", b"getname") == b"$-1\r\n"
    assert client.reply(b"CLIENT", b"SETNAME", b"me") == OK
    assert client.reply(b"CLIENT", b"SETNAME", b"a b").startswith(b"-ERR Client names")
    assert client.reply(b"CLIENT", b"SETNAME", b"x" * (MAX_NAME_BYTES + 1)).startswith(b"-ERR ")
    assert client.reply(b"CLIENT", b"GETNAME") == b"$2\r\nme\r\n"
    assert client.reply(b"CLIENT", b"SETNAME", b"") == OK
    client.send(b"HELLO", b"3")
    assert client.reply(b"CLIENT", b"GETNAME") == b"_\r\n"
    for line in (b"CLIENT SETNAME", b"CLIENT SETNAME a b", b"CLIENT GETNAME x"):
        assert client.verdict(line) == "SHARE"  # the server says what is wrong


def test_set_info_is_checked(client: Client) -> None:
    assert client.reply(b"CLIENT", b"SETINFO", b"lib-ver", b"1.0") == OK
    assert client.reply(b"CLIENT", b"SETINFO", b"LIB-NAME", b"") == OK
    reply = client.reply(b"CLIENT", b"SETINFO", b"lib-\r\n", b"x")
    assert reply == b"-ERR Unrecognized option 'lib-??'\r\n"
    assert client.reply(b"CLIENT", b"SETINFO", b"lib-name", b"a b").startswith(b"-ERR lib-name")
    assert client.verdict(b"CLIENT SETINFO lib-name") == "SHARE"


def test_reset_forgets_everything(client: Client) -> None:
    for line in (b"HELLO 3 SETNAME me", b"SELECT 2"):
        client.verdict(line)
    assert client.verdict(b"RESET x") == "SHARE"
    assert client.setup.replies == 2
    assert client.reply(b"RESET") == b"+RESET\r\n"
    assert client.setup is NO_SETUP
    assert client.reply(b"CLIENT", b"GETNAME") == b"$-1\r\n"


@pytest.mark.parametrize("line", [b"MULTI", b"WATCH k", b"READONLY"])
def test_reset_while_pinned_is_the_server_s_to_do(client: Client, line: bytes) -> None:
    client.send(*line.split())
    assert client.verdict(b"RESET") == "TUNNEL"


@pytest.mark.parametrize(
    "line",
    [b"SELECT 1", b"AUTH x", b"HELLO 3", b"CLIENT SETNAME x", b"CLIENT GETNAME", b"SELECT 0"],
)
def test_what_a_transaction_would_do_later_or_never_ends_in_a_tunnel(
    client: Client, line: bytes
) -> None:
    client.send(b"MULTI")
    assert client.verdict(line) == "TUNNEL"
    assert client.requests.setup is NO_SETUP


def test_a_switch_while_pinned_ends_in_a_tunnel(client: Client) -> None:
    client.send(b"WATCH", b"k")
    assert client.verdict(b"SELECT 0") == "SHARE"
    assert client.verdict(b"CLIENT SETNAME x") == "ANSWER"
    assert client.verdict(b"SELECT 1") == "TUNNEL"


def test_wait_is_not_answered_for_others_writes(client: Client) -> None:
    assert client.reply(b"WAIT", b"1", b"0").startswith(b"-ERR aegis: WAIT ")
    assert client.reply(b"WAITAOF", b"1", b"0", b"0").startswith(b"-ERR aegis: WAIT ")
    client.send(b"MULTI")
    assert client.verdict(b"WAIT 1 0") == "SHARE"


def test_credentials_have_a_limit(client: Client) -> None:
    assert client.verdict(b"AUTH " + b"x" * (MAX_SETUP_BYTES - 100)) == "SWITCH"
    kept = client.setup
    assert client.verdict(b"AUTH " + b"x" * MAX_SETUP_BYTES) == "REFUSE"
    assert client.setup == kept
    assert client.verdict(b"AUTH a b c") == "SHARE"


def test_quit_is_answered_and_ends_the_client_even_in_a_transaction(client: Client) -> None:
    client.send(b"MULTI")
    special = client.send(b"QUIT")
    assert special is not None
    assert (special.verdict, special.reply) == (Verdict.REFUSE, OK)


def test_errors_are_one_line_whatever_they_say() -> None:
    assert RESP.error("no\r\nserver\n") == b"-ERR aegis: no server\r\n"
    assert RESP.ping == b"*1\r\n$4\r\nPING\r\n"
    assert RESP.reset == (b"*1\r\n$5\r\nRESET\r\n", 1)
    assert follow(RESP, RESP.ping, ()) == len(RESP.ping)
