"""The OpenAPI document says what the gateway does."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from pydantic_core import core_schema

from entities.flights import app as flights
from remora import App, Durable, Transient, command, query
from remora.gateway.asgi import Gateway
from remora.gateway.openapi import openapi
from tests.unit.gateway.asking import ask
from tests.unit.gateway.shop import app


@pytest.fixture(name="document", scope="module")
def _document() -> dict[str, Any]:
    return openapi(app, "1")


def everywhere(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from everywhere(part)


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, found) for path, of in document["paths"].items() for method, found in of.items()]


@pytest.mark.parametrize("of", [app, flights], ids=lambda app: app.name)
def test_the_document_is_valid_openapi_with_valid_schemas(of: App) -> None:
    document = openapi(of, "1")

    OpenAPI.model_validate(document)
    for found in everywhere(document):
        if isinstance(found.get("schema"), dict):
            Draft202012Validator.check_schema(found["schema"])
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(document)) == document


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [found["$ref"] for found in everywhere(document) if isinstance(found.get("$ref"), str)]

    for reference in references:
        value: Any = document
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]
    assert references


def test_every_command_and_query_is_an_operation(document: dict[str, Any]) -> None:
    for spec in app.specs.values():
        for name, handler in spec.handlers.items():
            of = document["paths"][f"/v1/{spec.type}/{{id}}/{name}"]
            assert set(of) == ({"get", "post"} if handler.is_query else {"post"})


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [found["operationId"] for _, _, found in operations(document)]

    assert len(set(ids)) == len(ids)


def test_every_operation_may_answer_with_a_problem(document: dict[str, Any]) -> None:
    assert {str(found["responses"]["default"]) for _, _, found in operations(document)} == {
        "{'$ref': '#/components/responses/Problem'}"
    }


def test_arguments_and_replies_have_the_schemas_of_their_annotations(document: dict[str, Any]) -> None:
    deposit = document["paths"]["/v1/account/{id}/deposit"]["post"]
    body = deposit["requestBody"]["content"]["application/json"]["schema"]
    arguments = document["components"]["schemas"][body["$ref"].rpartition("/")[2]]

    assert arguments["properties"]["amount"] == {"exclusiveMinimum": 0, "title": "Amount", "type": "integer"}
    assert (arguments["required"], arguments["additionalProperties"]) == (["amount"], False)
    assert deposit["requestBody"]["required"] is True
    assert deposit["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "integer"}


def test_a_query_has_its_arguments_as_parameters(document: dict[str, Any]) -> None:
    find = document["paths"]["/v1/notebook/{id}/find"]["get"]
    named = {found["name"]: found for found in find["parameters"] if "name" in found}

    assert set(named) == set(app.specs["notebook"].handler("find").params)
    assert named["limit"]["schema"]["default"] == 10
    assert not any(found["required"] for found in named.values())


def test_only_commands_take_an_idempotency_key(document: dict[str, Any]) -> None:
    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    takes = {(path, method) for path, method, found in operations(document) if key in found.get("parameters", [])}

    assert ("/v1/account/{id}/deposit", "post") in takes
    assert ("/v1/account/{id}/balance", "post") not in takes


def test_a_transient_type_says_that_it_is_in_memory_only(document: dict[str, Any]) -> None:
    told = {tag["name"]: tag["description"] for tag in document["tags"]}

    assert "Memory only" in told["presence"]
    assert "Memory only" not in told["counter"]


def test_event_sourced_types_alone_have_events(document: dict[str, Any]) -> None:
    assert [path for path in document["paths"] if path.endswith("/events")] == ["/v1/account/{id}/events"]


async def test_a_problem_matches_its_schema(gateway: Gateway, document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["Problem"]
    answers = [
        await ask(gateway, "POST", "/v1/account/a/deposit", b'{"amount": 0}'),
        await ask(gateway, "POST", "/v1/account/a/withdraw", b'{"amount": 1}'),
        await ask(gateway, "PUT", "/v1/account/a/deposit"),
    ]

    for answer in answers:
        Draft202012Validator(schema).validate(answer.json)


class Left:
    class Count(BaseModel):
        value: int = 0

    class Keeper(Durable[Count]):
        @command
        async def copy(self, schema: "Left.Count") -> "Left.Count":
            return schema


class Right:
    class Count(BaseModel):
        text: str = ""

    class Watcher(Transient[Count]):
        @query
        async def copy(self, schema: "Right.Count") -> "Right.Count":
            return schema


def test_two_models_of_one_name_get_two_schemas() -> None:
    document = openapi(App("clash", entities=[Left.Keeper, Right.Watcher]), "1")
    schemas = document["components"]["schemas"]

    OpenAPI.model_validate(document)
    assert sorted(next(iter(schemas[name]["properties"])) for name in schemas if "Count" in name) == ["text", "value"]


class Opaque:
    """Something that pydantic can check and JSON Schema cannot describe."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: object) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(cls)


class Maker(Durable[Left.Count]):
    @query
    async def make(self) -> Opaque:
        return Opaque()


def test_a_type_that_json_schema_cannot_describe_is_anything() -> None:
    document = openapi(App("maker", entities=[Maker]), "1")
    answer = document["paths"]["/v1/maker/{id}/make"]["get"]["responses"]["200"]

    OpenAPI.model_validate(document)
    assert answer["content"]["application/json"]["schema"] == {}
