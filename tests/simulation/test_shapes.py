"""Whatever the comparison calls compatible really is: pairs of models are drawn, and data of the old is read by the new."""

import datetime as dt
import decimal
import enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from remora.schema import shapes
from remora.schema.describe import model_schema


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Fewer(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    x: int = 0


class Wider(BaseModel):
    x: int | None = 0
    y: str = ""


class Stricter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    y: int = 1


class Twin(BaseModel):
    x: int = 0
    z: int = 5


class A(BaseModel):
    kind: Literal["a"] = "a"
    n: int = 0


class B(BaseModel):
    kind: Literal["b"] = "b"
    n: str = ""


class A2(BaseModel):
    kind: Literal["a"] = "a"
    n: float = 0


class Tree(BaseModel):
    value: int = 0
    children: "list[Tree]" = []


class WideTree(BaseModel):
    value: int | str = 0
    children: "list[WideTree]" = []


class NarrowTree(BaseModel):
    value: Annotated[int, Field(ge=0)] = 0
    children: "list[NarrowTree]" = []


ints = st.integers(-(2**53), 2**53)
LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, ints),
    (Annotated[int, Field(ge=0)], st.integers(0, 9)),
    (Annotated[int, Field(gt=-1, le=100)], st.integers(0, 100)),
    (Annotated[int, Field(multiple_of=5)], ints.map(lambda n: n * 5)),
    (float, st.floats(-1e6, 1e6)),
    (Annotated[float, Field(gt=0, lt=5)], st.floats(0.5, 4.5)),
    (bool, st.booleans()),
    (str, st.text(max_size=4) | st.sampled_from(["1", "red", "2020-01-01", "12:30:00", ""])),
    (Annotated[str, Field(min_length=1, max_length=3)], st.text(min_size=1, max_size=3)),
    (Annotated[str, Field(pattern="^[a-z]+$")], st.from_regex("^[a-z]{1,3}$", fullmatch=True)),
    (dt.date, st.dates()),
    (dt.datetime, st.datetimes(timezones=st.just(dt.UTC))),
    (dt.time, st.times()),
    (decimal.Decimal, st.decimals(-1000, 1000, places=2)),
    (Colour, st.sampled_from(Colour)),
    (Fewer, st.sampled_from(Fewer)),
    (Literal["red", "green"], st.sampled_from(["red", "green"])),
    (Literal["red"], st.just("red")),
    (Literal[1, "red"], st.sampled_from([1, "red"])),
    (Literal[1, 2, 7], st.sampled_from([1, 2, 7])),
    (type(None), st.none()),
    (Any, ints | st.text(max_size=3) | st.none()),
    (Inner, st.builds(Inner, x=ints)),
    (Wider, st.builds(Wider, x=ints | st.none(), y=st.text(max_size=2))),
    (Stricter, st.builds(Stricter, y=ints)),
    (Twin, st.builds(Twin, x=ints, z=ints)),
    (A, st.builds(A, n=ints)),
    (B, st.builds(B, n=st.text(max_size=2))),
    (A2, st.builds(A2, n=st.floats(-9, 9))),
    (Annotated[A | B, Field(discriminator="kind")], st.builds(A, n=ints) | st.builds(B, n=st.text(max_size=2))),
    (Annotated[A2 | B, Field(discriminator="kind")], st.builds(A2) | st.builds(B)),
    (Tree, st.builds(Tree, value=ints, children=st.lists(st.builds(Tree, value=ints), max_size=2))),
    (WideTree, st.builds(WideTree, value=ints | st.just("x"))),
    (NarrowTree, st.builds(NarrowTree, value=st.integers(0, 9))),
]  # fmt: skip
Typed = tuple[Any, st.SearchStrategy[Any]]


made_list: Any = list
made_dict: Any = dict
made_tuple: Any = tuple
"""Written so that the type checker takes them for functions of types."""


