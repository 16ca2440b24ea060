"""A class that breaks the programming contract is refused as it is defined, with the fix in the message."""

# ruff: noqa: ANN001, ANN202, ANN401 - classes here lack annotations, or say Any, on purpose
# mypy: disable-error-code="no-untyped-def, type-var"

import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, NewType

import pytest
from pydantic import BaseModel, ConfigDict, Field, Secret, SecretBytes, SecretStr
from typing_extensions import TypedDict

from remora import (
    App,
    ContractError,
    Durable,
    EntityOptions,
    Event,
    EventSourced,
    InvalidArgument,
    Transient,
    UnknownCommand,
    UnknownEntity,
    command,
    query,
)
from remora.contract import HandlerSpec
from remora.secret import holds_secret, is_secret


class Total(BaseModel):
    amount: int = 0


class Added(Event):
    amount: int


class Removed(Event):
    amount: int


class Stray(Event):
    amount: int


def define(name: str, base: Any, **namespace: Any) -> Any:
    """Define a class from parts, as the ``class`` statement does."""
    return types.new_class(name, (base,), {}, lambda body: body.update(namespace | {"__module__": __name__}))


def handler(cls: Any, name: str) -> HandlerSpec:
    found: HandlerSpec = cls.__remora__.handler(name)
    return found


# -- handlers ----------------------------------------------------------------------------------------


def test_a_handler_that_is_not_async_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.add must be async: write `async def add"):

        class Till(Durable[Total]):
            @command
            def add(self) -> None: ...


def test_an_async_generator_is_no_handler() -> None:
    with pytest.raises(ContractError, match=r"Till\.add must be async"):

        class Till(Durable[Total]):
            @command
            async def add(self) -> Any:
                yield 1


def test_a_handler_without_a_return_annotation_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.add lacks a return annotation: write `-> None`"):

        class Till(Durable[Total]):
            @command
            async def add(self): ...


def test_a_parameter_without_an_annotation_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.add: parameter 'amount' lacks an annotation"):

        class Till(Durable[Total]):
            @command
            async def add(self, amount) -> None: ...


def test_parameters_that_http_cannot_name_are_refused() -> None:
    with pytest.raises(ContractError, match="'amounts' must be an ordinary named one"):

        class Till(Durable[Total]):
            @command
            async def add(self, *amounts: int) -> None: ...

    with pytest.raises(ContractError, match="'amounts' must be an ordinary named one"):

        class Chest(Durable[Total]):
            @command
            async def add(self, **amounts: int) -> None: ...

    with pytest.raises(ContractError, match="'amount' must be an ordinary named one"):

        class Purse(Durable[Total]):
            @command
            async def add(self, amount: int, /) -> None: ...


def test_an_annotation_that_pydantic_cannot_validate_is_refused() -> None:
    class Opaque: ...

    with pytest.raises(ContractError, match=r"Till\.add: pydantic cannot validate"):

        class Till(Durable[Total]):
            @command
            async def add(self, thing: Opaque) -> None: ...


def test_a_reply_that_pydantic_cannot_validate_is_refused() -> None:
    class Opaque: ...

    with pytest.raises(ContractError, match=r"Till\.look: pydantic cannot validate"):

        class Till(Durable[Total]):
            @query
            async def look(self) -> Opaque:
                return Opaque()


def test_an_annotation_that_names_nothing_is_refused_when_the_app_is_made() -> None:
    class Till(Durable[Total]):
        @command
        async def add(self, thing: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - on purpose

    with pytest.raises(ContractError, match="'Nowhere', which is not defined: import it at module level"):
        App("shop", entities=[Till])


@pytest.mark.parametrize("name", ["with_options", "why", "history", "snapshot", "release_sends", "_hidden"])
def test_names_that_references_keep_are_refused_as_handlers(name: str) -> None:
    async def fn(self) -> None: ...

    fn.__name__ = name

    with pytest.raises(ContractError, match=f"{name}.*choose another"):
        define("Till", Durable[Total], **{name: command(fn)})


@pytest.mark.parametrize(
    "name",
    [
        "id",
        "state",
        "now",
        "ref",
        "emit",
        "apply",
        "send",
        "remind",
        "cancel_reminder",
        "passivate",
        "options",
        "on_reminder",
        "events",
    ],
)
def test_names_that_entities_or_their_urls_use_are_refused_as_handlers(name: str) -> None:
    async def fn(self) -> None: ...

    fn.__name__ = name

    with pytest.raises(ContractError, match=f"{name}.*choose another"):
        define("Till", EventSourced[Total, Added], **{name: command(fn)})


def test_a_reminder_handler_that_cannot_be_called_with_a_name_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.on_reminder: write `async def on_reminder\(self, name: str\)"):

        class Till(Durable[Total]):
            async def on_reminder(self, which: str) -> None: ...

    with pytest.raises(ContractError, match=r"Chest\.on_reminder: write `async def on_reminder\(self, name: str\)"):

        class Chest(Durable[Total]):
            def on_reminder(self, name: str) -> None: ...  # type: ignore[override]


