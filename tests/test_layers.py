"""Layers: no module imports one of a higher layer, and no modules or folders import each other in a circle.

`LAYERS` lists the layers from the lowest up. A module may import from lower layers, not from its own. An import for
type checkers alone is an import. A Rust module and its own child modules are one unit, and may use each other: the
children hold parts of its `impl`. No other module adds methods to a type: a circle through methods shows in no import.
The check ignores the imports of tests.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
CORE = ROOT / "rust/core/src"
BORDER = ROOT / "rust/py/src"
PACKAGE = ROOT / "python/postillion"

LAYERS = {
    CORE: [
        ["codec", "log", "clock", "errno", "ask", "action", "slab", "few", "spread"],
        ["inquiry"],
        ["lookup"],
        ["settings"],
        ["mail"],
        ["tls", "sasl"],
        ["net", "table", "inspection"],
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
        ["errors", "text", "__init__"],
        ["config"],
        ["_core"],
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
INLINE = re.compile(r"(?<![\w:])\w+(?:::\w+)+")


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


def rust_texts(source: Path) -> dict[Module, str]:
    """Return the text of each module of a crate, without comments and tests."""
    names = {path: path.relative_to(source).with_suffix("").parts for path in source.rglob("*.rs")}
    texts = {name[:-1] if name[-1] in {"mod", "lib"} else name: path.read_text() for path, name in names.items()}
    tests = {(*name, test[1]) for name, text in texts.items() for test in TEST_MODULE.finditer(text)}
    return {
        name: without_tests(text)
        for name, text in texts.items()
        if not any(name[: len(test)] == test for test in tests)
    }


def rust_imports(source: Path) -> Imports:
    """Return the imports of each module of a crate, by the paths in its files. Follows re-exports."""
    texts = rust_texts(source)
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


def foreign_methods(source: Path) -> list[str]:
    """Return the types with methods outside of their own module and its children, as text; macros do not count."""
    texts = rust_texts(source)
    types = {name: set(re.findall(r"\b(?:struct|enum|union) (\w+)", text)) for name, text in texts.items()}
    found = []
    for module, text in sorted(texts.items()):
        for head in re.findall(r"^\s*(?:unsafe )?impl\b([^{]*)\{", text, re.MULTILINE):
            bare, count = head.replace("->", ""), 1
            while count:
                bare, count = re.subn(r"<[^<>]*>", "", bare)
            if " for " not in bare and "$" not in bare:
                name = re.findall(r"\w+", bare.split("where")[0])[-1]
                if name not in types[module] | types.get(module[:-1], set()):
                    found.append(f"{name} in {'/'.join(module)}")
    return found


def python_imports(source: Path) -> Imports:
    """Return the imports of each module of a package, also those in functions and those for type checkers alone."""
    files = [*source.rglob("*.py"), *source.rglob("*.pyi")]
    paths = {path.relative_to(source).with_suffix("").parts: path for path in files}
    imports: Imports = {}
    for name, path in paths.items():
        targets: list[list[str]] = []
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets += [item.name.split(".") for item in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = [source.name, *name][: -node.level] if node.level else []
                module = [*package, *(node.module or "").split(".")]
                targets += [[part for part in (*module, item.name) if part] for item in node.names]
        own = [target[1:] for target in targets if target[0] == source.name]
        imports[name] = {python_home(tuple(target), paths) for target in own} - {name}
    return imports


def python_home(path: Module, paths: dict[Module, Path]) -> Module:
    """Return the module that a name comes from: the module itself, or the one that has it."""
    candidates = (path, (*path, "__init__"), path[:-1], (*path[:-1], "__init__"))
    return next(name for name in candidates if name in paths)


def imports_of(source: Path) -> Imports:
    """Return the imports of each module of a crate or a package."""
    return rust_imports(source) if source == CORE else python_imports(source)


def rings(imports: Imports) -> list[list[Module]]:
    """Return the largest groups of modules that all import each other, directly or not."""
    reached = {name: targets & imports.keys() for name, targets in imports.items()}
    grown = True
    while grown:
        grown = False
        for targets in reached.values():
            more = set[Module]().union(*(reached[target] for target in targets))
            grown |= not more <= targets
            targets |= more
    groups = {name: sorted(to for to in targets if name in reached[to]) for name, targets in reached.items()}
    return [group for name, group in sorted(groups.items()) if group and name == group[0]]


def cycles(imports: Imports, *, families: bool = False) -> list[str]:
    """Return the groups of modules that import each other, as text. `families`: a module and its own children may."""
    found = []
    for ring in rings(imports):
        top = min(ring, key=len)
        below = {name for name in ring if name != top}
        linked = {name for name in below if top in imports[name] or name in imports[top]}
        if families and all(name[: len(top)] == top for name in below) and all(name[:-1] == top for name in linked):
            found += cycles({name: imports[name] & below for name in below}, families=True)
        else:
            found.append(" and ".join("/".join(name) for name in ring))
    return found


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
        assert modules == {name for layer in layers for name in layer}


def test_no_module_imports_a_higher_layer() -> None:
    for source, layers in LAYERS.items():
        assert upward(imports_of(source), layers) == []


def test_no_folders_import_each_other() -> None:
    for source in LAYERS:
        imports = imports_of(source)
        folders = {name[:depth] for name in imports for depth in range(len(name))}
        assert [circle for folder in sorted(folders) for circle in circles(imports, folder)] == []


def test_no_python_modules_import_each_other() -> None:
    assert cycles(python_imports(PACKAGE)) == []


def test_no_rust_modules_import_each_other_but_parent_and_child() -> None:
    for source in (CORE, BORDER):
        assert cycles(rust_imports(source), families=True) == []


def test_no_rust_type_has_methods_elsewhere_but_in_child_modules() -> None:
    for source in (CORE, BORDER):
        assert foreign_methods(source) == []


def write(folder: Path, files: dict[str, str]) -> None:
    """Write source files, by their paths in `folder`."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_foreign_methods_are_found(tmp_path: Path) -> None:
    files = {
        "lib.rs": "struct Root;\n",
        "a/mod.rs": "struct Own<T>(T);\nimpl<T: Fn(&[u8; 2]) -> Vec<u8>> Own<T> {\n}\n",
        "a/other.rs": "impl From<Own<u8>> for Other {\n}\n",
        "a/part.rs": "impl Own<u8> {\n}\n",
        "b.rs": "impl crate::Root {\n}\nimpl<'a> Own<&'a u8>\nwhere\n    u8: Copy,\n{\n}\n// impl Own<u16> {\n",
    }
    write(tmp_path, files)
    assert foreign_methods(tmp_path) == ["Own in b"]


