"""Generated cells are run for real: with only what they read they do the same as with the whole notebook."""

from __future__ import annotations

import ast
import builtins
import contextlib
import symtable
import sysconfig
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from jupyter_rayoffload.cell import analyze, code_reads

NAMES = ["a", "b", "c", "d", "e"]


class OutOfFuel(BaseException):
    """Ends a generated program that would run for ever."""


class Box:
    """A value that can be used in every way; what it gives depends on its tag alone."""

    def __init__(self, tag: int) -> None:
        self.tag = tag % 97

    def __bool__(self) -> bool:
        return self.tag % 2 == 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.tag == other.tag

    __hash__ = None  # type: ignore[assignment]


class Machine:
    """Runs a program in a namespace and keeps a log of what it did."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.log: list[object] = []
        self.fuel = 400
        helpers = {
            "tick": self.tick,
            "use": self.use,
            "call": self.call,
            "items": self.items,
            "yes": self.yes,
            "same": lambda function: function,
            "called": self.called,
            "suppress": contextlib.suppress,
            "manager": contextlib.nullcontext,
        }
        own = types.ModuleType("builtins")
        own.__dict__.update({**vars(builtins), **helpers})
        self.namespace = {**namespace, "__builtins__": own, "__name__": "__main__"}
        self.before = dict(self.namespace)

    def run(self, source: str) -> None:
        try:
            exec(compile(source, "<cell>", "exec", dont_inherit=True), self.namespace)
        except (Exception, OutOfFuel) as error:
            self.log.append(type(error).__name__)

    def changed(self) -> set[str]:
        both = {**self.before, **self.namespace}
        unset = object()
        found = {n for n in both if self.before.get(n, unset) is not self.namespace.get(n, unset)}
        return found - {"__annotations__"}

    def tick(self) -> None:
        self.fuel -= 1
        if self.fuel < 0:
            raise OutOfFuel

    def tag(self, value: object) -> object:
        return value.tag if isinstance(value, Box) else type(value).__name__

    def use(self, *values: object) -> Box:
        self.tick()
        tags = [self.tag(v) for v in values]
        self.log.append(tags)
        return Box(sum(t if isinstance(t, int) else 1 for t in tags) + len(tags))

    def call(self, value: Any) -> object:
        self.tick()
        if isinstance(value, type):
            return self.call(getattr(value(), "m", None))
        return value() if isinstance(value, (types.FunctionType, types.MethodType)) else self.use(value)

    def called(self, value: Any) -> Any:
        self.call(value)
        return value

    def items(self, value: object) -> list[Box]:
        self.tick()
        return [Box(7 * i) for i in range(value.tag % 3)] if isinstance(value, Box) else []

    def yes(self, value: object) -> bool:
        self.tick()
        return bool(value) if isinstance(value, Box) else True


class Writer:
    """Writes a random program; every choice is drawn, so that hypothesis can shrink it."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw

    def choose(self, options: list[Any]) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self) -> str:
        return self.choose(NAMES)

    def expr(self, depth: int = 2) -> str:
        kinds = ["name", "name", "name", "use", "call"]
        if depth:
            kinds += ["and", "or", "if", "walrus", "lambda", "list", "dict", "gen", "f", "compare", "nested"]
        kind = self.choose(kinds)
        n, e = self.name, lambda: self.expr(max(depth - 1, 0))
        match kind:
            case "name":
                return n()
            case "use":
                return f"use({n()}, {n()})"
            case "call":
                return f"call({n()})"
            case "and" | "or":
                return f"(yes({e()}) {kind} {e()})"
            case "if":
                return f"({e()} if yes({e()}) else {e()})"
            case "walrus":
                return f"({n()} := {e()})"
            case "lambda":
                return self.choose([f"(lambda {n()}=a: {e()})", f"call(lambda: {e()})", f"(lambda: {e()})"])
            case "list":
                return f"use(*[{e()} for {n()} in items({e()}) if yes({e()})])"
            case "dict":
                return f"use(*{{0: {e()} for {n()} in items({e()})}}.values())"
            case "gen":
                return f"use(*({e()} for {n()} in items({e()}) for {n()} in items({e()})))"
            case "f":
                return f"use(len(f'{{yes({e()})}}') * [{n()}])"
            case "compare":
                return f"use(1 < len([{e()}]) < len([{e()}]))"
            case _:
                return f"use({e()}, {e()})"

    def block(self, depth: int, where: str, indent: str) -> list[str]:
        lines: list[str] = []
        for _ in range(self.draw(st.integers(1, 3))):
            lines += [indent + line for line in self.statement(depth, where)]
        return lines

    def statement(self, depth: int, where: str) -> list[str]:
        kinds = ["assign", "assign", "use", "aug", "del", "tuple", "annotated", "import"]
        if depth:
            kinds += ["if", "for", "while", "try", "with", "match", "def", "def", "class", "assert"]
        if "loop" in where:
            kinds += ["break", "continue"]
        if "function" in where:
            kinds += ["return"]
        n, e = self.name, self.expr
        inner = [] if not depth else (lambda w=where: self.block(depth - 1, w, "  "))
        match self.choose(kinds):
            case "assign":
                return [f"{n()} = {e()}"]
            case "use":
                return [f"use({e()})"]
            case "aug":
                name = n()
                return [f"{name} = use({name})" if "class" in where else f"{name} += use({e()}).tag"]
            case "del":
                return [f"del {n()}"]
            case "tuple":
                return [f"{n()}, *{n()} = {e()}, {e()}"]
            case "annotated":
                return [self.choose([f"{n()}: use({n()}) = {e()}", f"{n()}: {n()}"])]
            case "import":
                return [self.choose([f"import math as {n()}", f"from math import pi as {n()}"])]
            case "assert":
                return [f"assert yes({e()}), use({e()})"]
            case "break" | "continue" as word:
                return [word]
            case "return":
                return [f"return {e()}"]
            case "if":
                lines = [f"if yes({e()}):", *inner()]
                if self.draw(st.booleans()):
                    lines += [f"elif yes({e()}):", *inner()]
                return lines + (["else:", *inner()] if self.draw(st.booleans()) else [])
            case "for":
                over = self.choose([f"items({e()})", "range(2)", "[1]", "()"])
                lines = [f"for {n()} in {over}:", "  tick()", *inner(where + " loop")]
                return lines + (["else:", *inner()] if self.draw(st.booleans()) else [])
            case "while":
                test = self.choose([f"yes({e()})", "True"])
                lines = [f"while {test}:", "  tick()", *inner(where + " loop")]
                return lines + (["else:", *inner()] if self.draw(st.booleans()) else [])
            case "try":
                return self.try_(inner)
            case "with":
                manager = self.choose(["manager({})", "suppress(Exception, *items({})[:0])"]).format(e())
                return [f"with {manager} as {n()}, manager({e()}):", *inner()]
            case "match":
                return self.match(inner)
            case "def":
                return self.function(depth)
            case _:
                return [f"class {n()}:", *self.block(depth - 1, "class", "  "), *self.method(depth)]

    def try_(self, inner: Callable[[], list[str]]) -> list[str]:
        lines = ["try:", *inner()]
        handled = self.draw(st.booleans())
        if handled:
            lines += [self.choose([f"except Exception as {self.name()}:", "except NameError:"]), *inner()]
            lines += ["else:", *inner()] if self.draw(st.booleans()) else []
        return lines + (["finally:", *inner()] if not handled or self.draw(st.booleans()) else [])

    def match(self, inner: Callable[[], list[str]]) -> list[str]:
        n = self.name
        lines = [f"match [{self.expr()}, {self.expr()}]:"]
        for pattern in self.choose(
            [["[_]", "[x, *{}]"], ["[{}, {}]"], ["{}"], ["[] | [_, _, _]", "[{}, *_]"]]
        ):
            first, second = self.choose([("a", "b"), ("c", "d"), ("e", "a")])
            guard = self.choose(["", f" if yes({self.expr()})"])
            lines += [f"  case {pattern.format(first, second)}{guard}:", *("  " + line for line in inner())]
        return [line.replace("[x, *", f"[{n()}_, *") for line in lines]

    def function(self, depth: int) -> list[str]:
        # A decorator may call: then not the name that the function itself could read.
        decorator, name = self.choose([("", self.name()), ("@same", "f"), ("@called", "f"), ("@called", "f")])
        parameter, declared = self.name(), self.name()
        head = [decorator] if decorator else []
        head += [f"def {name}({self.choose(['', f'{parameter}={self.expr(1)}'])}):", "  tick()"]
        if declared != parameter and self.draw(st.booleans()):
            head.insert(len(head) - 1, f"  global {declared}")
        return head + self.block(depth - 1, "function", "  ")

    def method(self, depth: int) -> list[str]:
        if self.draw(st.booleans()):
            return []
        lines = ["def m(self):", "  tick()", *self.block(depth - 1, "function", "  ")]
        return ["  " + line for line in lines]


