"""The protocols this version speaks, and for each the poolings a listener may ask of it.

The design's words for pooling are `off`, `warm`, `session` and `multiplex`. A protocol stands here
when its framer does, with the poolings that are built and safe for it, and nothing sooner.
Framers that other packages bring are in entry_points.py; they support what they say of these.
"""

POOLINGS: dict[str, tuple[str, ...]] = {
    "raw": ("off", "warm"),
    "line": ("off", "warm", "session", "multiplex"),
    "resp": ("off", "warm", "session", "multiplex"),
    "memcached": ("off", "warm", "session", "multiplex"),
    "http1": ("off", "warm", "session", "multiplex"),
}

BUILT_POOLINGS: tuple[str, ...] = tuple(
    sorted({pooling for poolings in POOLINGS.values() for pooling in poolings})
)