def test_cycles_are_found() -> None:
    a, b, c = ("a",), ("b",), ("c",)
    assert cycles({a: {b}, b: {c}, c: set()}) == []
    assert cycles({a: {b}, b: {c}, c: {a}}) == ["a and b and c"]
    assert cycles({a: {b}, b: {a}, c: {a}}, families=True) == ["a and b"]
    # A module and its child.
    child, second = ("a", "child"), ("a", "second")
    assert cycles({a: {child}, child: {a}}) == ["a and a/child"]
    assert cycles({a: {child}, child: {a}}, families=True) == []
    assert cycles({a: {child}, child: {second}, second: {a}}, families=True) == []
    assert cycles({a: {child}, child: {a, second}, second: {child}}, families=True) == ["a/child and a/second"]
    assert cycles({a: {child}, child: {b}, b: {a}}, families=True) == ["a and a/child and b"]
    # A child of the child: not without its parent.
    deep = ("a", "child", "deep")
    assert cycles({a: {child}, child: {a, deep}, deep: {child}}, families=True) == []
    assert cycles({a: {child}, child: {deep}, deep: {a}}, families=True) == ["a and a/child and a/child/deep"]


def test_python_imports_are_found(tmp_path: Path) -> None:
    package = tmp_path / "package"
    files = {
        "__init__.py": "",
        "low.py": "if TYPE_CHECKING:\n    from package.high.part import Part\n",
        "high/__init__.py": "from .part import Part\nfrom . import native\n",
        "high/part.py": "import os\nimport package.low\ndef f() -> None:\n    from package.high import native\n",
        "high/native.pyi": "from package import version\n",
    }
    write(package, files)
    imports = python_imports(package)
    assert imports == {
        ("__init__",): set(),
        ("low",): {("high", "part")},
        ("high", "__init__"): {("high", "part"), ("high", "native")},
        ("high", "part"): {("low",), ("high", "native")},
        ("high", "native"): {("__init__",)},
    }
    assert cycles(imports) == ["high/part and low"]


def test_rust_imports_are_found(tmp_path: Path) -> None:
    files = {
        "lib.rs": "pub mod low;\npub mod high;\n",
        "low.rs": "// use crate::high;\nuse crate::high::{part::{self, Thing as Other}, Renamed};\n",
        "high/mod.rs": "mod part;\npub use part::Whole as Renamed;\n#[cfg(test)]\nmod checks;\nuse std::fmt;\n"
        "fn g() { helper::h(std::helper::h()) }\n",
        "high/part.rs": "fn f() { super::helper::g() }\n#[cfg(test)]\nmod tests {\n    use crate::low;\n}\n",
        "high/helper/mod.rs": "mod deep;\nuse super::super::low;\nuse super::part;\n",
        "high/helper/deep.rs": "",
        "high/checks.rs": "use crate::low;\n",
    }
    write(tmp_path, files)
    imports = rust_imports(tmp_path)
    assert imports == {
        (): set(),
        ("low",): {("high", "part")},
        ("high",): {("high", "part"), ("high", "helper")},
        ("high", "part"): {("high", "helper")},
        ("high", "helper"): {("low",), ("high", "part")},
        ("high", "helper", "deep"): set(),
    }
    assert upward(imports, [["low"], ["high"]]) == ["low imports high/part"]
    assert circles(imports, ("high",)) == ["high/helper and high/part"]
    assert circles(imports, ()) == ["high and low"]
