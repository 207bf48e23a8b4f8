"""The protocols this version speaks, and for each the poolings a listener may ask of it.

The design's words for pooling are `off`, `warm`, `session` and `multiplex`. A protocol stands here
when its framer does, with the poolings that are built and safe for it, and nothing sooner.
"""

POOLINGS: dict[str, tuple[str, ...]] = {
    "raw": ("off",),
    "line": ("off", "session", "multiplex"),
    "resp": ("off", "session", "multiplex"),
    "memcached": ("off", "session", "multiplex"),
    "http1": ("off", "multiplex"),
}
