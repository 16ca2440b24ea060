"""In which order the parts of an app start: decided when the app is defined."""

import types
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remora import App, ContractError, Durable, Entity, EntityOptions, HostGroup, Readiness
from remora.supervision.order import Declared, Order, Part, arranged, group_part, type_part
from remora.supervision.readiness import names, readiness
from tests.things import Box, Flat, Till


async def ready() -> bool:
    return True


def entity(name: str, options: EntityOptions) -> type[Entity[Flat]]:
    """Return an entity class of that name."""
    return types.new_class(name, (Durable[Flat],), exec_body=lambda body: body.update(options=options))


def places(order: Order) -> dict[str, int]:
    """Return in which stage each part is, by what people call it."""
    return {str(part): number for number, stage in enumerate(order.stages) for part in stage}


# -- what an app declares ------------------------------------------------------------------------------


def test_a_type_comes_after_the_types_it_depends_on_and_after_its_hosts() -> None:
    till = entity("Late", EntityOptions(depends_on=("box", Till)))

    order = App("shop", entities=[till, Box, Till]).order

    at = places(order)
    assert at["the shared hosts"] < at["box"] < at["late"]
    assert at["till"] < at["late"]
    assert order.gated == {"late": ""}


def test_a_host_group_comes_after_the_groups_it_depends_on_and_after_all_that_lives_there() -> None:
    model = entity("Model", EntityOptions(host_group="gpu"))
    groups = {"gpu": HostGroup(depends_on=("shared",)), "far": HostGroup(depends_on=("gpu",))}

    order = App("shop", entities=[Box, model], host_groups=groups).order

    at = places(order)
    assert at["the shared hosts"] < at["box"] < at["host group gpu"] < at["model"] < at["host group far"]
    assert order.gated == {}, "its hosts are waited for, the type itself has nothing to wait for"


def test_a_group_comes_after_the_groups_of_the_types_that_it_waits_for() -> None:
    model = entity("Model", EntityOptions(host_group="gpu"))
    shop = entity("Shop", EntityOptions(depends_on=("model",)))
    report = entity("Report", EntityOptions(host_group="reports"))
    groups = {"gpu": HostGroup(), "reports": HostGroup(depends_on=("shared",))}

    app = App("shop", entities=[model, shop, report], host_groups=groups)

    assert app.order.groups_before("reports") == {"", "gpu"}
    assert app.layout.after == {"reports": {"", "gpu"}}


def test_types_that_depend_on_each_other_do_not_hold_up_each_others_hosts() -> None:
    model = entity("Model", EntityOptions(host_group="gpu"))
    late = entity("Late", EntityOptions(depends_on=("model",)))

    order = App("shop", entities=[late, model], host_groups={"gpu": HostGroup()}).order

    assert order.after[group_part("")] == order.after[group_part("gpu")] == ()


def test_an_app_that_declares_nothing_has_nothing_to_wait_for() -> None:
    order = App("shop", entities=[Box, Till]).order

    assert not order.declared
    assert order.gated == {}
    assert order.gated_on("") == []


@pytest.mark.parametrize(
    ("entities", "groups", "circle"),
    [
        ({"Aa": ("bb",), "Bb": ("aa",)}, {}, "aa → bb → aa"),
        ({"Aa": ("aa",)}, {}, "aa → aa"),
        ({"Aa": (), "Bb": ("aa", "dd"), "Cc": ("bb",), "Dd": ("cc",)}, {}, "bb → dd → cc → bb"),
        ({"Aa": ()}, {"one": ("two",), "two": ("one",)}, "host group one → host group two → host group one"),
    ],
)
def test_a_circle_is_refused_when_the_app_is_defined_and_named(
    entities: dict[str, tuple[str, ...]], groups: dict[str, tuple[str, ...]], circle: str
) -> None:
    classes = [entity(name, EntityOptions(depends_on=before)) for name, before in entities.items()]

    with pytest.raises(ContractError) as refused:
        App("shop", entities=classes, host_groups={name: HostGroup(depends_on=one) for name, one in groups.items()})

    assert f" {circle}: take one of these depends_on away." in refused.value.message


def test_a_circle_through_a_group_and_what_lives_there_is_named_too() -> None:
    model = entity("Model", EntityOptions(host_group="gpu"))
    early = entity("Early", EntityOptions(depends_on=("model",)))

    with pytest.raises(ContractError, match=" host group gpu → early → model → host group gpu:"):
        App("shop", entities=[early, model], host_groups={"gpu": HostGroup(depends_on=("shared",))})


