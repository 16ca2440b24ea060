"""From texts in a URL to typed arguments."""

import string
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remora.errors import InvalidArgument
from remora.gateway.arguments import QueryString
from remora.gateway.asgi import Gateway
from tests.unit.gateway.asking import ask
from tests.unit.gateway.shop import Notebook

FIND = "/v1/notebook/n/find"


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("text=10", "text", "10"),
        ("text=", "text", ""),
        ("text=a%20b+c%26d%3De", "text", "a b c&d=e"),
        ("text=%F0%9F%90%9F", "text", "🐟"),
        ("text=true", "text", "true"),
        ("text=[1]", "text", "[1]"),
        ("limit=3", "limit", 3),
        ("limit=-3", "limit", -3),
        ("limit=007", "limit", 7),
        ("exact=true", "exact", True),
        ("exact=1", "exact", True),
        ("exact=off", "exact", False),
        ("weight=2.5e1", "weight", 25.0),
        ("numbers=1", "numbers", [1]),
        ("numbers=1&numbers=2", "numbers", [1, 2]),
        ("words=1", "words", ["1"]),
        ("words=b&words=a", "words", ["b", "a"]),
        ("since=2013-01-01T05:00:00Z", "since", "2013-01-01T05:00:00Z"),
        ("shape=%7B%22width%22%3A2%7D", "shape", {"width": 2, "height": 1}),
        ("strict=5", "strict", 5),
        ("level=2", "level", 2),
        ("copy=x", "copy", "x"),
        ("", "text", ""),
    ],
)
async def test_a_text_becomes_what_the_annotation_says(gateway: Gateway, query: str, name: str, value: object) -> None:
    answer = await ask(gateway, "GET", f"{FIND}?{query}")

    assert answer.status == 200, answer.json
    assert answer.json[name] == value


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=three", "limit: Input should be a valid integer"),
        ("limit=1.5", "limit: Input should be a valid integer"),
        ("limit=", "limit: Input should be a valid integer"),
        ("limit=9223372036854775808", "over 64 bits"),
        ("limit=1&limit=2", "'limit' is given 2 times"),
        ("weight=NaN", "weight: Input should be a finite number"),
        ("weight=Infinity", "weight: Input should be a finite number"),
        ("exact=maybe", "exact: Input should be a valid boolean"),
        ("numbers=1&numbers=x", "numbers.1: Input should be a valid integer"),
        ("numbers=1&numbers=2&numbers=3&numbers=4", "at most 3 items"),
        ("since=yesterday", "since: Input should be a valid datetime"),
        ("shape={}", "shape.width: Field required"),
        ("shape={", "shape: Input should be"),
        ("shape=" + "[" * 3000, "shape: Input should be"),
        ("level=3", "level: Input should be 1 or 2"),
        ("colour=red", "colour: Extra inputs are not permitted"),
        ("text=%FF", "not percent-encoded UTF-8"),
    ],
)
async def test_a_text_that_does_not_fit_is_named(gateway: Gateway, query: str, says: str) -> None:
    answer = await ask(gateway, "GET", f"{FIND}?{query}")

    assert (answer.status, answer.json["code"]) == (422, "invalid_argument")
    assert says in answer.json["detail"]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["text", "limit", "numbers", "shape", "x"]), st.text(max_size=8))))
def test_every_query_string_gives_arguments_or_invalid_argument(pairs: list[tuple[str, str]]) -> None:
    handler = Notebook.__remora__.handler("find")
    query = urlencode(pairs, errors="surrogatepass").encode()
    values: tuple[tuple[Any, ...], dict[str, Any]] | None

    try:
        values = handler.parse(QueryString(handler).arguments(query))
    except InvalidArgument as error:
        assert error.message.startswith("notebook.find: ")  # noqa: PT017 - both outcomes are right
        values = None

    assert values is None or set(values[1]) == set(handler.params)


@settings(max_examples=50)
@given(st.text(alphabet=string.printable, max_size=20))
def test_a_text_arrives_as_it_was(text: str) -> None:
    handler = Notebook.__remora__.handler("find")

    _, values = handler.parse(QueryString(handler).arguments(urlencode({"text": text}).encode()))

    assert values["text"] == text
