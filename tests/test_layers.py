"""Layers: no module imports one of a higher layer, and no folders import each other in a circle.

`LAYERS` lists the layers from the lowest up. A module may import from lower layers, not from its own. The check ignores
the imports of tests.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rust/core/src"
PACKAGE = ROOT / "python/postillion"

LAYERS = {
    CORE: [
        ["codec", "log", "clock", "settings", "slab", "few", "spread"],
        ["mail"],
        ["net"],
        ["address"],
        ["smtp"],
        ["ipc"],
        ["queue"],
        ["pickup"],
        ["cleanup"],
        ["delivery"],
        ["smtpd"],
        ["qmgr"],
        ["bench"],
    ],
    PACKAGE: [
        ["_core", "errors", "__init__"],
        ["config"],
        ["tables"],
        ["address", "dns"],
        ["program", "checks"],
        ["aiosmtpd", "restrictions", "handler", "delivery"],
        ["pickup"],
        ["smtpd", "qmgr", "services"],
        ["master"],
        ["checker"],
        ["bench"],
        ["commands"],
    ],
}
"""The layers of each source directory, the lowest first."""

Module = tuple[str, ...]
"""A module's name in parts: `("queue", "store", "spool")`."""
Imports = dict[Module, set[Module]]
"""The imports of each module."""

TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*(?:pub(?:\([a-z]+\))? )?mod (\w+)(;| \{)")
USE = re.compile(r"\b(pub(?:\([^)]*\))? )?use ((?:[\w:,*{}]|\s)+);")
INLINE = re.compile(r"\b(?:crate|super)(?:::\w+)+")


def used(tree: str) -> Iterator[tuple[list[str], str]]:
    """Yield each path of a `use` tree, and its local name."""
    tokens = re.findall(r"\w+|[{},*]", tree)
    stack: list[list[str]] = []
    path: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], ","], strict=True):
        if token == "{":
            stack.append(path.copy())
        elif token == "}":
            path = stack.pop()
        elif token == ",":
            path = stack[-1].copy() if stack else []
        else:
            path.append(token)
            if following in ",}":
                at = path.index("as") if "as" in path else len(path)
                whole = path[: at - 1] if path[at - 1] == "self" else path[:at]
                yield whole, path[-1] if at < len(path) else whole[-1]


def without_tests(text: str) -> str:
    """Return a Rust file's text without comments and without its test module."""
    found = next((found for found in TEST_MODULE.finditer(text) if found[2] == " {"), None)
    return re.sub(r"//[^\n]*", "", text[: found.start()] if found else text)


def rust_imports(source: Path) -> Imports:
    """Return the imports of each module of a crate, by the paths in its files. Follows re-exports."""
    names = {path: path.relative_to(source).with_suffix("").parts for path in source.rglob("*.rs")}
    texts = {name[:-1] if name[-1] in {"mod", "lib"} else name: path.read_text() for path, name in names.items()}
    tests = {(*name, test[1]) for name, text in texts.items() for test in TEST_MODULE.finditer(text)}
    texts = {
        name: without_tests(text)
        for name, text in texts.items()
        if not any(name[: len(test)] == test for test in tests)
    }
    exports: dict[Module, Module] = {}

    def absolute(module: Module, path: list[str]) -> Module | None:
        match path:
            case ["crate", *rest]:
                return tuple(rest)
            case ["self", *rest]:
                return (*module, *rest)
            case ["super", *_]:
                ups = next((n for n, part in enumerate(path) if part != "super"), len(path))
                return (*module[: len(module) - ups], *path[ups:])
            case [first, *_] if (*module, first) in texts:
                return (*module, *path)
        return None

    def home(path: Module) -> Module:
        """Return the module that defines the item of a path."""
        while True:
            exported = next((n for n in range(len(path), 0, -1) if path[:n] in exports), None)
            if exported is None:
                return next(path[:n] for n in range(len(path), -1, -1) if path[:n] in texts)
            path = (*exports[path[:exported]], *path[exported:])

    for module, text in texts.items():
        for public, tree in USE.findall(text):
            for path, name in used(tree):
                target = absolute(module, path)
                if public and target is not None and target != (*module, name):
                    exports[*module, name] = target
    imports: Imports = {module: set() for module in texts}
    for module, text in texts.items():
        paths = [path for _, tree in USE.findall(text) for path, _ in used(tree)]
        paths += [path.split("::") for path in INLINE.findall(USE.sub("", text))]
        targets = (absolute(module, path) for path in paths)
        imports[module] |= {home(target) for target in targets if target is not None} - {module}
    return imports