# -- effects -----------------------------------------------------------------------------------------


def test_a_query_that_emits_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.look is a query and uses emit: .* make it a command"):

        class Till(EventSourced[Total, Added]):
            @query
            async def look(self) -> int:
                self.emit(Added(amount=1))
                return self.state.amount


@pytest.mark.parametrize("effect", ["send", "remind", "cancel_reminder"])
def test_a_query_with_any_other_effect_is_refused_too(effect: str) -> None:
    source = f"async def look(self) -> None:\n    self.{effect}('x')\n"
    scope: dict[str, Any] = {}
    exec(source, scope)  # noqa: S102 - builds the function under test

    with pytest.raises(ContractError, match=f"uses {effect}"):
        define("Till", Durable[Total], look=query(scope["look"]))


def test_an_event_outside_the_declared_union_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.add emits Stray, which is not declared: .*\| Stray"):

        class Till(EventSourced[Total, Added | Removed]):
            @command
            async def add(self) -> None:
                self.emit(Stray(amount=1))  # type: ignore[arg-type]


def test_emit_in_an_entity_without_a_journal_of_events_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.add emits, which only an EventSourced entity can"):

        class Till(Durable[Total]):
            @command
            async def add(self) -> None:
                self.emit(Added(amount=1))  # type: ignore[attr-defined]


# -- state, events, options --------------------------------------------------------------------------


def test_a_state_without_defaults_is_refused_and_the_fields_are_named() -> None:
    class Strict(BaseModel):
        owner: str
        amount: int = 0

    with pytest.raises(ContractError, match=r"A new Till starts with Strict\(\): give owner a default"):

        class Till(Durable[Strict]): ...


def test_a_state_that_cannot_be_made_is_refused_whatever_it_raises() -> None:
    def broken() -> int:
        msg = "no"
        raise LookupError(msg)

    class Odd(BaseModel):
        amount: int = Field(default_factory=broken)

    with pytest.raises(ContractError, match=r"Till .*Odd\(\)"):

        class Till(Durable[Odd]): ...


def test_a_state_that_is_no_pydantic_model_is_refused() -> None:
    with pytest.raises(ContractError, match="The state of Till must be a pydantic model, not <class 'dict'>"):

        class Till(Durable[dict]): ...  # type: ignore[type-arg]


