"""Every TensorRT name, member and keyword in our code exists in TensorRT 10.16, in 11.4 and in TensorRT-RTX.

TensorRT cannot be installed on every machine, so our code is read instead: whatever is called ``trt`` is the
package, its classes are followed through calls, properties and annotations, and each use is held against
tests/data/tensorrt_api.json (``python bench/tensorrt_api.py`` makes it from listings of the real bindings).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src/measnet", "train", "export", "calibration", "runtime")
API: dict[str, dict[str, Any]] = json.loads((ROOT / "tests/data/tensorrt_api.json").read_text())
VERSIONS = sorted(API)
PACKAGES = ("tensorrt", "tensorrt_rtx", "tensorrt_bindings", "tensorrt_rtx_bindings", "tensorrt_lean")


@dataclass(frozen=True)
class Type:
    """Kind of an expression: the package, a class of it, an object of a class, or a method or function."""

    kind: str
    name: str = ""
    member: str = ""


PACKAGE = Type("package")


@dataclass
class Reader:
    """Reads one file against one version; ``complaints`` and ``checked`` fill up."""

    api: dict[str, Any]
    complaints: list[str] = field(default_factory=list)
    checked: set[str] = field(default_factory=set)
    returns: dict[str, Type] = field(default_factory=dict)
    """Return annotations of our own functions and properties, by name."""

    fields: dict[str, Type] = field(default_factory=dict)
    """Annotations of ``self.NAME``."""

    def read(self, source: str) -> Reader:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            if isinstance(node, ast.FunctionDef) and (known := self._annotated(node.returns)):
                self.returns[node.name] = known
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                kept = self._annotated(node.annotation)
                if kept and isinstance(node.target.value, ast.Name) and node.target.value.id == "self":
                    self.fields[node.target.attr] = kept
        self._block(tree.body, {"trt": PACKAGE})
        return self

    def _say(self, node: ast.AST, text: str) -> None:
        self.complaints.append(f"line {getattr(node, 'lineno', 0)}: {text}")

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom):
            if (node.module or "").split(".")[0] in PACKAGES:
                self._say(node, "import the package as trt, so that its names can be followed")
            return
        for alias in node.names:
            if alias.name.split(".")[0] in PACKAGES and alias.asname != "trt":
                self._say(node, f"{alias.name} must be imported as trt")

    def _block(self, body: list[ast.stmt], known: dict[str, Type]) -> None:
        for statement in body:
            self._statement(statement, known)

    def _statement(self, node: ast.stmt, known: dict[str, Type]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = dict(known)
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                found = self._annotated(argument.annotation)
                if found:
                    inner[argument.arg] = found
                elif argument.arg != "trt":
                    inner.pop(argument.arg, None)
            self._annotated(node.returns)
            self._block(node.body, inner)
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                parent = self._type(base, known)
                if parent and parent.kind == "class":
                    self._overrides(node, parent.name)
            self._block(node.body, dict(known))
        elif isinstance(node, ast.Assign):
            value = self._type(node.value, known)
            for target in node.targets:
                self._assign(target, value, known)
        elif isinstance(node, ast.AnnAssign):
            value = self._type(node.value, known) if node.value else None
            self._assign(node.target, self._annotated(node.annotation) or value, known)
        else:
            for _name, child in ast.iter_fields(node):
                for part in child if isinstance(child, list) else [child]:
                    if isinstance(part, ast.stmt):
                        self._statement(part, known)
                    elif isinstance(part, ast.ExceptHandler | ast.match_case):
                        self._block(part.body, known)
                    elif isinstance(part, ast.withitem):
                        found = self._type(part.context_expr, known)
                        if part.optional_vars is not None:
                            self._assign(part.optional_vars, found, known)
                    elif isinstance(part, ast.expr):
                        self._type(part, known)

    def _assign(self, target: ast.expr, value: Type | None, known: dict[str, Type]) -> None:
        if isinstance(target, ast.Name):
            if value is not None:
                known[target.id] = value
            elif target.id != "trt":
                known.pop(target.id, None)
        elif isinstance(target, ast.Attribute):
            owner = self._type(target.value, known)
            if owner and owner.kind == "object":
                member = self._member(target, owner.name, target.attr)
                if member is not None and not str(member).startswith("rw "):
                    self._say(target, f"{owner.name}.{target.attr} cannot be set")
        else:
            for part in ast.iter_child_nodes(target):
                if isinstance(part, ast.expr):
                    self._type(part, known)

    def _type(self, node: ast.expr, known: dict[str, Type]) -> Type | None:
        """Finds the kind of ``node``, None if it is nothing of TensorRT's; checks all inside on the way."""
        if isinstance(node, ast.Name):
            return known.get(node.id)
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return self.fields.get(node.attr) or self.returns.get(node.attr)
            return self._attribute(node, self._type(node.value, known))
        if isinstance(node, ast.Call):
            return self._call(node, known)
        if isinstance(node, ast.Lambda):
            return self._type(node.body, known) and None
        if isinstance(node, ast.NamedExpr):
            value = self._type(node.value, known)
            self._assign(node.target, value, known)
            return value
        if isinstance(node, ast.IfExp):
            self._type(node.test, known)
            return self._type(node.body, known) or self._type(node.orelse, known)
        inner = dict(known)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.comprehension):
                self._type(child.iter, inner)
                for condition in child.ifs:
                    self._type(condition, inner)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._type(child, inner)
        return None

    def _attribute(self, node: ast.Attribute, owner: Type | None) -> Type | None:
        if owner is None:
            return None
        if owner.kind == "package":
            if node.attr in self.api:
                self.checked.add(node.attr)
                return Type("class", node.attr)
            if node.attr in self.api[""]["members"]:
                self.checked.add(node.attr)
                return Type("method", "", node.attr)
            if node.attr != "__version__":
                self._say(node, f"there is no trt.{node.attr}")
            return None
        if owner.kind == "class" and f"{owner.name}.{node.attr}" in self.api:
            return Type("class", f"{owner.name}.{node.attr}")
        if owner.kind == "method":
            return None
        member = self._member(node, owner.name, node.attr)
        if isinstance(member, list):
            return Type("method", owner.name, node.attr)
        if isinstance(member, str) and member != "value":
            return self._named(member.partition(" ")[2])
        return None

    def _member(self, node: ast.AST, owner: str, name: str) -> Any:
        """A member of a class or of what it is made from; a complaint if there is none."""
        for place in self._line(owner):
            if name in self.api[place]["members"]:
                self.checked.add(f"{place}.{name}")
                return self.api[place]["members"][name]
        if not (name.startswith("__") and name.endswith("__")):
            self._say(node, f"{owner} has no {name}")
        return None

    def _line(self, owner: str) -> Iterator[str]:
        yield owner
        for base in self.api[owner]["bases"]:
            if base in self.api:
                yield from self._line(base)

    def _call(self, node: ast.Call, known: dict[str, Type]) -> Type | None:
        for argument in (*node.args, *(keyword.value for keyword in node.keywords)):
            self._type(argument, known)
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) >= 2:
            return self._getattr(node, known)
        called = self._type(node.func, known)
        if called is None or called.kind == "object":  # an object that is called is our own function's
            return self.returns.get(node.func.id) if isinstance(node.func, ast.Name) else called
        if called.kind == "class":
            overloads = next(
                (
                    self.api[place]["members"]["__init__"]
                    for place in self._line(called.name)
                    if "__init__" in self.api[place]["members"]
                ),
                None,
            )
            if overloads is not None:
                self._arguments(node, called.name, overloads, known)
            return Type("object", called.name)
        if called.kind != "method":
            return None
        overloads = self.api[called.name]["members"].get(called.member) or self._member(
            node, called.name, called.member
        )
        unbound = isinstance(node.func, ast.Attribute) and self._is_class(node.func.value, known)
        self._arguments(node, f"{called.name}.{called.member}", overloads, known, skip=int(unbound))
        if called.member == "create_network" and not any(
            isinstance(part, ast.Attribute) and part.attr == "STRONGLY_TYPED" for part in ast.walk(node)
        ):
            self._say(
                node, "create_network without the name STRONGLY_TYPED builds another network in 10 and 11"
            )
        return self._named(overloads[0][1])

    def _is_class(self, node: ast.expr, known: dict[str, Type]) -> bool:
        found = Reader(self.api)._type(node, known)
        return found is not None and found.kind == "class"

    def _getattr(self, node: ast.Call, known: dict[str, Type]) -> Type | None:
        owner = self._type(node.args[0], known)
        if owner is None:
            return None
        name = node.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            self._say(node, "getattr with a name that nobody can check")
            return None
        return self._attribute(ast.copy_location(ast.Attribute(node.args[0], name.value), node), owner)

    def _arguments(
        self, node: ast.Call, name: str, overloads: list[Any], known: dict[str, Type], skip: int = 0
    ) -> None:
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        given = node.args[skip:]
        keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        spread = any(keyword.arg is None for keyword in node.keywords)
        reasons = []
        for parameters, _returned in overloads:
            names = [parameter[0] for parameter in parameters]
            filled = {*names[: len(given)], *keywords}
            missing = [p[0] for p in parameters if p[2] and p[0] not in filled]
            if len(given) > len(names):
                reasons.append(f"takes {len(names)} arguments")
            elif unknown := set(keywords) - set(names):
                reasons.append(f"has no parameter {', '.join(sorted(unknown))}")
            elif missing and not spread:
                reasons.append(f"needs {', '.join(missing)}")
            else:
                for parameter, value in (*zip(parameters, given, strict=False),):
                    self._no_number(node, name, parameter, value)
                for parameter in parameters:
                    if parameter[0] in keywords:
                        self._no_number(node, name, parameter, keywords[parameter[0]])
                self.checked.update(f"{name}({keyword}=)" for keyword in keywords)
                return
        self._say(node, f"{name} {reasons[0]}")

    def _no_number(self, node: ast.Call, name: str, parameter: list[Any], value: ast.expr) -> None:
        kind = self._named(parameter[1])
        number = isinstance(value, ast.Constant) and isinstance(value.value, int)
        if number and kind is not None:
            self._say(node, f"{name} is given a number for {kind.name}: numbers differ between versions")

    def _overrides(self, node: ast.ClassDef, parent: str) -> None:
        """TensorRT calls the methods of our subclasses: a misspelt one is never called."""
        for method in node.body:
            if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
                continue
            member = self._member(method, parent, method.name)
            if isinstance(member, list):
                ours = [argument.arg for argument in method.args.args[1:]]
                if not any(ours == [p[0] for p in parameters] for parameters, _ in member):
                    self._say(
                        method, f"{parent}.{method.name} takes {[p[0] for p in member[0][0]]}, not {ours}"
                    )

    def _annotated(self, annotation: ast.expr | None) -> Type | None:
        """The object that an annotation such as ``trt.Builder`` or ``trt.Builder | None`` promises."""
        if isinstance(annotation, ast.BinOp):
            return self._annotated(annotation.left) or self._annotated(annotation.right)
        if annotation is None:
            return None
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            return self._annotated(ast.parse(annotation.value, mode="eval").body)
        found = self._type(annotation, {"trt": PACKAGE})
        return Type("object", found.name) if found and found.kind == "class" else None

    def _named(self, name: str) -> Type | None:
        """The class that a listing means: its own types are not always spelt as they are."""
        for candidate in (name, name.removeprefix("I"), f"ILogger.{name}"):
            if candidate and candidate in self.api:
                return Type("object", candidate)
        return None


