"""What an operator says in a file: read, or refused with the place of each mistake."""

import pytest

from entities.account import app
from remora import Backoff, StartError, on
from remora.app import AppSource
from remora.config import AS_CODED, read_config

RULES = """
supervision:
  entities:
    account:
      - exceptions: [ValueError]
        directive: restart
        backoff: {min_s: 0.5}
"""


def test_rules_of_a_file_stand_in_the_place_of_those_of_the_code_and_leave_the_code_as_it_is() -> None:
    config = read_config(RULES, "bank.yaml")

    configured = AppSource("entities.account:app", config).load()

    assert configured.rules["account"][0] == (on(ValueError).restart(Backoff(min_s=0.5)),)
    assert configured.specs == app.specs
    assert app.rules["account"][0] == ()
    assert AppSource("entities.account:app").load() is app


@pytest.mark.parametrize("text", ["", "{}", "# nothing\n"])
def test_a_file_that_says_nothing_changes_nothing(text: str) -> None:
    assert read_config(text, "bank.yaml") == AS_CODED
    assert app.configured(read_config(text, "bank.yaml")) is app


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("supervision: [", "bank.yaml is no YAML"),
        ("- a list", "bank.yaml: it: Input should be a valid dictionary"),
        ("supervison: {}", "supervison: Extra inputs"),
        ("supervision: {shard: [{directive: explode}]}", r"supervision.shard.0.directive: .*'restart'"),
        ("supervision: {shard: [{on: ValueError}]}", "write `exceptions:`"),
        ("supervision: {shard: [{exceptions: Rejected}]}", "never a failure"),
        ("supervision: {shard: !!python/object/apply:os.getpid []}", "bank.yaml is no YAML"),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_nothing_of_the_file_is_run(text: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        read_config(text, "bank.yaml")


def test_a_type_that_the_app_does_not_have_is_refused() -> None:
    with pytest.raises(StartError, match="names 'acount'; the app has account"):
        AppSource("entities.account:app", read_config(RULES.replace("account", "acount"), "bank.yaml")).load()
