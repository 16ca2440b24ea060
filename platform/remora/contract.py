"""What a class definition promises, read once and checked: types, handlers, events, options.

``EntitySpec`` is the plain description of one entity type that the runtime, the clients, the
gateway and the documentation work from. Whatever breaks the programming contract is refused
here, when the class is defined, with a sentence that names the fix.
"""

from __future__ import annotations

import dis
import inspect
import re
import types
import typing
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticSerializationError, to_json

from remora.errors import ContractError, InvalidArgument, UnknownCommand
from remora.ids import snake_case
from remora.options import EntityOptions
from remora.secret import holds_secret, is_secret, revealed
from remora.sharding.hashing import shard_of

Kind = Literal["event_sourced", "durable", "transient"]
Model = type[BaseModel]

REFERENCE_NAMES = frozenset({"with_options", "why", "history", "snapshot", "release_sends", "events"})
"""Names every reference or every entity's URL has; no command or query may take them."""
_ENTITY_NAMES = frozenset(
    {
        "id", "state", "options", "now", "ref", "emit", "apply", "send", "remind", "cancel_reminder", "on_reminder", "erase",
        "passivate", "state_version", "upcast_state",
    }
)  # fmt: skip
"""What an entity has of its own: a command of that name would hide it, or be hidden by it."""
_EFFECTS = frozenset({"emit", "send", "remind", "cancel_reminder", "erase"})
_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, ser_json_bytes="base64", val_json_bytes="base64")
_INT64 = range(-(2**63), 2**63)
_SUSPICIOUS = re.compile(rb"NaN|Infinity|\d{19}")


class Handler:
    """What ``@command`` and ``@query`` leave in a class: the function and its kind."""

    def __init__(self, fn: Callable[..., Any], kind: Literal["command", "query"], *, in_thread: bool = False) -> None:
        self.fn = fn
        self.kind = kind
        self.in_thread = in_thread
        self.name = getattr(fn, "__name__", "")
        self.__doc__ = fn.__doc__

    def __get__(self, obj: object, owner: type) -> Any:  # noqa: ANN401 - a method or a method name, as Python's own functions
        """Return the bound method on an entity, and a ``MethodName`` on the class."""
        if obj is None:
            return MethodName(owner, self.name)
        return types.MethodType(self.fn, obj)


@dataclass(frozen=True, slots=True)
class MethodName:
    """``Airport.arrived``: a handler named by its class, for ``self.send``."""

    owner: type
    name: str