def containers(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    def union(one: Typed, other: Typed) -> Typed:
        return one[0] | other[0], one[1] | other[1]

    return st.one_of(
        inner.map(lambda t: (made_list[t[0]], st.lists(t[1], max_size=3))),
        inner.map(lambda t: (made_dict[str, t[0]], st.dictionaries(st.text(max_size=2), t[1], max_size=2))),
        inner.map(lambda t: (made_dict[dt.date, t[0]], st.dictionaries(st.dates(), t[1], max_size=2))),
        inner.map(lambda t: (made_tuple[t[0], int], st.tuples(t[1], ints))),
        inner.map(lambda t: (made_tuple[t[0], ...], st.lists(t[1], max_size=3).map(tuple))),
        inner.map(lambda t: (Annotated[made_list[t[0]], Field(min_length=1)], st.lists(t[1], min_size=1, max_size=3))),
        inner.map(lambda t: (t[0] | None, t[1] | st.none())),
        st.builds(union, inner, inner),
    )


leaves = st.sampled_from(LEAVES)
typed = leaves | containers(leaves) | containers(containers(leaves))
configs = st.sampled_from([ConfigDict(), ConfigDict(extra="forbid"), ConfigDict(extra="allow")])


@st.composite
def pairs(draw: st.DrawFn) -> tuple[type[BaseModel], type[BaseModel], dict[str, Any]]:
    """An old model, a new one made from it by a few changes, and a value for each field of the old."""
    old: dict[str, Typed] = draw(st.dictionaries(st.sampled_from("abcd"), typed, min_size=1, max_size=3))
    defaults = {name: draw(values) for name, (_, values) in old.items() if draw(st.booleans())}
    data = {name: draw(values) for name, (_, values) in old.items()}
    new, new_defaults = dict(old), dict(defaults)
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from("abcd"))
        change = draw(st.sampled_from(["remove", "retype", "widen", "widen", "default", "required"]))
        if change == "remove":
            new.pop(name, None)
        elif change == "retype":
            new[name] = draw(typed)
            new_defaults.pop(name, None)
            if draw(st.booleans()):
                new_defaults[name] = draw(new[name][1])
        elif change == "widen" and name in new:
            other = draw(typed)
            first = draw(st.booleans())
            new[name] = (new[name][0] | other[0] if first else other[0] | new[name][0], new[name][1] | other[1])
        elif change == "default" and name in new:
            new_defaults[name] = draw(new[name][1])
        elif change == "required":
            new_defaults.pop(name, None)
    make: Any = create_model
    models = [
        make(
            "Thing",
            __config__=draw(configs),
            **{name: (kind, Field(had.get(name, ...))) for name, (kind, _) in fields.items()},
        )
        for fields, had in ((old, defaults), (new, new_defaults))
    ]
    return models[0], models[1], data


_any = TypeAdapter(Any)


def consistent(before: object, after: object) -> bool:
    """Return whether data that was read and written again says what it said: more fields may be there, none changed."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(name in after and consistent(value, after[name]) for name, value in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(consistent, before, after))
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    if isinstance(before, int | float) and isinstance(after, str):
        return decimal.Decimal(str(before)) == decimal.Decimal(after)
    return bool(before == after)


def check(old: type[BaseModel], new: type[BaseModel], data: dict[str, Any]) -> None:
    """If the comparison finds nothing unreadable: have the new model read what the old one writes."""
    found = shapes.differences(model_schema(old), model_schema(new))
    if any(one.grade == "unreadable" for one in found):
        return
    written = old.model_validate(data).model_dump_json(by_alias=True, round_trip=True)
    if not consistent(
        _any.validate_json(written), _any.validate_json(old.model_validate_json(written).model_dump_json())
    ):
        return  # a union such as datetime | Decimal takes one for the other whatever else changes
    where = f"{model_schema(old)} -> {model_schema(new)}: {written}"
    try:
        read = new.model_validate_json(written)
    except ValidationError as error:
        raise Disproved(where) from error
    if any(one.grade == "dropped" for one in found):
        return  # its values are said to be left out
    before, after = _any.validate_json(written), _any.validate_json(read.model_dump_json(round_trip=True))
    if not consistent(before, after):
        raise Disproved((where, after))


class Disproved(Exception):  # noqa: N818 - says what it is
    """Data of the old model is not read by a new one that was called compatible."""


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_what_the_comparison_calls_compatible_is_read_and_says_the_same(
    drawn: tuple[type[BaseModel], type[BaseModel], dict[str, Any]],
) -> None:
    check(*drawn)


walk: Any = shapes._Walk  # noqa: SLF001 - the rules, one method each
BLINDED: dict[str, tuple[object, str, Any]] = {
    "parts of lists": (walk, "_array", lambda *_: []),
    "fields": (walk, "_object", lambda *_: []),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", BLINDED)
def test_without_a_rule_for_lists_or_fields_the_check_above_fails(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BLINDED[rule])

    @settings(
        max_examples=20_000,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(pairs())
    def checked(drawn: tuple[type[BaseModel], type[BaseModel], dict[str, Any]]) -> None:
        check(*drawn)

    with pytest.raises(Disproved):
        checked()
