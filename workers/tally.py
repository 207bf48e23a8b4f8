"""The bytes of one session, for who wants to know them of each and not only of all together."""

from typing import Any


class Tally(list[int]):
    """[from client, from server] of one session; whatever is added is added to the whole too."""

    __slots__ = ("_whole",)

    def __init__(self, whole: list[int]) -> None:
        super().__init__([0, 0])
        self._whole = whole

    def __setitem__(self, way: Any, count: Any) -> None:
        self._whole[way] += count - self[way]
        super().__setitem__(way, count)
