"""What the comparison of two releases finds, and what it says to do about it."""

import json
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from remora import App, Durable, Entity, EntityOptions, Event, EventSourced, Settings, Transient, command
from remora.schema.compare import Finding, compare, incompatible, merge
from remora.schema.describe import describe, from_text, to_text
from tests.unit.schema.ledgers import first, second

Json = dict[str, Any]


class Before(Event):
    amount: int
    note: str | None = None


def event_app(
    fields: dict[str, Any] | None = None,
    *,
    name: str = "Before",
    drop: bool = False,
    upcasts: bool = False,
    **keywords: object,
) -> App:
    """An app of one entity with one event of these fields."""
    base: Any = Event
    made: Any = create_model(
        name, __base__=base, __cls_kwargs__=keywords, **(fields or {"amount": (int, ...), "note": (str | None, None)})
    )
    if upcasts:
        made.upcast = classmethod(lambda _, data, __: data)

    class Other(Event):
        pass

    class Ledger(EventSourced[Empty, (Other if drop else made) | Other]):  # type: ignore[misc]  # made here
        def apply(self, event: Event) -> None:
            """Do nothing."""

    return App("shop", entities=[Ledger])


class Empty(BaseModel):
    pass


def state_app(
    fields: dict[str, Any],
    *,
    kind: type[object] = Durable,
    version: int = 1,
    upcasts: bool = False,
    extra: Literal["ignore", "forbid"] = "ignore",
) -> App:
    """An app of one entity with a state of these fields."""
    make: Any = create_model
    state: Any = make("Kept", __config__=ConfigDict(extra=extra), **fields)
    chosen: Any = kind
    base: Any = chosen[state, Before] if kind is EventSourced else chosen[state]

    class Shelf(base):  # type: ignore[misc]  # made here
        state_version: ClassVar[int] = version
        if upcasts:

            @classmethod
            def upcast_state(cls, data: Json, version: int) -> Json:
                del version
                return data

    return App("shop", entities=[Shelf])


def found(old: App, new: App) -> list[Finding]:
    # By way of text, as a description is kept.
    return compare(from_text(to_text(describe(old)), "a test"), describe(new))


def worst(old: App, new: App) -> str:
    """Return the first sentence with its severity, or nothing."""
    findings = found(old, new)
    return f"{findings[0].severity}: {findings[0]}" if findings else ""


OLD: Json = {"amount": (int, ...), "note": (str | None, None)}

COMPATIBLE: dict[str, Json] = {
    "the same": OLD,
    "a new field with a default": {**OLD, "more": (int, 0)},
    "a wider type": {**OLD, "amount": (int | str, ...)},
    "a nullable field": {**OLD, "amount": (int | None, ...)},
    "anything": {**OLD, "amount": (Any, ...)},
    "fields in another order": {"note": (str | None, None), "amount": (int, ...)},
    "a default that was not there": {**OLD, "amount": (int, 3)},
}


@pytest.mark.parametrize("change", COMPATIBLE)
def test_what_takes_all_of_the_old_is_compatible(change: str) -> None:
    assert found(event_app(OLD), event_app(COMPATIBLE[change])) == []


INCOMPATIBLE: dict[str, tuple[Json, str, str]] = {
    "a new field without a default": ({**OLD, "more": (int, ...)}, "more", "The field is new and has no default. Give it a default, or raise the event's version (class …(Event, version=2)) and define upcast."),
    "a field that is gone": ({"amount": (int, ...)}, "note", "The field is gone, and unknown fields are refused. Keep it"),
    "another type": ({**OLD, "amount": (str, ...)}, "amount", "It was integer and is string now."),
    "a lost null": ({**OLD, "note": (str, "")}, "note", "It could be null, and is string now."),
    "a narrower range": ({**OLD, "amount": (Annotated[int, Field(ge=0)], ...)}, "amount", "The range of its numbers is narrower now."),
    "an enum": ({**OLD, "note": (Literal["a", "b"] | None, None)}, "note", "It was string and is only one of 'a', 'b' now."),
    "a list": ({**OLD, "amount": (list[int], ...)}, "amount", "It was integer and is array now."),
    "a lost default": ({**OLD, "note": (str | None, ...)}, "note", "The field has lost its default."),
}  # fmt: skip