@st.composite
def programs(draw: Callable[..., Any]) -> str:
    writer = Writer(draw)
    lines: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        lines += writer.statement(2, "")
    return "\n".join(lines) + "\n"


def compiled(source: str) -> types.CodeType:
    try:
        return compile(source, "<cell>", "exec", dont_inherit=True)
    except SyntaxError:  # `global` after use, and other things that a random program may get wrong
        assume(False)
        raise


GENERATED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


@GENERATED
@given(programs(), st.sets(st.sampled_from(NAMES), min_size=2))
@example("try:\n  a = use(b)\nfinally:\n  use(a)\n", {"a"})
@example("def a(): return use(b)\nfor c in range(2):\n  call(a)\n  b = c\n", {"b"})
@example("class a:\n  b = use(b)\n  del b\n  use(b)\n", {"b"})
def test_what_a_cell_reads_is_all_it_needs(source: str, present: set[str]) -> None:
    compiled(source)
    found = analyze(source)
    values = {name: Box(3 * i + 1) for i, name in enumerate(NAMES) if name in present}
    whole, only = Machine(values), Machine({n: v for n, v in values.items() if n in found.reads})
    whole.run(source)
    only.run(source)
    assert whole.log == only.log
    assert whole.changed() <= found.writes | found.deletes
    for name in whole.changed() & whole.namespace.keys():
        assert whole.tag(whole.namespace[name]) == only.tag(only.namespace[name])