def test_an_entity_that_does_not_say_its_state_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Till must say its state: write `class Till\(Durable\[State"):

        class Till(Durable): ...  # type: ignore[type-arg]


def test_a_state_that_cannot_be_read_back_under_the_names_it_is_written_with_is_refused() -> None:
    class Renamed(BaseModel):
        amount: int = Field(0, validation_alias="in", serialization_alias="out")

    with pytest.raises(ContractError, match=r"Renamed\.amount is written as 'out' and not read under that name"):

        class Till(Durable[Renamed]): ...


def test_a_state_with_one_alias_for_both_ways_is_allowed() -> None:
    class Short(BaseModel):
        amount: int = Field(0, alias="a")

    class Till(Durable[Short]): ...

    assert Till.__remora__.state_type is Short


def test_an_event_that_is_not_derived_from_event_is_refused() -> None:
    class Plain(BaseModel):
        amount: int

    with pytest.raises(ContractError, match=r"Plain.* as an event: derive it from remora.Event"):

        class Till(EventSourced[Total, Plain]): ...


def test_two_events_of_one_stable_name_are_refused() -> None:
    class Again(Event, name="Added"):
        amount: int

    with pytest.raises(ContractError, match=r"Till declares two events named 'Added': rename one"):

        class Till(EventSourced[Total, Added | Again]): ...


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "line\nbreak", " "])
def test_a_stable_name_that_json_would_have_to_escape_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="name of an event"):

        class Odd(Event, name=name):
            amount: int


def test_options_that_are_no_options_are_refused() -> None:
    with pytest.raises(ContractError, match=r"Till\.options must be an EntityOptions, not dict"):

        class Till(Durable[Total]):
            options = {"deadline_s": 1}  # type: ignore[assignment]  # noqa: RUF012 - on purpose


def test_a_transient_entity_cannot_be_remembered() -> None:
    with pytest.raises(
        ContractError, match=r"Lamp is Transient: nothing would remember it after a crash\. Make it Durable"
    ):

        class Lamp(Transient[Total]):
            options = EntityOptions(remember=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"passivate_after_s": 0},
        {"snapshot_every": 0},
        {"mailbox_max": -1},
        {"dedup_window": 0},
        {"deadline_s": float("nan")},
        {"placement": "somewhere"},
        {"resources": {"GPU": 1.0}},
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EntityOptions(**wrong)


def test_an_entity_may_build_on_another_entity() -> None:
    class Till(EventSourced[Total, Added]):
        @command
        async def add(self, amount: int) -> None: ...

    class Chest(Till):
        @query
        async def look(self) -> int:
            return self.state.amount

    assert sorted(Chest.__remora__.handlers) == ["add", "look"]
    assert Chest.__remora__.type == "chest"
    assert sorted(Till.__remora__.handlers) == ["add"]


# -- apps --------------------------------------------------------------------------------------------


def make(name: str) -> type[Durable[Total]]:
    made: type[Durable[Total]] = define(name, Durable[Total])
    return made


def test_15_two_types_with_one_snake_case_name_are_refused() -> None:
    with pytest.raises(ContractError, match=r"FlightPlan and Flight_Plan are both 'flight_plan'.*rename one"):
        App("shop", entities=[make("FlightPlan"), make("Flight_Plan")])


@pytest.mark.parametrize("name", ["", "Shop", "1shop", "shop!", "s" * 41, "läden"])
def test_an_app_name_that_cannot_name_actors_and_files_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="1 to 40 lower-case letters"):
        App(name, entities=[make("Till")])


def test_an_app_without_entities_is_refused() -> None:
    with pytest.raises(ContractError, match=r"entities=\[YourEntity\]"):
        App("shop", entities=[])


def test_what_is_no_entity_class_is_refused_in_an_app() -> None:
    with pytest.raises(ContractError, match="is not an entity class"):
        App("shop", entities=[Total])  # type: ignore[list-item]


def test_an_unknown_type_is_answered_with_those_there_are() -> None:
    app = App("shop", entities=[make("Till"), make("Chest")])

    with pytest.raises(UnknownEntity, match="'purse'; it has chest, till"):
        app.spec("purse")


def test_an_unknown_command_is_answered_with_those_there_are() -> None:
    class Till(Durable[Total]):
        @command
        async def add(self) -> None: ...

    with pytest.raises(UnknownCommand, match="no command or query 'take'; it has add"):
        Till.__remora__.handler("take")


# -- arguments and replies ---------------------------------------------------------------------------


class Line(BaseModel):
    text: str
    price: float = 0.0


class Renamed(BaseModel):
    amount: int = Field(alias="a")


class Shop(Transient[Total]):
    @command
    async def buy(self, item: str, count: int = 1, *, price: float = 0.0, line: Line | None = None) -> None: ...

    @command
    async def anything(self, value: Any) -> Any:
        return value

    @command
    async def renamed(self, value: Renamed) -> Renamed:
        return value

    @query
    async def copy(self, schema: str, model_config: str) -> str:
        return schema + model_config


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        (("a", 1, 2.0, None, 5), {}, "takes 4 arguments, 5 were given"),
        (("a",), {"item": "b"}, "'item' was given twice"),
        ((), {"thing": 1}, "'thing' is unknown; it takes item, count, price, line"),
        ((object(),), {}, "cannot be written as JSON"),
        (("\ud800",), {}, "cannot be written as JSON"),
        (("a", 2**63), {}, "over 64 bits"),
        (("a", -(2**63) - 1), {}, "over 64 bits"),
        (("a",), {"price": float("nan")}, "NaN is not JSON"),
        (("a",), {"price": float("inf")}, "Infinity is not JSON"),
        (("a",), {"price": float("-inf")}, "-Infinity is not JSON"),
        (("a",), {"line": {"text": "x", "price": float("nan")}}, "NaN is not JSON"),
    ],
)
def test_arguments_that_cannot_travel_are_refused_where_they_are_given(
    args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        handler(Shop, "buy").bind(args, kwargs)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "item: Field required"),
        (b"{}", "item: Field required"),
        (b'{"item":1}', "item: Input should be a valid string"),
        (b'{"item":"a","count":"many"}', "count: Input should be a valid integer"),
        (b'{"item":"a","more":1}', "more: Extra inputs are not permitted"),
        (b'{"item":"a","count":9223372036854775808}', "over 64 bits"),
        (b'{"item":"a","count":1' + b"0" * 5_000 + b"}", "(?i)digits|64 bits"),
        (b'{"item":"a","price":NaN}', "NaN is not JSON"),
        (b'{"item":"a","price":-Infinity}', "Infinity is not JSON"),
        (b'{"item":"a","price":1e999}', "price"),
        (b'{"item":"a","price":"nan"}', "price"),
        (b"[]", "(?i)object"),
        (b"{", "(?i)json"),
        (b"\xff\xfe", "(?i)json"),
        (b'{"item":"\\ud800"}', "(?i)json"),
        (b"[" * 100_000, "(?i)json"),
    ],
)
def test_arguments_that_are_wrong_are_refused_before_the_handler(data: bytes, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        handler(Shop, "buy").parse(data)


@pytest.mark.parametrize("data", [b'{"value":[1,{"x":9223372036854775808}]}', b'{"value":{"y":[NaN]}}'])
def test_numbers_no_peer_keeps_are_found_however_deep_they_are(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"over 64 bits|NaN"):
        handler(Shop, "anything").parse(data)


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), "NaN is a word, Infinity too", "12345678901234567890"])
def test_numbers_of_64_bits_and_words_about_numbers_pass(value: object) -> None:
    spec = handler(Shop, "anything")

    assert spec.parse(spec.bind((value,), {})) == ((value,), {})


def test_every_wrong_argument_is_named_in_the_details() -> None:
    with pytest.raises(InvalidArgument) as caught:
        handler(Shop, "buy").parse(b'{"count":"x","line":{"price":"y"}}')

    assert [finding["argument"] for finding in caught.value.details] == ["item", "count", "line.text", "line.price"]


def test_parameters_may_have_names_that_pydantic_uses_itself() -> None:
    spec = handler(Shop, "copy")

    assert spec.parse(spec.bind(("a", "b"), {})) == (("a", "b"), {})


def test_models_with_aliases_come_back_as_they_were_sent() -> None:
    spec = handler(Shop, "renamed")
    value = Renamed(a=5)

    (sent,), _ = spec.parse(spec.bind((value,), {}))

    assert sent == value
    assert spec.read_reply(spec.write_reply(value)) == value


def test_a_reply_of_another_type_than_declared_is_the_handlers_mistake() -> None:
    with pytest.raises(TypeError, match="returned int, which its return annotation does not allow"):
        handler(Shop, "copy").write_reply(5)


@pytest.mark.parametrize("value", ["text", [1, 2], {"a": None}, 2.5, None, True])
def test_replies_come_back_as_they_were_given(value: object) -> None:
    spec = handler(Shop, "anything")

    assert spec.read_reply(spec.write_reply(value)) == value


def test_events_cannot_be_changed_and_take_no_unknown_fields() -> None:
    event = Added(amount=1)

    with pytest.raises(ValueError, match="frozen"):
        event.amount = 2
    with pytest.raises(ValueError, match="Extra inputs"):
        Added(amount=1, more=2)  # type: ignore[call-arg]


def test_what_is_only_for_references_says_so_on_an_entity() -> None:
    till = make("Till")()

    with pytest.raises(ContractError, match=r"use client\.ref\(Till, id\)\.with_options"):
        till.with_options()


@pytest.mark.parametrize("use", [lambda e: e.now(), lambda e: e.passivate(), lambda e: e.send(Shop.buy, "x", "a")])
def test_what_is_only_for_handlers_says_so_outside_of_one(use: Callable[[Any], object]) -> None:
    with pytest.raises(ContractError, match="only inside @command and @query methods"):
        use(make("Till")())


def test_a_state_may_forbid_unknown_fields() -> None:
    class Closed(BaseModel):
        model_config = ConfigDict(extra="forbid")
        amount: int = 0

    class Till(Durable[Closed]): ...

    assert Till.__remora__.state_type is Closed


# -- secrets -----------------------------------------------------------------------------------------


class Badge(BaseModel):
    code: SecretStr = SecretStr("")


class Wallet(BaseModel):
    badges: dict[str, list[Badge]] = {}
    more: "Wallet | None" = None


@pytest.mark.parametrize("state", [Badge, Wallet])
def test_a_state_that_would_be_written_as_stars_is_refused(state: type[BaseModel]) -> None:
    with pytest.raises(ContractError, match=r"is declared secret, and would be written as stars"):
        define("Till", Durable[state])  # type: ignore[valid-type]


class Unlocked(Event):
    code: SecretBytes


def test_an_event_that_would_be_written_as_stars_is_refused() -> None:
    with pytest.raises(ContractError, match=r"Unlocked\.code is declared secret"):
        define("Till", EventSourced[Total, Unlocked], apply=print)


def test_a_secret_that_is_an_argument_reaches_its_handler_and_is_masked_where_it_is_shown() -> None:
    class Door(Durable[Total]):
        @command
        async def open(self, code: SecretStr, other: SecretBytes | None = None) -> bool:
            return other is None and code.get_secret_value() != ""

    opening = handler(Door, "open")

    sent = opening.bind((SecretStr("sesame"),), {"other": SecretBytes(b"x")})

    assert sent == b'{"code":"sesame","other":"eA=="}'
    (code, other), _ = opening.parse(sent)
    assert (code.get_secret_value(), other.get_secret_value()) == ("sesame", b"x")
    assert opening.masked(sent) == b'{"code":"**********","other":"**********"}'
    assert opening.masked(b'{"code":1}') == b""


def test_a_secret_within_an_argument_or_in_a_reply_is_refused() -> None:
    with pytest.raises(ContractError, match=r"door\.give: a secret within 'badge' would travel as stars"):

        class Door(Durable[Total]):
            @command
            async def give(self, badge: Badge) -> None:
                del badge

    with pytest.raises(ContractError, match=r"window\.show returns what is declared secret"):

        class Window(Durable[Total]):
            @query
            async def show(self) -> list[Badge]:
                return []


Pin = NewType("Pin", SecretStr)


@dataclasses.dataclass
class Locker:
    pin: SecretStr


class Shelf(TypedDict):
    lockers: list[Locker]


@pytest.mark.parametrize("annotation", [SecretStr, SecretBytes | None, Annotated[SecretStr, Field(min_length=4)], Pin])
def test_a_secret_is_known_whatever_it_is_called(annotation: object) -> None:
    assert is_secret(annotation)
    assert holds_secret(annotation)


@pytest.mark.parametrize(
    "annotation",
    [list[SecretStr], dict[str, Pin], SecretStr | int, Locker, Shelf, list[Annotated[Shelf, 1]], Secret[int]],
)
def test_what_holds_a_secret_is_none_itself_and_is_found(annotation: object) -> None:
    assert not is_secret(annotation)
    assert holds_secret(annotation)


@pytest.mark.parametrize("annotation", [int, list[str], dict[str, Total], None, Any, Annotated[int, 1]])
def test_what_holds_no_secret_is_left_alone(annotation: object) -> None:
    assert not is_secret(annotation)
    assert not holds_secret(annotation)
