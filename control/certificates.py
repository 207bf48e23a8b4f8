"""Certificates and keys that the configuration names: looked at before anything goes by them.

start, reload ─▶ examine ─▶ fingerprint ─▶ Desired, Boot ─▶ workers/certificates.py
└ a file is not what it should be: nothing changes
"""

import logging

from aegis.config import Config
from aegis.errors import AegisError
from aegis.tls import client_context, fingerprint, server_context

log = logging.getLogger(__name__)


def examine(config: Config, *, served: bool = False) -> str:
    """Return a fingerprint of what the files hold, all of which can be used; empty without any.

    Args:
        config: names them.
        served: workers go by them already: then an error is only logged, and nothing returned.

    Raises:
        AegisError: a file cannot be read or is not what it should be; says which and why.
    """
    of_listeners = [each.tls for each in config.listeners if each.tls is not None]
    of_backends = [each.tls for each in config.backends if each.tls is not None]
    if not of_listeners and not of_backends:
        return ""
    try:
        before = fingerprint([*of_listeners, *of_backends])
        for listener_tls in of_listeners:
            server_context(listener_tls)
        for backend_tls in of_backends:
            client_context(backend_tls)
    except AegisError as error:
        if not served:
            raise
        log.error("certificates stay as they are: %s", error)
        return ""
    return before
