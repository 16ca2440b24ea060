"""The life of one activation: only the arrows that are drawn exist."""

import itertools

import pytest

from remora.lifecycle import Phase, step

DRAWN = {
    (Phase.RECOVERING, Phase.READY),
    (Phase.RECOVERING, Phase.STOPPED),
    (Phase.RECOVERING, Phase.BACKOFF),
    (Phase.RECOVERING, Phase.RECOVERING),
    (Phase.READY, Phase.RECOVERING),
    (Phase.READY, Phase.BACKOFF),
    (Phase.READY, Phase.STOPPED),
    (Phase.READY, Phase.LEAVING),
    (Phase.LEAVING, Phase.RECOVERING),
    (Phase.LEAVING, Phase.BACKOFF),
    (Phase.LEAVING, Phase.STOPPED),
    (Phase.BACKOFF, Phase.RECOVERING),
    (Phase.BACKOFF, Phase.STOPPED),
}


@pytest.mark.parametrize(("start", "end"), list(itertools.product(Phase, Phase)))
def test_an_activation_goes_only_where_the_drawing_has_an_arrow(start: Phase, end: Phase) -> None:
    if end is Phase.GONE or (start, end) in DRAWN:
        assert step(start, end) is end
    else:
        with pytest.raises(RuntimeError, match=f"cannot go from {start.value} to {end.value}"):
            step(start, end)