@GENERATED
@given(programs())
@example("class a:\n  while True:\n    tick()\n  def m(self):\n    use(b)\n")
def test_names_are_found_where_the_compiler_finds_them(source: str) -> None:
    loaded, stored = code_reads(compiled(source))
    found = analyze(source)
    # The compiler leaves out what cannot be reached; its table of symbols does not.
    assert stored <= found.writes | found.deletes <= assigned(symtable.symtable(source, "<cell>", "exec"))
    # We take every loop for one that may end.
    ending, _ = code_reads(compiled(source.replace("while True", "while yes(1)")))
    assert found.reads <= loaded | ending | found.deletes


def assigned(table: symtable.SymbolTable) -> set[str]:
    found = {
        s.get_name() for s in table.get_symbols() if s.is_global() and (s.is_assigned() or s.is_imported())
    }
    return found.union(*(assigned(inner) for inner in table.get_children()))


LIBRARY = sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py"))


@pytest.mark.parametrize("number", range(4))
def test_names_are_found_where_the_compiler_finds_them_in_the_standard_library(number: int) -> None:
    for path in LIBRARY[number::4]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        loaded, stored = code_reads(compile(tree, str(path), "exec", dont_inherit=True))
        found = analyze(tree)
        assert stored - {"__doc__", "__annotations__"} <= found.writes | found.deletes, path
        assert found.reads <= loaded, path


def test_little_is_read_that_is_not_needed() -> None:
    """Modules start with an empty namespace: what they seem to read, builtins left out, is too much."""
    known = set(dir(builtins)) | {"__file__", "__name__", "__doc__", "__spec__", "__path__", "__package__"}
    too_much = bound = 0
    for path in LIBRARY:
        found = analyze(ast.parse(path.read_text(encoding="utf-8")))
        too_much += 0 if found.stars else len(found.reads - known)
        bound += len(found.writes)
    assert too_much < 0.06 * bound