class HandlerSpec:
    """One command or query: how its arguments are read, how it runs, how its reply is written."""

    def __init__(self, owner: str, name: str, handler: Handler, hints: Mapping[str, Any]) -> None:
        self.owner = owner
        self.name = name
        self.label = f"{owner}.{name}"
        self.fn: Callable[..., Coroutine[Any, Any, Any]] = handler.fn
        self.is_query = handler.kind == "query"
        self.in_thread = handler.in_thread
        self.suspends = self.in_thread or can_suspend(handler.fn)
        parameters = list(inspect.signature(handler.fn).parameters.values())[1:]
        self.params = tuple(parameter.name for parameter in parameters)
        self.keyword_only = any(p.kind is p.KEYWORD_ONLY for p in parameters)
        fields: dict[str, Any] = {}
        for parameter in parameters:
            default = ... if parameter.default is parameter.empty else parameter.default
            # The alias keeps names such as `copy` or `schema` from meeting those of BaseModel.
            fields[f"p_{parameter.name}"] = (hints[parameter.name], Field(default, alias=parameter.name))
            if holds_secret(hints[parameter.name]) and not is_secret(hints[parameter.name]):
                msg = f"{self.label}: a secret within {parameter.name!r} would travel as stars: make it an argument of its own."
                raise ContractError(msg)
        self._has_secrets = any(is_secret(hints[name]) for name in self.params)
        self.args_model: type[BaseModel] = create_model(f"{owner}.{name}", __config__=_CONFIG, **fields)
        self.reply_type: Any = hints["return"]
        if holds_secret(self.reply_type):
            msg = f"{self.label} returns what is declared secret, and its callers would get stars: return plain data."
            raise ContractError(msg)
        try:
            self.reply: TypeAdapter[Any] = TypeAdapter(self.reply_type, config=_CONFIG)
        except PydanticUserError:  # a model brings its own configuration
            self.reply = TypeAdapter(self.reply_type)
        self.doc = inspect.getdoc(handler.fn) or ""
        self._validate = self.args_model.__pydantic_validator__.validate_json
        self._check_reply = self.reply.validator.validate_python
        # by_alias: as a caller, and `read_reply`, give and take it.
        self._write_reply = partial(self.reply.serializer.to_json, by_alias=True)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return a call's arguments as JSON, without judging their values.

        Raises:
            InvalidArgument: Too many, doubled or unknown arguments, or a value that JSON cannot hold.
        """
        if len(args) > len(self.params):
            msg = f"{self.owner}.{self.name} takes {len(self.params)} arguments, {len(args)} were given."
            raise InvalidArgument(msg)
        values = dict(zip(self.params, args, strict=False))
        for name, value in kwargs.items():
            if name in values or name not in self.params:
                fault = (
                    "was given twice" if name in values else f"is unknown; it takes {', '.join(self.params) or 'none'}"
                )
                msg = f"{self.owner}.{self.name}: argument {name!r} {fault}."
                raise InvalidArgument(msg)
            values[name] = value
        if not values:
            return b"{}"
        if self._has_secrets:  # they are for the entity; only what is shown of them is masked
            values = {name: revealed(value) for name, value in values.items()}
        try:
            data = to_json(values, inf_nan_mode="constants", bytes_mode="base64")
        except (PydanticSerializationError, UnicodeEncodeError, ValueError) as error:
            msg = f"{self.owner}.{self.name}: an argument cannot be written as JSON ({error}): pass plain data or pydantic models."
            raise InvalidArgument(msg) from error
        check_numbers(data, self.label)
        return data

    def parse(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return validated positional and keyword arguments from JSON.

        Raises:
            InvalidArgument: One finding per wrong argument, in ``details``.
        """
        suspicious = check_numbers(data, self.label)
        try:
            values = self._validate(data or b"{}").__dict__
        except ValidationError as error:
            raise invalid_argument(self.label, error) from None
        if suspicious:
            _refuse_wide_integers(values, self.label)  # a text of digits may have become an integer only now
        if self.keyword_only:
            return (), dict(zip(self.params, values.values(), strict=True))
        return tuple(values.values()), {}

    def masked(self, data: bytes) -> bytes:
        """Return arguments as JSON with stars for what is declared secret; empty if they are no arguments of this one."""
        try:
            values = self._validate(data or b"{}")
            return bytes(values.__pydantic_serializer__.to_json(values, by_alias=True))
        except Exception:  # noqa: BLE001 - the app's own validators run here once more, and may raise anything
            return b""

    def write_reply(self, value: object) -> bytes:
        """Return a handler's return value as JSON.

        Raises:
            TypeError: The value does not match the handler's return annotation.
        """
        try:
            return self._write_reply(self._check_reply(value))
        except (ValidationError, PydanticSerializationError) as error:
            msg = f"{self.owner}.{self.name} returned {type(value).__name__}, which its return annotation does not allow: {error}"
            raise TypeError(msg) from error

    def read_reply(self, data: bytes) -> Any:  # noqa: ANN401 - the handler's annotated reply
        """Return the reply that ``write_reply`` made ``data`` from."""
        return self.reply.validator.validate_json(data)


def check_numbers(data: bytes, where: str) -> bool:
    """Refuse JSON numbers that no store and no peer keeps exactly; return whether any looked like one.

    Raises:
        InvalidArgument: NaN, an infinity, or an integer over 64 bits.
    """
    if _SUSPICIOUS.search(data) is None:
        return False
    try:
        parsed = _strict_json(data)
    except ValueError as error:
        msg = f"{where}: {error}"
        raise InvalidArgument(msg) from error
    _refuse_wide_integers(parsed, where)
    return True


def _strict_json(data: bytes) -> object:
    import json  # noqa: PLC0415 - only for the rare suspicious payload

    def refuse(name: str) -> object:
        msg = f"the number {name} is not JSON: send null or leave the argument out."
        raise ValueError(msg)

    try:
        return json.loads(data, parse_constant=refuse)
    except (RecursionError, UnicodeDecodeError) as error:
        msg = "the arguments are not readable JSON."
        raise ValueError(msg) from error


def _refuse_wide_integers(value: object, where: str) -> None:
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, int) and item not in _INT64:
            msg = f"{where}: an integer over 64 bits, of which no peer keeps all: use a smaller one, or declare the argument as str."
            raise InvalidArgument(msg)
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, BaseModel):
            todo.extend(item.__dict__.values())
        elif isinstance(item, list | tuple | set | frozenset):
            todo.extend(item)