@pytest.mark.parametrize("change", INCOMPATIBLE)
def test_what_does_not_take_all_of_the_old_is_told_with_field_and_fix(change: str) -> None:
    fields, field, told = INCOMPATIBLE[change]

    finding, *others = found(event_app(OLD), event_app(fields))

    assert (finding.severity, finding.entity, finding.part, finding.field) == ("incompatible", "ledger", "event Before", field)  # fmt: skip
    assert f"{finding.what} {finding.fix}".startswith(told)
    assert [one.what for one in others if one.severity == "incompatible"] == []


class Line(BaseModel):
    sku: str
    kind: Literal["a", "b"] = "a"


class LineWithoutB(BaseModel):
    sku: str
    kind: Literal["a"] = "a"


class Tree(BaseModel):
    value: int = 0
    children: "list[Tree]" = []


class NarrowTree(BaseModel):
    value: Annotated[int, Field(ge=0)] = 0
    children: "list[NarrowTree]" = []


class Cash(BaseModel):
    by: Literal["cash"] = "cash"


class Card(BaseModel):
    by: Literal["card"] = "card"
    number: str = ""


class Voucher(BaseModel):
    by: Literal["voucher"] = "voucher"


Tagged = Annotated[Cash | Card, Field(discriminator="by")]
MoreTagged = Annotated[Voucher | Cash | Card, Field(discriminator="by")]
FewerTagged = Annotated[Card | Voucher, Field(discriminator="by")]

NESTED: dict[str, tuple[Any, Any, str]] = {
    "a value of an enum in a nested model is gone": (list[Line], list[LineWithoutB], "ledger, event Before, x[].kind: It cannot be 'b' any more."),
    "the same recursive model": (Tree, Tree, ""),
    "a recursive model that is narrower": (Tree, NarrowTree, "ledger, event Before, x.value: The range of its numbers is narrower now."),
    "a member more, told apart by a tag": (Tagged, MoreTagged, ""),
    "a member less": (Tagged, FewerTagged, "the member with by = 'cash' is gone".capitalize()),
    "one model that becomes one of several with a tag": (Card, Tagged, ""),
    "several with a tag that become one": (Tagged, Card, "How the members of its union are told apart has changed."),
    "a union that takes one model for another": (Cash, Line | Cash, ""),
    "a union whose new member takes what the old one wrote": (Tree, Empty | Tree, "may be read as"),
    "a type removed from a union": (int | str, int, "It could be string, and is integer now."),
    "a list that becomes a set": (list[int], set[int], "It was a list and is a set now"),
    "a set that becomes a list": (set[int], list[int], ""),
    "a dict whose values widen": (dict[str, int], dict[str, int | None], ""),
    "a dict whose values narrow": (dict[str, int | None], dict[str, int], "It could be null"),
    "a dict that becomes a model": (dict[str, int], Empty, "It had keys of any name"),
    "a pair that becomes a list": (tuple[int, str], list[int | str], ""),
    "a pair that becomes a triple": (tuple[int, str], tuple[int, str, int], "Its size may be 2 to 2"),
    "whole numbers that become floats": (int, float, "note: ledger, event Before, x: Whole numbers are read as floats now"),
}  # fmt: skip


@pytest.mark.parametrize("change", NESTED)
def test_nested_models_unions_and_collections_are_compared_to_the_last_field(change: str) -> None:
    old, new, told = NESTED[change]

    sentence = worst(event_app({"x": (old, ...)}), event_app({"x": (new, ...)}))

    assert told in sentence
    assert bool(sentence) is bool(told)


VERSIONS: dict[str, tuple[App, App, str]] = {
    "removed": (event_app(), event_app(drop=True), "The event is not declared any more, and the journal may hold it. Keep the class in the entity's union, or name it in the event that took its place: formerly=('Before',)."),
    "renamed": (event_app(), event_app(name="After"), "The event is not declared any more"),
    "renamed with its former name": (event_app(), event_app(name="After", formerly=("Before",)), ""),
    "raised with an upcaster": (event_app(), event_app({"other": (str, ...)}, version=2, upcasts=True), ""),
    "raised without": (event_app(), event_app({"other": (str, ...)}, version=2), "The event was written in version 1, the code has version 2 and no upcast."),
    "lowered": (event_app(version=2, upcasts=True), event_app(), "The event was written in version 2, and the code knows version 1. Write version=2 or higher."),
}  # fmt: skip


@pytest.mark.parametrize("change", VERSIONS)
def test_names_and_versions_of_events_are_compared(change: str) -> None:
    old, new, told = VERSIONS[change]

    sentence = worst(old, new)

    assert told in sentence
    assert sentence.startswith("incompatible" if told else "")
    assert bool(sentence) is bool(told)


