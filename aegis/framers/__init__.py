"""The protocols this version speaks, and for each the poolings a listener may ask of it.

The design's words for pooling are `off`, `warm`, `session` and `multiplex`. A protocol stands here
when its framer does, with the poolings that are built and safe for it, and nothing sooner.
"""

POOLINGS: dict[str, tuple[str, ...]] = {
    "raw": ("off", "warm"),
    "line": ("off", "warm", "session", "multiplex"),
    "resp": ("off", "warm", "session", "multiplex"),
    "memcached": ("off", "warm", "session", "multiplex"),
    "http1": ("off", "warm", "multiplex"),
}