def invalid_argument(where: str, error: ValidationError) -> InvalidArgument:
    """Return pydantic's findings as our error."""
    details = [
        {"argument": ".".join(str(part) for part in finding["loc"]), "problem": finding["msg"]}
        for finding in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = "; ".join(f"{d['argument'] or 'arguments'}: {d['problem']}" for d in details[:3])
    return InvalidArgument(f"{where}: {first}.", details=details)


def can_suspend(fn: Callable[..., Any]) -> bool:
    """Return whether a coroutine function contains any ``await``.

    One without can be run to its end at once; one with needs a task of its own, because what it
    awaits may look for the current task.
    """
    return any(
        i.opname in {"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "BEFORE_ASYNC_WITH"} for i in dis.get_instructions(fn)
    )


@dataclass
class EntitySpec:
    """All that a class definition says about one entity type."""

    cls: Any
    kind: Kind
    type: str
    """Snake-case name: the ``{type}`` of URLs, keys and the command line."""
    state_type: Model
    events: dict[str, Model]
    """Event class by its stable name."""
    options: EntityOptions
    raw_handlers: dict[str, Handler]
    namespace: Mapping[str, Any] = field(default_factory=dict, repr=False)
    state_version: int = 1
    """Version that states and snapshots are written with."""

    @cached_property
    def handlers(self) -> dict[str, HandlerSpec]:
        """Commands and queries by name, their annotations resolved."""
        return {name: self._handler(name, handler) for name, handler in self.raw_handlers.items()}

    @cached_property
    def reminder_handler(self) -> HandlerSpec:
        """How ``on_reminder`` is called."""
        fn = self.cls.on_reminder
        return HandlerSpec(self.type, "on_reminder", Handler(fn, "command"), {"name": str, "return": type(None)})

    @cached_property
    def event_types(self) -> frozenset[Model]:
        """The declared event classes."""
        return frozenset(self.events.values())

    @cached_property
    def readers(self) -> dict[str, Callable[[bytes], Any]]:
        """How events of the present version are read, by what stands in the journal, former names included."""
        return {
            name if event.__remora_version__ == 1 else f"{name}@{event.__remora_version__}": (  # type: ignore[attr-defined]  # set on every event
                event.__pydantic_validator__.validate_json
            )
            for name, event in self.named.items()
        }

    @cached_property
    def named(self) -> dict[str, Model]:
        """Event class by its stable name and by its former ones."""
        return self.events | {
            name: event
            for event in self.events.values()
            for name in event.__remora_formerly__  # type: ignore[attr-defined]  # set on every event
        }

    @property
    def durable(self) -> bool:
        """Whether it is kept in the journal."""
        return self.kind != "transient"

    @property
    def dedicated(self) -> bool:
        """Whether each entity has an actor, and a shard row, of its own."""
        return self.options.placement == "dedicated"

    @property
    def group(self) -> str:
        """The host group of its shared entities; empty for the default one."""
        return self.options.host_group

    def shard(self, key: str, shards: int) -> str:
        """Return the shard of one of its entities.

        Args:
            key: ``type/id``.
            shards: The app's shard count.
        """
        options = self.options
        return key if options.placement == "dedicated" else shard_of(key, shards, options.host_group)

    @property
    def doc(self) -> str:
        """The class's docstring."""
        return inspect.getdoc(self.cls) or ""

    def handler(self, name: str) -> HandlerSpec:
        """Return one command or query.

        Raises:
            UnknownCommand: There is none of that name; the message lists those there are.
        """
        found = self.handlers.get(name)
        if found is None:
            msg = f"{self.type} has no command or query {name!r}; it has {', '.join(sorted(self.handlers)) or 'none'}."
            raise UnknownCommand(msg)
        return found

    def write_state(self, state: BaseModel) -> bytes:
        """Return a state as JSON that is proven to be readable.

        Reading it back costs less than writing it, and is the only proof that what is acknowledged
        now can be recovered: assignments to a model's fields are not validated.

        Raises:
            TypeError: It is no state of this type.
            ValidationError: It cannot be read back (a value of a wrong type, NaN, an infinity).
        """
        if type(state) is not self.state_type:
            msg = f"the state of {self.cls.__name__} is {self.state_type.__name__}, not {type(state).__name__}"
            raise TypeError(msg)
        data = state.__pydantic_serializer__.to_json(state, by_alias=True, round_trip=True, warnings=False)
        state.__pydantic_validator__.validate_json(data)
        return data

    def _handler(self, name: str, handler: Handler) -> HandlerSpec:
        where = f"{self.cls.__name__}.{name}"
        try:
            hints = typing.get_type_hints(handler.fn, localns=dict(self.namespace), include_extras=True)
            return HandlerSpec(self.type, name, handler, hints)
        except NameError as error:
            msg = f"{where}: an annotation names {error.name!r}, which is not defined: import it at module level, not under TYPE_CHECKING."
            raise ContractError(msg) from error
        except PydanticUserError as error:
            msg = f"{where}: pydantic cannot validate one of its annotations: {error.message}"
            raise ContractError(msg) from error


def build_spec(cls: type, kind: Kind, namespace: Mapping[str, Any]) -> EntitySpec:
    """Read and check a class definition.

    Args:
        cls: A concrete entity class.
        kind: Which of the three kinds it is.
        namespace: Local names where the class is defined, to resolve annotations.

    Raises:
        ContractError: It breaks the programming contract; the message names the fix.
    """
    parameters = _type_arguments(cls)
    state = _state_type(cls, parameters)
    events = _event_types(cls, parameters[1]) if kind == "event_sourced" else {}
    handlers = _handlers(cls)
    for name, handler in handlers.items():
        _check_handler(cls, name, handler, events, kind)
    options = getattr(cls, "options", None)
    if not isinstance(options, EntityOptions):
        msg = f"{cls.__name__}.options must be an EntityOptions, not {type(options).__name__}."
        raise ContractError(msg)
    if kind == "transient" and options.remember:
        msg = f"{cls.__name__} is Transient: nothing would remember it after a crash. Make it Durable, or leave out remember=True."
        raise ContractError(msg)
    if kind != "transient":
        _check_reminder(cls)
        for model in (state, *events.values()):
            _check_names(model)
    version = getattr(cls, "state_version", 1)
    if type(version) is not int or version < 1:
        msg = f"{cls.__name__}.state_version must be a whole number from 1, not {version!r}."
        raise ContractError(msg)
    spec = EntitySpec(cls, kind, snake_case(cls.__name__), state, events, options, handlers, namespace, version)
    try:
        _ = spec.handlers
    except ContractError as error:
        if not isinstance(error.__cause__, NameError):
            raise
        # A name defined further down the module: App() resolves it and reports it if it stays unknown.
    return spec


def _type_arguments(cls: type) -> tuple[Any, ...]:
    for klass in cls.__mro__:
        for base in getattr(klass, "__orig_bases__", ()):
            origin = typing.get_origin(base)
            if origin is not None and getattr(origin, "__remora_kind__", None) is not None:
                return typing.get_args(base)
    kind = cls.__mro__[1].__name__
    msg = f"{cls.__name__} must say its state: write `class {cls.__name__}({kind}[State…])`."
    raise ContractError(msg)


def _state_type(cls: type, parameters: tuple[Any, ...]) -> type[BaseModel]:
    state = parameters[0]
    if not (isinstance(state, type) and issubclass(state, BaseModel)):
        msg = f"The state of {cls.__name__} must be a pydantic model, not {state!r}."
        raise ContractError(msg)
    try:
        state()
    except ValidationError as error:
        missing = ", ".join(str(finding["loc"][0]) for finding in error.errors() if finding["loc"])
        msg = f"A new {cls.__name__} starts with {state.__name__}(): give {missing or 'every field'} a default."
        raise ContractError(msg) from error
    except Exception as error:
        msg = (
            f"A new {cls.__name__} starts with {state.__name__}(), which raised {error!r}: give every field a default."
        )
        raise ContractError(msg) from error
    return state


def _check_reminder(cls: type) -> None:
    fn = cls.on_reminder  # type: ignore[attr-defined]  # both journaled kinds have it
    if not inspect.iscoroutinefunction(fn) or list(inspect.signature(fn).parameters)[1:] != ["name"]:
        msg = f"{cls.__name__}.on_reminder: write `async def on_reminder(self, name: str) -> None`."
        raise ContractError(msg)


def _check_names(model: type[BaseModel]) -> None:
    """Refuse a model whose written form would not be read back: its data would be lost in silence."""
    by_name = model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name")
    for name, info in model.model_fields.items():
        where = f"{model.__name__}.{name}"
        if info.exclude:
            msg = f"{where} is excluded from what is written, and lost with the next recovery: remove exclude=True."
            raise ContractError(msg)
        if holds_secret(info.annotation):
            msg = (
                f"{where} is declared secret, and would be written as stars: keep the secret elsewhere, its name here."
            )
            raise ContractError(msg)
        written = info.serialization_alias or name
        alias = info.validation_alias
        read = set(alias.choices if isinstance(alias, AliasChoices) else [alias or name]) | (
            {name} if by_name else set()
        )
        if written not in read:
            msg = f"{where} is written as {written!r} and not read under that name: give it one alias for both ways."
            raise ContractError(msg)


def _event_types(cls: type, declared: Any) -> dict[str, type[BaseModel]]:  # noqa: ANN401 - whatever was written in the brackets
    members = (
        typing.get_args(declared) if typing.get_origin(declared) in {typing.Union, types.UnionType} else (declared,)
    )
    events: dict[str, type[BaseModel]] = {}
    for member in members:
        name = getattr(member, "__remora_event__", None)
        if name is None:
            msg = f"{cls.__name__} declares {member!r} as an event: derive it from remora.Event."
            raise ContractError(msg)
        if name in events:
            msg = f"{cls.__name__} declares two events named {name!r}: rename one."
            raise ContractError(msg)
        events[name] = member
    _check_former_names(cls, events)
    return events


def _check_former_names(cls: type, events: Mapping[str, Any]) -> None:
    """Refuse a name of the past that two events would be read from."""
    taken = {name: event.__name__ for name, event in events.items()}
    for event in events.values():
        for name in event.__remora_formerly__:
            if name in taken:
                msg = f"{cls.__name__}: {event.__name__} was formerly {name!r}, a name that {taken[name]} has: one name is read as one event."
                raise ContractError(msg)
            taken[name] = event.__name__


def _handlers(cls: type) -> dict[str, Handler]:
    return {
        name: value
        for klass in reversed(cls.__mro__)
        for name, value in vars(klass).items()
        if isinstance(value, Handler)
    }


def _check_handler(cls: type, name: str, handler: Handler, events: Mapping[str, type], kind: Kind) -> None:
    where = f"{cls.__name__}.{name}"
    fn = handler.fn
    if name in REFERENCE_NAMES or name.startswith("_"):
        msg = f"{where}: {name!r} is a name that references keep for themselves: choose another."
        raise ContractError(msg)
    if name in _ENTITY_NAMES:
        msg = f"{where}: {name!r} is a name that every entity has already: choose another."
        raise ContractError(msg)
    if not inspect.iscoroutinefunction(fn):
        msg = f"{where} must be async: write `async def {name}(…)`."
        raise ContractError(msg)
    signature = inspect.signature(fn)
    if signature.return_annotation is signature.empty:
        msg = f"{where} lacks a return annotation: write `-> None` if it returns nothing."
        raise ContractError(msg)
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
            msg = f"{where}: parameter {parameter.name!r} must be an ordinary named one, so that HTTP and the command line can give it."
            raise ContractError(msg)
        if parameter.annotation is parameter.empty:
            msg = f"{where}: parameter {parameter.name!r} lacks an annotation, by which its values are validated."
            raise ContractError(msg)
    if handler.in_thread and can_suspend(fn):
        msg = f"{where} is to run in a thread and awaits: take run_in='thread' away, or what it awaits."
        raise ContractError(msg)
    _check_effects(where, handler, events, kind)


def _check_effects(where: str, handler: Handler, events: Mapping[str, type], kind: Kind) -> None:
    used = _EFFECTS.intersection(handler.fn.__code__.co_names)
    if handler.kind == "query" and used:
        msg = f"{where} is a query and uses {', '.join(sorted(used))}: a query changes nothing; make it a command."
        raise ContractError(msg)
    if kind != "event_sourced" and "emit" in used:
        msg = f"{where} emits, which only an EventSourced entity can: change self.state instead."
        raise ContractError(msg)
    for event in _emitted(handler.fn):
        if event not in events.values():
            msg = f"{where} emits {event.__name__}, which is not declared: write EventSourced[State, … | {event.__name__}]."
            raise ContractError(msg)


def _emitted(fn: Callable[..., Any]) -> list[type]:
    """Return the event classes that ``self.emit(Name(…))`` names in the function's code."""
    instructions = list(dis.get_instructions(fn))
    found = []
    for here, following in pairwise(instructions):
        if here.argval == "emit" and following.opname == "LOAD_GLOBAL":
            value = fn.__globals__.get(following.argval)
            if getattr(value, "__remora_event__", None) is not None:
                found.append(typing.cast("type", value))
    return found
