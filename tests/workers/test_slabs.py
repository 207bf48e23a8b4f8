"""Slabs are handed around, never made, lost or shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.figures import Figures
from workers.slab import Slab, Slabs


def slabs_of(count: int) -> tuple[Slabs, Figures]:
    figures = Figures(0, 1, "serving", [], [], count)
    return Slabs(count, 64, figures), figures


def test_a_parked_slab_keeps_its_bytes_while_another_one_is_hot() -> None:
    slabs, figures = slabs_of(2)
    slabs.hot.buffer[:5] = b"first"
    parked = slabs.park()
    slabs.hot.buffer[:5] = b"other"
    assert bytes(parked.view[:5]) == b"first"
    assert figures.slabs_used == 1
    assert not slabs.spare
    slabs.release(parked)
    assert figures.slabs_used == 0
    assert len(slabs.spare) == 1


@given(st.integers(2, 10), st.lists(st.booleans(), max_size=60))
def test_no_slab_is_ever_in_two_places(count: int, steps: list[bool]) -> None:
    slabs, figures = slabs_of(count)
    parked: list[Slab] = []
    for park in steps:
        if park and slabs.spare:
            parked.append(slabs.park())
        elif not park and parked:
            slabs.release(parked.pop(0))
        everywhere = {id(slab.buffer) for slab in [slabs.hot, *slabs.spare, *parked]}
        assert len(everywhere) == count == 1 + len(slabs.spare) + len(parked)
        assert figures.slabs_used == len(parked)


def test_parking_without_a_spare_slab_is_an_error() -> None:
    slabs, _ = slabs_of(2)
    slabs.park()
    with pytest.raises(IndexError):
        slabs.park()
