"""Renders the overlays: the small part of kustomize that they use.

What it does not know it refuses, so that an overlay cannot come to mean something else here than in ``kubectl``.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]
_Place = dict[str, Any] | list[Any]
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "patches"}


def render(folder: Path) -> list[Resource]:
    """Return the resources of a folder with a kustomization.yaml, patches applied."""
    kustomization = yaml.load((folder / "kustomization.yaml").read_text(), Loader=yaml.CSafeLoader)
    if unknown := set(kustomization) - _KNOWN:
        msg = f"{folder}: this renderer does not know {sorted(unknown)}."
        raise ValueError(msg)
    resources: list[Resource] = []
    for entry in kustomization["resources"]:
        path = folder / entry
        resources += render(path) if path.is_dir() else list(yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))
    for resource in resources:
        if "namespace" in kustomization:
            resource["metadata"]["namespace"] = kustomization["namespace"]
    for patch in kustomization.get("patches", []):
        if set(patch) != {"path", "target"} or set(patch["target"]) != {"kind", "name"}:
            msg = f"{folder}: a patch has a path and a target of kind and name."
            raise ValueError(msg)
        steps = yaml.load((folder / patch["path"]).read_text(), Loader=yaml.CSafeLoader)
        # Exactly one: kustomize leaves out a patch without a target in silence.
        [index] = [i for i, r in enumerate(resources) if _is(r, patch["target"])]
        resources[index] = apply_json_patch(resources[index], steps)
    return resources


def apply_json_patch(resource: Resource, steps: list[dict[str, Any]]) -> Resource:
    """Return the resource with the steps of a JSON patch (RFC 6902) applied.

    Raises:
        LookupError: A step names a place that is not there, or a ``test`` step does not hold.
    """
    document = copy.deepcopy(resource)
    for step in steps:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place: Any = document
        for part in parents:
            place = place[_key(place, part)]
        _apply(place, last, step)
    return document


def _apply(place: _Place, last: str, step: dict[str, Any]) -> None:
    value = copy.deepcopy(step.get("value"))
    inside: Any = place
    match step["op"]:
        case "add" if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), value)
        case "add":
            inside[last] = value
        case "replace":
            inside[_key(place, last)] = value
        case "remove":
            del inside[_key(place, last)]
        case "test":
            found = inside[_key(place, last)]
            if found != value:
                msg = f"{step['path']} is {found!r}, not {value!r}."
                raise LookupError(msg)
        case other:
            msg = f"This renderer does not know the step {other!r}."
            raise ValueError(msg)


def _key(place: _Place, part: str) -> int | str:
    """Return the key of something that is there: ``replace`` must not create."""
    if isinstance(place, list):
        place[int(part)]
        return int(part)
    place[part]
    return part


def _is(resource: Resource, target: dict[str, str]) -> bool:
    return bool(resource["kind"] == target["kind"] and resource["metadata"]["name"] == target["name"])
