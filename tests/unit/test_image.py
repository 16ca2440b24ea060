"""Undo: the state is again what it was, whatever a handler did to it."""

import datetime as dt
import decimal
from collections.abc import Callable

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr

from remora.runtime.image import restore, take


class Flat(BaseModel):
    number: int = 1
    text: str = "a"
    day: dt.date = dt.date(2013, 1, 1)
    price: decimal.Decimal = decimal.Decimal(1)
    nothing: int | None = None


class Nested(BaseModel):
    items: list[int] = [1]
    part: Flat = Flat()


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    number: int = 1


class Hidden(BaseModel):
    number: int = 1
    _secret: list[int] = PrivateAttr(default_factory=list)


def change_flat(state: Flat) -> None:
    state.number, state.text, state.nothing = 5, "b", 7


def change_nested(state: Nested) -> None:
    state.items.append(2)
    state.part.number = 9
    state.part = Flat(number=10)


@pytest.mark.parametrize(
    ("make", "change", "deep"), [(Flat, change_flat, False), (Flat, change_flat, True), (Nested, change_nested, True)]
)
def test_a_state_is_restored_whatever_was_changed(
    make: Callable[[], BaseModel],
    change: Callable[[BaseModel], None],
    deep: bool,  # noqa: FBT001 - as take's argument
) -> None:
    state, before = make(), make()
    image = take(state, deep=deep)
    change(state)
    assert state != before

    assert restore(image) == before


def test_a_flat_state_is_restored_in_place() -> None:
    state = Flat()
    image = take(state, deep=False)
    change_flat(state)

    assert restore(image) is state


@pytest.mark.parametrize("state", [Nested(), Open(more=[1]), Hidden()])  # type: ignore[call-arg]  # an extra field
def test_a_state_that_a_shallow_copy_cannot_hold_is_left_to_the_journal(state: BaseModel) -> None:
    assert take(state, deep=False) is None


def test_what_was_taken_does_not_change_with_the_state() -> None:
    state = Nested()
    image = take(state, deep=True)
    change_nested(state)

    assert restore(image) == Nested()
    assert restore(image).items == [1]  # type: ignore[attr-defined]
