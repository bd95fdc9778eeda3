"""Lists TensorRT's Python API -> tests/data/tensorrt_api.json, for tests/export/test_conformance.py.

    python bench/tensorrt_api.py 10.16=api-10.16.txt 11.4=api-11.4.txt rtx-1.7=api-rtx-1.7.txt

A listing has one name per line, as read out of a binding wheel: ``enum X``, ``X.MEMBER = 1``,
``class X(Base)``, ``def X.method(self, name: Type = default) -> Type``, ``prop X.name -> Type [rw]``. Names,
kinds, parameter names and types are kept; numbers are left out on purpose: we must never use one.
Classes of layers and plugins are left out because we make none.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

OUT = Path(__file__).parents[1] / "tests" / "data" / "tensorrt_api.json"
LEFT_OUT = re.compile(
    r"(?:Layer|Plugin|Operation|Attention|MoE|Loop|KVCache|DimsExpr|Dims\w+|Collective|DLA)"
)


def main() -> None:
    versions = dict(argument.split("=", 1) for argument in sys.argv[1:])
    apis = {version: api_of(Path(path).read_text()) for version, path in versions.items()}
    OUT.write_text(json.dumps(apis, separators=(",", ":"), sort_keys=True) + "\n")
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")


def api_of(listing: str) -> dict[str, Any]:
    """Classes by name: {"bases": [...], "members": {name: kind}}; functions under the class "".

    A kind is "value", "ro TYPE", "rw TYPE" or a list of overloads, [[[name, type, required], ...], returned].
    """
    classes: dict[str, Any] = {"": {"bases": [], "members": {}}}
    for line in listing.splitlines():
        if match := re.match(r"(?:enum|class) ([\w.]+)(?:\((.*)\))?$", line):
            classes[match[1]] = {
                "bases": [b.strip() for b in (match[2] or "").split(",") if b],
                "members": {},
            }
    for line in listing.splitlines():
        if match := re.match(r"(?:def|static) ([\w.]+)\((.*)\)(?: -> (.*))?$", line):
            owner, _, name = match[1].rpartition(".")
            overload = [parameters(match[2]), simple(match[3] or "None")]
            _members(classes, owner).setdefault(name, []).append(overload)
        elif match := re.match(r"prop ([\w.]+)(?: -> (.*))? \[(r[ow])\]$", line):
            owner, _, name = match[1].rpartition(".")
            _members(classes, owner)[name] = f"{match[3]} {simple(match[2] or '')}"
        elif match := re.match(r"(?:const |value )?([\w.]+)\.(\w+) = ", line):
            _members(classes, match[1])[match[2]] = "value"
    return {name: found for name, found in classes.items() if not LEFT_OUT.search(name)}


def _members(classes: dict[str, Any], owner: str) -> dict[str, Any]:
    members: dict[str, Any] = classes.setdefault(owner, {"bases": [], "members": {}})["members"]
    return members


def parameters(text: str) -> list[list[Any]]:
    """``self, a: T, b: list[T] = x`` -> [["a", "T", true], ["b", "list", false]]."""
    found, depth, start = [], 0, 0
    for index, letter in enumerate(text + ","):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            part, start = text[start:index].strip(), index + 1
            if part and part != "self":
                declared, _, default = part.partition(" = ")
                name, _, kind = declared.partition(":")
                found.append([name.strip(), simple(kind), not default])
    return found


def simple(kind: str) -> str:
    """The class that a type is or, for a container, the container's."""
    return re.split(r"[\[| ]", kind.strip())[0]


if __name__ == "__main__":
    main()