def our_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_of_tensorrt_in_our_code_exists(version: str) -> None:
    for path in our_files():
        reader = Reader(API[version]).read(path.read_text())
        complaints = [f"{path.relative_to(ROOT)}, {complaint}" for complaint in reader.complaints]
        assert not complaints, f"TensorRT {version}:\n" + "\n".join(complaints)


def test_the_builder_is_really_read() -> None:
    reader = Reader(API["11.4"]).read((ROOT / "export" / "builder.py").read_text())
    assert {
        "Builder",
        "Builder.create_network",
        "BuilderFlag.TF32",
        "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
        "IBuilderConfig.clear_flag",
        "ILogger.log",
        "IProgressMonitor.step_complete",
        "MemoryPoolType.WORKSPACE",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.get_error",
        "ParserError.node_operator",
        "ProfilingVerbosity.DETAILED",
    } <= reader.checked


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("flag = trt.BuilderFlag.FP16", "BuilderFlag has no FP16"),
        ("x = trt.Bilder(trt.Logger())", "there is no trt.Bilder"),
        ("def f(config: trt.IBuilderConfig) -> None: config.set_flags(3)", "has no set_flags"),
        ("def f(c: trt.IBuilderConfig | None) -> None: c.int8_calibrator = None", "no int8_calibrator"),
        ("b = trt.Builder(trt.Logger())\nc = b.create_builder_config()\nc.max_workspace_size", "no max_work"),
        ("b = trt.Builder(trt.Logger())\nb.build_engine(1, 2)", "Builder has no build_engine"),
        ("b = trt.Builder(trt.Logger())\nb.create_network(1 << 1)", "without the name STRONGLY_TYPED"),
        ("b = trt.Builder(loger=1)", "Builder has no parameter loger"),
        ("b = trt.Builder()", "Builder needs logger"),
        ("def f(e: trt.ICudaEngine) -> None: e.num_layers = 3", "num_layers cannot be set"),
        ("def f(c: trt.IBuilderConfig) -> None: c.set_flag(4)", "is given a number for BuilderFlag"),
        ("def f(c: trt.IBuilderConfig, n: str) -> None: getattr(trt.BuilderFlag, n)", "nobody can check"),
        ("x = getattr(trt.BuilderFlag, 'INT8')", "BuilderFlag has no INT8"),
        ("class M(trt.IProgressMonitor):\n  def step_done(self): ...", "has no step_done"),
        ("class M(trt.IProgressMonitor):\n  def phase_finish(self): ...", "takes ['phase_name'], not []"),
        ("import tensorrt", "must be imported as trt"),
        ("from tensorrt import Builder", "import the package as trt"),
        (
            "class R:\n  def __init__(self, e: trt.ICudaEngine):\n    self.e: trt.ICudaEngine = e\n"
            "  def f(self):\n    self.e.binding_count",
            "has no binding_count",
        ),
        (
            "class R:\n  @property\n  def e(self) -> trt.ICudaEngine: ...\n  def f(self): self.e.bindings()",
            "has no bindings",
        ),
        ("try:\n  pass\nexcept ValueError:\n  trt.Nothing", "there is no trt.Nothing"),
        ("y = [trt.Nothing for x in (1, 2)]", "there is no trt.Nothing"),
        ("p = trt.OnnxParser(1, 2)\np.get_error(0).node_nam()", "ParserError has no node_nam"),
    ],
)
def test_a_wrong_name_is_found(code: str, complaint: str) -> None:
    found = Reader(API["11.4"]).read(code).complaints
    assert any(complaint in text for text in found), found


