"""The name of a class, or of a type of values, stands for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import measnet

ROOT = Path(measnet.__file__).parent


def named(module: Path) -> Iterator[str]:
    """Classes at the top of a module, and names that it gives to types: ``Pixels = NDArray[...]``."""
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign)
            else []
        )
        for target in targets:
            if isinstance(target, ast.Name) and target.id[0].isupper() and not target.id.isupper():
                yield target.id


def test_no_two_classes_have_one_name() -> None:
    modules: dict[str, list[str]] = defaultdict(list)
    for stage in (ROOT, *(link.resolve() for link in ROOT.iterdir() if link.is_symlink())):
        for module in stage.rglob("*.py"):
            for name in named(module):
                modules[name].append(f"{stage.name}/{module.relative_to(stage)}")
    assert len(modules) > 300 and {"Pixels", "Restorer", "PackJob", "Graph"} <= set(modules)
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}
