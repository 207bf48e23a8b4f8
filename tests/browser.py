"""Headless Chromium, steered over its DevTools protocol on a pair of pipes.

--remote-debugging-pipe reads commands on fd 3 and writes answers and events on fd 4, as JSON that
ends with a zero byte (content/browser/devtools/devtools_pipe_handler.cc), so no client library and
no port are needed. Methods: https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import contextlib
import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from tests.harness import DEADLINE_S
from tests.proxy import needs

START_S = 60.0
"""A browser takes long to start on a busy machine."""


class Page:
    """The browser's only tab that anybody looks at."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._id = 0
        self._session: str | None = None
        self.requests: list[str] = []
        """Every URL that was asked for, in order, but for those that hold their own data."""
        self.problems: list[str] = []
        """What the console was told, uncaught exceptions and violations of the policy included."""

    def open(self) -> None:
        """Make the tab; nothing has been loaded."""
        target = self.call("Target.createTarget", START_S, url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def visit(self, url: str) -> None:
        """Load a document; its scripts may not have run yet."""
        answer = self.call("Page.navigate", START_S, url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"

    def call(self, method: str, deadline_s: float = DEADLINE_S, **parameters: Any) -> Any:
        """Call a method and return its result."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        give_up = monotonic() + deadline_s
        while True:
            answer = self._receive(give_up, method)
            if answer.get("id") == self._id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression in the page; waits for a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show(self, width: int, height: int, theme: str = "dark") -> None:
        """Set the window's size in CSS pixels and what the system prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        media = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", features=media)

    def press(self, key: str) -> None:
        """Press and release a key."""
        # Without its character Enter activates nothing.
        text: dict[str, Any] = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def screenshot(self) -> bytes:
        """Return a PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def wait(self, condition: str, what: str, deadline_s: float = DEADLINE_S) -> Any:
        """Return the first true value of an expression in the page, which may still be loading."""
        give_up = monotonic() + deadline_s
        attempt = f"(() => {{ try {{ return {condition} }} catch {{ return false }} }})()"
        while not (value := self.evaluate(attempt)):
            assert monotonic() < give_up, f"not within {deadline_s:g} s: {what}; {self.problems}"
            select.select([], [], [], 0.05)
        return value

    def _receive(self, give_up: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left = give_up - monotonic()
            ready = left > 0 and select.select([self._answers], [], [], left)[0]
            assert ready, f"no answer from the browser to {what}"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        self._note(answer)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        match event.get("method"):
            case "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                self.requests += [] if url.startswith("data:") else [url]
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(parameters["args"]))
            case "Log.entryAdded":
                self.problems.append(json.dumps(parameters["entry"]))


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """Run the browser with an empty profile; gives its tab."""
    (program,) = needs("chromium")
    with contextlib.ExitStack() as own:
        profile = own.enter_context(
            TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        )
        log = own.enter_context((Path(profile) / "log").open("wb"))
        ours, theirs = os.pipe(), os.pipe()
        options = [
            "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-extensions",
            "--proxy-server=127.0.0.1:9", "--proxy-bypass-list=<-loopback>;127.0.0.1",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        child = subprocess.Popen(
            ["bash", "-c", f'exec 3<&{ours[0]} 4>&{theirs[1]}; exec "$@"', "bash",
             program, *options],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            pass_fds=[ours[0], theirs[1]], start_new_session=True,
        )  # fmt: skip
        own.callback(_end, child)
        os.close(ours[0])
        os.close(theirs[1])
        own.callback(os.close, ours[1])
        own.callback(os.close, theirs[0])

        page = Page(ours[1], theirs[0])
        page.open()
        yield page


def _end(child: "subprocess.Popen[bytes]") -> None:
    # Its helpers are in its process group and would outlive it for a moment.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, 9)
    child.wait()