ONE: Json = {"a": (int, 0)}
STATES: dict[str, tuple[App, App, str]] = {
    "durable, a field more": (state_app(ONE), state_app({**ONE, "b": (int, 0)}), ""),
    "durable, a field less": (state_app({**ONE, "b": (int, 0)}), state_app(ONE), "incompatible: shelf, state, b: The field is gone, and its values are left out in silence. Keep it as it was, or write state_version = 2 and define upcast_state."),
    "durable, renamed in silence": (state_app(ONE), state_app({"total": (int, 0)}), "incompatible: shelf, state, a: The field is gone"),
    "durable, another type": (state_app(ONE), state_app({"a": (str, "")}), "incompatible: shelf, state, a: It was integer and is string now."),
    "durable, raised with upcaster": (state_app(ONE), state_app({"t": (str, "")}, version=2, upcasts=True), ""),
    "durable, raised without": (state_app(ONE), state_app({"t": (str, "")}, version=2), "incompatible: shelf, state: The state was written in version 1, the code has version 2 and no upcast_state."),
    "durable, lowered": (state_app(ONE, version=3), state_app(ONE), "incompatible: shelf, state: The state was written in version 3, and the code knows version 1."),
    "sourced, a field more": (state_app(ONE, kind=EventSourced), state_app({**ONE, "b": (int, 0)}, kind=EventSourced), "incompatible: shelf, state, b: The field is new, and snapshots of before know nothing of that. Write state_version = 2: snapshots are then made again from the events."),
    "sourced, a field less": (state_app({**ONE, "b": (int, 0)}, kind=EventSourced), state_app(ONE, kind=EventSourced), "incompatible: shelf, state, b: The field is gone"),
    "sourced, raised": (state_app(ONE, kind=EventSourced), state_app({"t": (str, "")}, kind=EventSourced, version=2), "note: shelf, state: Snapshots of version 1 are not read; they are made again from the events."),
    "sourced, lowered": (state_app(ONE, kind=EventSourced, version=2), state_app(ONE, kind=EventSourced), "incompatible: shelf, state: Snapshots were written in version 2, and the code knows version 1"),
    "sourced, a wider type": (state_app(ONE, kind=EventSourced), state_app({"a": (int | None, 0)}, kind=EventSourced), ""),
    "transient, anything": (state_app(ONE, kind=Transient), state_app({"t": (str, "")}, kind=Transient), ""),
    "another kind": (state_app(ONE), state_app(ONE, kind=EventSourced), "incompatible: shelf: It was durable and is event_sourced now, which reads nothing of what is kept."),
    "from transient to durable": (state_app(ONE, kind=Transient), state_app(ONE), ""),
    "another default": (state_app(ONE), state_app({"a": (int, 7)}), "note: shelf, state, a: The default was 0 and is 7 now"),
}  # fmt: skip


@pytest.mark.parametrize("change", STATES)
def test_states_are_compared_by_what_their_kind_keeps(change: str) -> None:
    old, new, told = STATES[change]

    sentence = worst(old, new)

    assert sentence.startswith(told)
    assert bool(sentence) is bool(told)


def test_an_entity_type_that_is_gone_is_incompatible_unless_it_kept_nothing() -> None:
    class Left(Durable[Empty]):
        pass

    def one(*more: type[Entity[Any]]) -> App:
        return App("shop", entities=[Left, *more])

    shelf = state_app(ONE).specs["shelf"].cls
    gone = state_app(ONE, kind=Transient).specs["shelf"].cls

    assert worst(one(shelf), one()).startswith("incompatible: shelf: The entity type is gone from the app")
    assert worst(one(gone), one()).startswith("note: shelf: The entity type is gone; it kept nothing.")
    assert found(one(), one(shelf)) == []


def test_changes_of_commands_are_notes_because_nothing_acknowledged_is_lost_by_them() -> None:
    class Bell(Durable[Empty]):
        @command
        async def ring(self, often: int) -> int:
            return often

        @command
        async def mend(self) -> None:
            """Do nothing."""

    old = App("shop", entities=[Bell])

    class Bell(Durable[Empty]):  # type: ignore[no-redef]  # the next release
        @command
        async def ring(self, often: int, loud: bool) -> str:  # noqa: FBT001 - an argument as any other
            return str(often) * loud

        @command
        async def polish(self) -> None:
            """Do nothing."""

    findings = found(old, App("shop", entities=[Bell]))

    assert incompatible(findings) == []
    assert [(one.part, one.field) for one in findings] == [
        ("command mend", ""),
        ("command ring", "loud"),
        ("command ring", "reply"),
    ]
    assert findings[1].fix == "Give the argument a default."