def test_what_the_app_does_not_have_is_refused_with_what_it_has() -> None:
    with pytest.raises(ContractError, match="'late' depends on 'boxes', which the app does not have; it has box, late"):
        App("shop", entities=[entity("Late", EntityOptions(depends_on=("boxes",))), Box])
    with pytest.raises(ContractError, match="'gpu' depends on 'cpu', which the app does not have; it has gpu, shared"):
        App("shop", entities=[Box], host_groups={"gpu": HostGroup(depends_on=("cpu",))})
    with pytest.raises(ContractError, match="'shared' stands for the hosts that every app has"):
        App("shop", entities=[Box], host_groups={"shared": HostGroup()})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: EntityOptions(depends_on="account"),  # type: ignore[arg-type]  # the mistake
        lambda: HostGroup(depends_on=["gpu"]),  # type: ignore[arg-type]  # the mistake
        lambda: EntityOptions(ready_when=ready),  # type: ignore[arg-type]  # the mistake
        lambda: EntityOptions(ready_when=("database",)),  # type: ignore[arg-type]  # the mistake
        lambda: HostGroup(ready_when=(lambda url: url,)),  # type: ignore[arg-type,misc]  # the mistake
        lambda: Readiness(ready, timeout_s=0),
        lambda: Readiness(ready, every_s=-1),
    ],
)
def test_declarations_that_cannot_work_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"ready_when|depends_on|Readiness|readiness check|without arguments"):
        wrong()


def test_a_bare_function_stands_for_a_check_and_a_class_for_its_name() -> None:
    (check,) = readiness((ready,), "App")

    assert (check.name, check.check) == ("ready", ready)
    assert names((Box, "till"), "App") == ("box", "till")


# -- what follows from it, whatever is declared --------------------------------------------------------


@st.composite
def declared(draw: st.DrawFn) -> tuple[dict[str, Declared], dict[str, Declared]]:
    """Groups and types that depend on some that come before them, so never in a circle."""
    groups: dict[str, Declared] = {}
    kinds: dict[str, Declared] = {}
    for number in range(draw(st.integers(0, 3))):
        before = draw(st.sets(st.sampled_from(sorted(groups)))) if groups else set()
        groups[f"g{number}"] = Declared(tuple(sorted(before)))
    for number in range(draw(st.integers(1, 6))):
        home = draw(st.sampled_from([None, "", *sorted(groups)]))
        # Those on one and the same kind of host only: between hosts, groups may say the opposite.
        earlier = sorted(name for name, one in kinds.items() if one.group in {home, None})
        before = draw(st.sets(st.sampled_from(earlier))) if earlier else set()
        kinds[f"t{number}"] = Declared(tuple(sorted(before)), group=home)
    return groups, kinds


@given(declared())
def test_every_part_starts_once_and_after_all_that_it_waits_for(
    given_: tuple[dict[str, Declared], dict[str, Declared]],
) -> None:
    groups, kinds = given_
    order = arranged("shop", groups, kinds)

    started: set[Part] = set()
    for stage in order.stages:
        assert all(started.issuperset(order.after[part]) for part in stage)
        assert started.isdisjoint(stage)
        started.update(stage)
    assert started == {group_part(""), *map(group_part, groups), *map(type_part, kinds)}
    for name, one in kinds.items():
        assert {*map(type_part, one.depends_on)} <= {*order.after[type_part(name)]}


@given(declared(), st.randoms(use_true_random=False))
def test_whatever_becomes_ready_first_something_is_always_due_until_all_is(
    given_: tuple[dict[str, Declared], dict[str, Declared]], rng: object
) -> None:
    order = arranged("shop", *given_)
    reached: set[Part] = set()

    while len(reached) < len(order.after):
        due = order.due(reached)
        assert due
        assert all(not order.missing(part, reached) for part in due)
        reached.add(rng.choice(due))  # type: ignore[attr-defined]  # a random.Random

    assert order.due(reached) == []


@given(declared(), st.data())
def test_with_a_way_back_added_there_is_no_order(
    given_: tuple[dict[str, Declared], dict[str, Declared]], data: st.DataObject
) -> None:
    groups, kinds = given_
    dependent = [name for name, one in kinds.items() if one.depends_on]
    if not dependent:
        return
    last = data.draw(st.sampled_from(dependent))
    first = data.draw(st.sampled_from(kinds[last].depends_on))
    kinds[first] = kinds[first]._replace(depends_on=(*kinds[first].depends_on, last))

    with pytest.raises(ContractError, match=" → "):
        arranged("shop", groups, kinds)
