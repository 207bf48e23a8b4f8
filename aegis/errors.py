"""The errors Aegis raises on purpose; the text of each is what the user reads."""


class AegisError(Exception):
    """Base of all errors that end a command with exit code 1 and its text, without a traceback."""


class ConfigError(AegisError):
    """A configuration that cannot be used; `problems` lists every reason, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class BusError(AegisError):
    """No answer, or an answer that makes no sense, from the process at the other end of the bus."""