def python_imports(source: Path) -> Imports:
    """Return the imports of each module of a package. Imports for type checkers alone do not count."""
    paths = {path.relative_to(source).with_suffix("").parts: path for path in source.rglob("*.py")}
    imports: Imports = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        typing = {
            id(node)
            for test in ast.walk(tree)
            if isinstance(test, ast.If) and isinstance(test.test, ast.Name) and test.test.id == "TYPE_CHECKING"
            for node in ast.walk(test)
        }
        found: set[Module] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and id(node) not in typing and node.module is not None:
                root, *module = node.module.split(".")
                if root == source.name:
                    found |= {python_home((*module, item.name), paths, source) for item in node.names}
        imports[name] = found - {name}
    return imports


def python_home(path: Module, paths: dict[Module, Path], source: Path) -> Module:
    """Return the module that a name comes from: the module itself, or the one that has it."""
    for parts in (path, path[:-1]):
        if parts in paths:
            return parts
        if (*parts, "__init__") in paths:
            return (*parts, "__init__")
    # A stub of the extension.
    assert path[0] == "_core", path
    return path[:-1]


def imports_of(source: Path) -> Imports:
    """Return the imports of each module of a crate or a package."""
    return rust_imports(source) if source == CORE else python_imports(source)


def cycles(imports: Imports) -> list[str]:
    """Return the modules that import each other, directly or not, as text."""
    reached = {name: targets & imports.keys() for name, targets in imports.items()}
    grown = True
    while grown:
        grown = False
        for targets in reached.values():
            more = set[Module]().union(*(reached[target] for target in targets))
            grown |= not more <= targets
            targets |= more
    return ["/".join(name) for name in sorted(reached) if name in reached[name]]


def upward(imports: Imports, layers: list[list[str]]) -> list[str]:
    """Return the imports that do not go to a lower layer, as text."""
    height = {name: height for height, layer in enumerate(layers) for name in layer}
    return [
        f"{'/'.join(module)} imports {'/'.join(target)}"
        for module, targets in sorted(imports.items())
        for target in sorted(targets)
        if module and target and module[0] != target[0] and height[target[0]] >= height[module[0]]
    ]


def circles(imports: Imports, folder: Module) -> list[str]:
    """Return the folders directly below `folder` that import each other, as text."""
    depth = len(folder)
    inside = {name for name in imports if name[:depth] == folder and len(name) > depth}
    reached: dict[str, set[str]] = {name[depth]: set() for name in inside}
    for name in inside:
        reached[name[depth]] |= {to[depth] for to in imports[name] if to in inside} - {name[depth]}
    grown = True
    while grown:
        grown = False
        for targets in reached.values():
            more = set[str]().union(*(reached[target] for target in targets))
            grown |= not more <= targets
            targets |= more
    folders = {name[depth] for name in inside if len(name) > depth + 1}
    return [
        f"{'/'.join((*folder, name))} and {'/'.join((*folder, to))}"
        for name in sorted(folders)
        for to in sorted(reached[name])
        if to != name and name in reached[to]
    ]


def test_every_module_has_a_layer() -> None:
    for source, layers in LAYERS.items():
        modules = {name[0] for name in imports_of(source) if name}
        assert modules - {"_core"} == {name for layer in layers for name in layer} - {"_core"}


def test_no_module_imports_a_higher_layer() -> None:
    for source, layers in LAYERS.items():
        assert upward(imports_of(source), layers) == []


def test_no_folders_import_each_other() -> None:
    for source in LAYERS:
        imports = imports_of(source)
        folders = {name[:depth] for name in imports for depth in range(len(name))}
        assert [circle for folder in sorted(folders) for circle in circles(imports, folder)] == []


def test_no_python_module_imports_itself_by_way_of_others() -> None:
    assert cycles(python_imports(PACKAGE)) == []


def test_imports_are_found(tmp_path: Path) -> None:
    for name, text in {
        "lib.rs": "pub mod low;\npub mod high;\n",
        "low.rs": "// use crate::high;\nuse crate::high::{part::{self, Thing as Other}, Renamed};\n",
        "high/mod.rs": "mod part;\npub use part::Whole as Renamed;\n#[cfg(test)]\nmod checks;\nuse std::fmt;\n",
        "high/part.rs": "fn f() { super::helper::g() }\n#[cfg(test)]\nmod tests {\n    use crate::low;\n}\n",
        "high/helper/mod.rs": "mod deep;\nuse super::super::low;\nuse super::part;\n",
        "high/helper/deep.rs": "",
        "high/checks.rs": "use crate::low;\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    imports = rust_imports(tmp_path)
    assert imports == {
        (): set(),
        ("low",): {("high", "part")},
        ("high",): {("high", "part")},
        ("high", "part"): {("high", "helper")},
        ("high", "helper"): {("low",), ("high", "part")},
        ("high", "helper", "deep"): set(),
    }
    assert upward(imports, [["low"], ["high"]]) == ["low imports high/part"]
    assert circles(imports, ("high",)) == ["high/helper and high/part"]
    assert circles(imports, ()) == ["high and low"]