def test_what_only_one_version_has_is_told_apart() -> None:
    code = "flag = trt.BuilderFlag.FP16"
    assert not Reader(API["10.16"]).read(code).complaints
    assert Reader(API["11.4"]).read(code).complaints


def test_the_facts_are_of_the_versions_we_promise() -> None:
    assert VERSIONS == ["10.16", "11.4", "rtx-1.7"]


def test_the_loaders_of_polygraphy_take_our_keywords() -> None:
    import inspect

    pytest.importorskip("polygraphy", reason="Polygraphy is not installed")
    from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, Profile
    from polygraphy.backend.trt.config import _CreateConfigCommon

    common = set(inspect.signature(_CreateConfigCommon.__init__).parameters)
    allowed = {
        "CreateConfig": common | set(inspect.signature(CreateConfig.__init__).parameters),
        "CreateConfigRTX": common | set(inspect.signature(CreateConfigRTX.__init__).parameters),
        "EngineBytesFromNetwork": set(inspect.signature(EngineBytesFromNetwork.__init__).parameters),
        "add": set(inspect.signature(Profile.add).parameters),
    }
    tree = ast.parse((ROOT / "export" / "builder.py").read_text())
    shared = next(
        {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Dict)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "shared"
    )
    assert shared <= common and "progress_monitor" in shared
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in allowed and node.keywords:
                seen.add(name)
                assert {keyword.arg for keyword in node.keywords if keyword.arg} <= allowed[name]
    assert seen == set(allowed)