def test_reminders_that_nobody_would_take_are_incompatible() -> None:
    class Bell(Durable[Empty]):
        async def on_reminder(self, name: str) -> None:
            """Ring."""

    old = App("shop", entities=[Bell])

    class Bell(Durable[Empty]):  # type: ignore[no-redef]  # the next release
        pass

    assert worst(old, App("shop", entities=[Bell])).startswith("incompatible: bell: on_reminder is gone")


def test_the_name_of_the_app_the_shards_and_the_placement_count_too() -> None:
    class Bell(Durable[Empty]):
        pass

    old = describe(App("shop", entities=[Bell]))

    class Bell(Durable[Empty]):  # type: ignore[no-redef]  # the next release
        options = EntityOptions(placement="dedicated")

    findings = compare(old, describe(App("store", entities=[Bell], settings=Settings(shards=8))))

    assert [(one.severity, one.what.partition(" and ")[0]) for one in findings] == [
        ("incompatible", "The app was named 'shop'"),
        ("incompatible", "The app had 256 shards"),
        ("note", "The placement was 'shared'"),
    ]


# -- what is kept of earlier releases ---------------------------------------------------------------------------


def test_what_earlier_releases_wrote_is_kept_and_compared_with_however_many_releases_later() -> None:
    one, two = describe(first()), describe(second())
    kept = merge(merge(None, one), two)
    three = json.loads(to_text(two))
    three["entities"]["ledger"]["events"]["Paid"]["formerly"] = []

    assert merge(kept, two) == kept
    assert incompatible(compare(kept, two)) == []
    assert compare(two, three) == []
    assert [one.part for one in incompatible(compare(kept, three))] == ["event Payment"]


def test_where_events_are_deleted_snapshots_are_all_there_is_and_that_is_remembered() -> None:
    def release(*, deletes: bool, version: int = 1) -> Json:
        described = json.loads(to_text(describe(state_app({"a": (int, 0)}, kind=EventSourced, version=version))))
        described["entities"]["shelf"]["events_deleted"] = deletes
        return dict(described)

    kept = merge(release(deletes=True), release(deletes=False))
    raised = release(deletes=False, version=2)

    assert incompatible(compare(release(deletes=False), raised)) == []
    assert [one.fix for one in compare(release(deletes=True), raised)] == [
        "Define upcast_state(cls, data, version) on the entity."
    ]
    assert compare(kept, raised) == compare(release(deletes=True), raised)
    assert merge(kept, release(deletes=False)) == kept


def test_a_form_that_comes_back_is_no_history_any_more() -> None:
    narrow, wide = describe(event_app()), describe(event_app({**OLD, "more": (int, 0)}))

    kept = merge(narrow, wide)

    assert list(kept["history"]) == ["ledger"]
    assert merge(kept, wide) == kept
    assert merge(narrow, narrow) == narrow


def test_a_field_that_is_removed_and_comes_back_as_something_else_is_found_in_the_history() -> None:
    def app(more: Callable[[Json], Json]) -> Json:
        return describe(state_app(more({"a": (int, 0)}), version=1))

    with_b, without, other_b = (
        app(lambda f: {**f, "b": (int, 0)}),
        app(lambda f: f),
        app(lambda f: {**f, "b": (str, "")}),
    )
    kept = merge(with_b, without)

    assert compare(without, other_b) == []
    assert [one.field for one in incompatible(compare(kept, other_b))] == ["b"]


def test_a_description_is_the_same_in_every_process_and_survives_being_written() -> None:
    described = describe(second())

    assert from_text(to_text(described), "a test") == described
    assert to_text(describe(second())) == to_text(described)
    assert "title" not in to_text(described)


def test_what_json_schema_cannot_say_is_named_and_must_stay_as_it_is() -> None:
    class Odd:
        pass

    class Holder(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        odd: Odd | None = None

    class Shelf(Durable[Holder]):
        pass

    described = describe(App("shop", entities=[Shelf]))

    assert "x-opaque" in to_text(described)
    assert "0x" not in to_text(described)
    assert compare(described, described) == []
