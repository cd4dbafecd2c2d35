"""Functions and classes of the notebook keep meaning what they mean, there and back."""
# ruff: noqa: E501 - the tables are easier to read with one case per line

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import weakref

import pytest
from other_side import SIGNER, Notebook, OtherSide, round_trip

from jupyter_rayoffload.remote.codec import freeze, thaw
from jupyter_rayoffload.remote.rebuild import Identities, identities


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    side = OtherSide(tmp_path_factory.mktemp("there"))
    yield side
    side.close()


@pytest.fixture
def book(there):
    return Notebook(there)


# -- functions ----------------------------------------------------------------------------------------------


def test_function_reads_the_names_of_where_it_runs(book):
    book.run("w, h = 2, 3\ndef area(): return w * h")
    book.land("w = 10\nresult = area()", "area w h", "result")
    assert book["result"] == 30
    assert book.eval("area()") == 6


def test_function_made_there_reads_the_names_of_here(book):
    book.run("w = 2")
    book.land("def double(): return w * 2", "w", "double")
    assert book["double"].__globals__ is book.names
    book.run("w = 50")
    assert book.eval("double()") == 100


@pytest.mark.parametrize(
    ("definition", "call", "expected"),
    [
        ("f = lambda x: x + k", "f(1)", 8),
        ("def f(x, /, y=2, *a, z=3, **b): return x + y + z + k + sum(a)", "f(1, 2, 3, z=4)", 17),
        ("def f(n):\n for i in range(n): yield i + k", "list(f(2))", [7, 8]),
        ("def f():\n def g(): return k\n return g", "f()()", 7),
        ("def make(a):\n def g(): return a + k\n return g\nf = make(1)", "f()", 8),
        ("import functools\nf = functools.partial(lambda a, b: a + b + k, 1)", "f(2)", 10),
        ("class C:\n def m(self): return k\nf = C().m", "f()", 7),
        ("def f(n): return 1 if n == 0 else n * f(n - 1)", "f(5)", 120),
        ("def make():\n def g(n): return 0 if n == 0 else n + g(n - 1)\n return g\nf = make()", "f(4)", 10),
        ("import functools\n@functools.lru_cache(maxsize=7)\ndef f(n): return n if n < 2 else f(n-1) + f(n-2)", "f(30)", 832040),
        ("import functools\ndef make():\n @functools.cache\n def g(n): return n if n < 2 else g(n-1) + g(n-2)\n"
         " return g\nf = make()", "f(30)", 832040),
        ("import contextlib\n@contextlib.contextmanager\ndef f():\n yield k", "f().__enter__()", 7),
        ("import functools\n@functools.singledispatch\ndef f(x): return 'any'\n"
         "@f.register\ndef _(x: int): return 'int'\nf(1)", "f(1) + f('a')", "intany"),
        ("import operator\nf = operator.itemgetter(1)", "f([1, 2])", 2),
        ("import xml.etree.ElementTree\ndef f(): return xml.etree.ElementTree.fromstring('<a/>').tag", "f()", "a"),
    ],
)  # fmt: skip
def test_functions_of_all_sorts(book, definition, call, expected):
    book.run(f"k = 7\n{definition}")
    inputs = "k f" + (" xml" if "xml" in book.names else "")
    book.land(f"answer = {call}", inputs, "answer f")
    assert book["answer"] == expected
    assert book.eval(call) == expected


def test_a_function_comes_back_as_itself(book):
    book.run("def f(x: int = 1, *, y=2) -> str:\n 'doc'\n return 'a'\nf.calls = 3\ng = [f]")
    before = book["f"]
    book.land("same = g[0] is f and f.calls == 3", "f g", "f g same")
    assert book["f"] is before and book["g"][0] is before and book["same"]


def test_what_a_function_carries(book):
    book.run(
        "def f(x: int = 1, *, y=2) -> str:\n 'doc'\n return 'a'\nf.calls = [3]\n"
        "def outer():\n async def inner(a=f): return a\n return inner\ninner = outer()"
    )
    seen = (
        "import inspect\n"
        "seen = (f.__name__, f.__qualname__, f.__module__, f.__doc__, f.__defaults__, f.__kwdefaults__,"
        " f.__annotations__, f.__dict__, str(inspect.signature(f)), inner.__qualname__,"
        " inspect.iscoroutinefunction(inner), inner.__defaults__[0] is f)"
    )
    book.run(seen)
    here = book["seen"]
    book.land(seen, "f inner", "seen")
    assert book["seen"] == here
    assert asyncio.run(book["inner"]()) is book["f"]


def test_closures_share_their_variable(book):
    book.run(
        "def counter():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n  return n\n def now(): return n\n"
        " return up, now\nup, now = counter()\nup()"
    )
    book.land("up(); up(); seen = now()", "up now", "seen up now", changed="up")
    assert book["seen"] == 3
    assert book["now"]() == 3
    assert book["up"]() == 4 and book["now"]() == 4


def test_closures_share_their_variable_whichever_comes_first(book):
    book.run(
        "def counter():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n  return n\n def now(): return n\n"
        " return up, now\nup, now = counter()"
    )
    book.land("up(); up()", "now up", "now up", changed="up")
    assert book["now"]() == 2


def test_an_unlisted_function_is_not_touched(book):
    book.run("def f(): pass\nf.calls = 1")
    book.land("f.calls = 2", "f", "f")
    assert book["f"].calls == 1
    book.land("f.calls = 2", "f", "f", changed="f")
    assert book["f"].calls == 2


def test_a_changed_wrapper_brings_the_function_that_it_wraps(book):
    book.run(
        "import functools\n"
        "def logged(f):\n @functools.wraps(f)\n def wrapper(*a): return f(*a)\n return wrapper\n"
        "def make():\n n = 0\n def up():\n  nonlocal n\n  n += 1\n  return n\n return up\n"
        "up = logged(make())"
    )
    book.land("up(); up()", "up", "up", changed="up")
    assert book["up"]() == 3


def test_code_and_defaults_that_changed_there(book):
    book.run("def f(x=1): return x")
    before = book["f"]
    book.land("f.__defaults__ = (5,)\nf.__code__ = (lambda x: x * 10).__code__", "f", "f", changed="f")
    assert book["f"] is before and book["f"]() == 50


def test_mutually_recursive_functions(book):
    book.run(
        "def make():\n def even(n): return n == 0 or odd(n - 1)\n def odd(n): return n != 0 and even(n - 1)\n"
        " return even, odd\neven, odd = make()\n"
        "def ping(n): return 'ping' if n == 0 else pong(n - 1)\ndef pong(n): return 'pong' if n == 0 else ping(n - 1)"
    )
    book.land("seen = even(10), odd(10), ping(3)", "even odd ping pong", "seen even odd")
    assert book["seen"] == (True, False, "pong")
    assert book["even"](4)


def test_a_new_closure_over_a_known_variable_shares_it(book):
    book.run(
        "def box():\n v = 1\n def put(x):\n  nonlocal v\n  v = x\n def getter():\n  return lambda: v\n"
        " return put, getter\nput, getter = box()"
    )
    book.land("get = getter()", "put getter", "put get")
    book["put"](42)
    assert book["get"]() == 42


def test_globals_is_the_namespace(book):
    book.run("scope = globals()\ndef f(): return globals()")
    book.land("same = scope is globals() and f() is globals()", "scope f", "same scope")
    assert book["same"] and book["scope"] is book.names


def test_a_function_of_another_namespace_brings_what_it_reads(book):
    other = {"__name__": "__main__", "factor": 3, "unused": open}
    exec("def helper(x): return x * factor\ndef f(x): return helper(x) + 1", other)
    book.names["f"] = other["f"]
    book.land("answer = f(5)", "f", "answer f")
    assert book["answer"] == 16 and book["f"] is other["f"]


def test_a_wrapper_of_an_importable_module_lives_in_that_module(book):
    book.run("import contextlib\n@contextlib.contextmanager\ndef f(): yield 1")
    book.land("import contextlib\nsame = f.__globals__ is vars(contextlib)", "f", "same")
    assert book["same"]


def test_importable_things_go_by_reference(book):
    book.run("import json, collections\nvalues = [json.dumps, collections.OrderedDict, json, len, int]")
    back = book.offload(
        "import json\nsame = values[0] is json.dumps and values[2] is json", "values", "values same"
    )
    assert back["same"]
    assert all(a is b for a, b in zip(back["values"], book["values"], strict=True))


def test_a_function_with_an_empty_cell_and_a_bare_cell(book):
    book.run(
        "def make():\n def f(): return later\n c = f.__closure__[0]\n if 0: later = 1\n return f, c\nf, c = make()\n"
        "import types\nbare = types.CellType([5])"
    )
    book.land("c.cell_contents = 9\nseen = f(), bare.cell_contents", "f c bare", "seen")
    assert book["seen"] == (9, [5])


# -- classes ------------------------------------------------------------------------------------------------

CLASSES = {
    "plain": ("class A:\n k = 1\n def __init__(self, v): self.v = v\n def get(self): return self.v + self.k\na = A(2)",
              "a.get()", 3),
    "members": ("class A:\n @property\n def p(self): return 1\n @staticmethod\n def s(): return 2\n"
                " @classmethod\n def c(cls): return cls.__name__\na = A()", "(a.p, a.s(), a.c())", (1, 2, "A")),
    "slots": ("class A:\n __slots__ = ('x', '__y')\n def __init__(self): self.x, self.__y = 1, 2\n"
              " def sum(self): return self.x + self.__y\na = A()", "(a.sum(), hasattr(a, '__dict__'))", (3, False)),
    "dataclass": ("import dataclasses\n@dataclasses.dataclass(frozen=True, order=True)\nclass A:\n x: int\n"
                  " y: list = dataclasses.field(default_factory=list)\na = A(1)",
                  "(a == A(1), dataclasses.asdict(a), repr(a))", (True, {"x": 1, "y": []}, "A(x=1, y=[])")),
    "slotted dataclass": ("import dataclasses\n@dataclasses.dataclass(slots=True, kw_only=True)\nclass A:\n x: int = 4\n"
                          "a = A()", "(a.x, hasattr(a, '__dict__'))", (4, False)),
    "enum": ("import enum\nclass A(enum.Enum):\n RED = 1\n BLUE = 2\n ROT = 1\n def low(self): return self.name.lower()\n"
             "a = A.ROT", "(a is A.RED, a.low(), list(A.__members__))", (True, "red", ["RED", "BLUE", "ROT"])),
    "enum with init": ("import enum\nclass A(enum.Enum):\n EARTH = (5, 6)\n"
                       " def __init__(self, mass, radius): self.mass = mass\na = A.EARTH",
                       "(a.mass, a.value, A((5, 6)) is a)", (5, (5, 6), True)),
    "flag": ("import enum\nclass A(enum.Flag):\n R = enum.auto()\n W = enum.auto()\na = A.R | A.W",
             "(a.value, A.R in a, (A.R & A.W).value)", (3, True, 0)),
    "int and str enums": ("import enum\nclass A(enum.IntEnum):\n X = 3\nclass S(str, enum.Enum):\n Y = 'y'\na = A.X, S.Y",
                          "(a[0] + 1, a[1].upper(), a[0] is A.X)", (4, "Y", True)),
    "named tuple": ("import typing, collections\nclass A(typing.NamedTuple):\n x: int\n y: int = 2\n"
                    " def sum(self): return self.x + self.y\nB = collections.namedtuple('B', 'p q')\na = A(1), B(1, 2)",
                    "(a[0].sum(), a[0]._replace(x=5).x, a[1]._asdict())", (3, 5, {"p": 1, "q": 2})),
    "abstract": ("import abc\nclass Base(abc.ABC):\n @abc.abstractmethod\n def f(self): ...\nclass A(Base):\n"
                 " def f(self): return super().f() or 4\nBase.register(str)\na = A()",
                 "(a.f(), isinstance('', A.__mro__[1]), bool(A.__mro__[1].__abstractmethods__))", (4, True, True)),
    "generic": ("import typing\nT = typing.TypeVar('T')\nclass A(typing.Generic[T]):\n def __init__(self, v: T): self.v = v\n"
                "class B(A[int]): pass\na = B(3)", "(a.v, B.__orig_bases__[0].__args__, A[str].__origin__ is A)", (3, (int,), True)),
    "typed dict": ("import typing\nclass A(typing.TypedDict):\n x: int\na = A(x=1)", "(a, A.__annotations__)", ({"x": 1}, {"x": int})),
    "protocol": ("import typing\n@typing.runtime_checkable\nclass A(typing.Protocol):\n def close(self): ...\na = [A]",
                 "isinstance(open, a[0]), isinstance(a, A)", (False, False)),
    "inheritance": ("class A:\n def who(self): return 'A'\nclass B(A):\n def who(self): return super().who() + 'B'\n"
                    "class M:\n pass\nclass C(B, M):\n def who(self): return super().who() + 'C'\na = C()", "a.who()", "ABC"),
    "nested": ("class A:\n class Inner:\n  v = 4\n def make(self): return self.Inner()\na = A().make(), A()",
               "(a[0].v, type(a[0]) is A.Inner, type(a[0]).__qualname__)", (4, True, "A.Inner")),
    "built-in base": ("class A(dict):\n def __missing__(self, k): return k * 2\nclass L(list):\n pass\na = A(x=1)\nl = L([1])",
                      "(a['x'], a['ab'])", (1, "abab")),
    "cached property": ("import functools\nclass A:\n @functools.cached_property\n def p(self): return [1]\na = A()\na.p",
                        "(a.p, A().p, a.p is a.p)", ([1], [1], True)),
    "descriptor": ("class D:\n def __set_name__(self, o, n): self.n = n\n def __get__(self, i, o): return self.n\n"
                   "class A:\n field = D()\na = A()", "a.field", "field"),
    "private names": ("class A:\n def __secret(self): return 1\n def f(self): return self.__secret()\na = A()", "a.f()", 1),
    "callable and hash": ("class A:\n def __call__(self): return 5\n def __eq__(self, o): return True\n"
                          " def __hash__(self): return 3\na = {A(): 1}", "(a[A()], next(iter(a))())", (1, 5)),
}  # fmt: skip


@pytest.mark.parametrize("case", CLASSES)
def test_classes_of_all_sorts(book, case):
    definition, expression, expected = CLASSES[case]
    book.run(definition)
    here = book.eval(expression)
    assert here == expected
    inputs = " ".join(n for n in "A B C S a l dataclasses".split() if n in book.names)
    book.land(f"answer = {expression}", inputs, "answer a")
    assert book["answer"] == expected
    assert book.eval(expression) == expected


def test_an_instance_that_comes_back_is_one_of_our_class(book):
    book.run("class A:\n n = 1\na = A()")
    ours = book["A"]
    book.land("a.x = A.n\nA.n = 99\nb = A()\nclass Sub(A): pass\nc = Sub()", "A a", "a b c")
    assert type(book["a"]) is ours and type(book["b"]) is ours
    assert book["a"].x == 1 and isinstance(book["c"], ours)
    assert ours.n == 1  # not an output: not touched
    book.land("d = Sub()", "", "d")  # and once more, with a class that was made there
    assert type(book["d"]) is type(book["c"])


def test_a_class_that_is_an_output_is_brought_up_to_date(book):
    book.run("class A:\n n = 1\n gone = 2\n def f(self): return 'old'\na = A()")
    ours, method = book["A"], book["A"].f
    book.land("A.n = 5\nA.f2 = lambda self: self.n\ndel A.gone", "A a", "A", changed="A")
    assert book["A"] is ours
    assert ours.n == 5 and book["a"].f2() == 5 and not hasattr(ours, "gone")
    assert ours.f is method


def test_a_class_that_is_assigned_there_is_another_class(book):
    book.run("class A:\n v = 1\nold = A()")
    ours = book["A"]
    book.land("class A:\n v = 2\nnew = A()", "A old", "A new old")
    assert book["A"] is not ours and type(book["new"]) is book["A"] and type(book["old"]) is ours
    assert (book["old"].v, book["new"].v) == (1, 2)


def test_redefinition_here_keeps_the_generations_apart(book):
    book.run("class A:\n v = 1\none = A()")
    book.run("class A:\n v = 2\ntwo = A()")
    book.land("seen = one.v, two.v, type(one) is not type(two), type(two) is A", "A one two", "seen one two")
    assert book["seen"] == (1, 2, True, True)
    assert type(book["two"]) is book["A"] and type(book["one"]) is not book["A"]


def test_loading_runs_no_hook_of_the_notebook_twice(book):
    book.run(
        "log = []\n"
        "class Meta(type):\n def __new__(m, name, bases, body, **k):\n  log.append(name)\n"
        "  body['tag'] = name\n  return super().__new__(m, name, bases, body, **k)\n"
        " def __init__(c, name, bases, body, **k): super().__init__(name, bases, body)\n"
        "class Base(metaclass=Meta):\n registry = {}\n"
        " def __init_subclass__(cls, *, key, **k):\n  super().__init_subclass__(**k)\n  cls.registry[key] = cls\n"
        "  log.append(key)\n"
        "class A(Base, key='a'): pass\na = A()"
    )
    before = list(book["log"])
    book.land("seen = list(Base.registry), A.registry['a'] is A, A.tag, len(log)", "log Base A a", "seen a")
    assert book["seen"] == (["a"], True, "A", len(before))
    assert book["log"] == before and type(book["a"]) is book["A"]
    book.land("class B(Base, key='b'): pass\nb = B()\nseen = list(Base.registry)", "Base", "seen b")
    assert book["seen"] == ["a", "b"]


def test_hook_that_registers_in_a_global(book):
    book.run(
        "known = {}\nclass Base:\n def __init_subclass__(cls): known[cls.__name__] = cls\n"
        "class A(Base):\n x = 1\nclass S(Base):\n __slots__ = ('v',)\na = A()\ns = S()\ns.v = 2"
    )
    book.land(
        "seen = a.x, s.v, type(s).__mro__[1] is type(a).__mro__[1], type(a).__bases__[0].__name__",
        "a s",
        "seen",
    )
    assert book["seen"] == (1, 2, True, "Base")


def test_a_process_that_never_saw_the_class_gets_all_of_it(there, tmp_path):
    first = Notebook(there)
    back = first.offload(
        "import dataclasses\n@dataclasses.dataclass\nclass Point:\n x: int\n def double(self): return self.x * 2\np = Point(4)",
        outputs="p",
    )
    assert back["p"].double() == 8 and type(back["p"]).__name__ == "Point"
    other = OtherSide(tmp_path / "third")
    try:
        third = Notebook(other)
        third.names["p"] = back["p"]
        third.land("q = type(p)(5)\nsame = p.double()", "p", "q same")
        assert third["same"] == 8 and type(third["q"]) is type(back["p"])
    finally:
        other.close()


def test_a_dataclass_can_be_derived_there(book):
    book.run(
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n x: int\n y: int = dataclasses.field(default=2)"
    )
    book.land(
        "import dataclasses\n@dataclasses.dataclass(kw_only=True)\nclass B(A):\n z: list = dataclasses.field(default_factory=list)\n"
        "b = B(x=1)\ntry:\n B()\n fails = False\nexcept TypeError: fails = True",
        "A",
        "b fails",
    )
    assert book["fails"] and (book["b"].x, book["b"].y, book["b"].z) == (1, 2, [])
    assert isinstance(book["b"], book["A"])


def test_pydantic_model(book):
    pydantic = pytest.importorskip("pydantic")
    book.run(
        "import pydantic\nclass User(pydantic.BaseModel):\n name: str\n age: int = 3\nu = User(name='a')"
    )
    book.land("v = User(name='b', age='4')\nseen = u.model_dump()", "User u", "v seen")
    assert book["seen"] == {"name": "a", "age": 3}
    assert (
        type(book["v"]) is book["User"] and book["v"].age == 4 and isinstance(book["v"], pydantic.BaseModel)
    )


def test_class_and_function_refer_to_each_other(book):
    book.run(
        "class Node:\n kinds = {}\n def __init__(self, up=None): self.up = up\n def root(self):\n"
        "  return self if self.up is None else self.up.root()\nNode.kinds['self'] = Node\nNode.root.owner = Node\n"
        "n = Node(Node())"
    )
    book.land(
        "ok = n.root() is n.up and Node.kinds['self'] is Node and Node.root.owner is Node", "Node n", "ok n"
    )
    assert book["ok"] and book["n"].root() is book["n"].up


def test_order_of_a_class_body_is_kept(book):
    book.run("class Config:\n zeta = 1\n alpha = 2\n mid = 3")
    book.land("order = [k for k in vars(Config) if not k.startswith('_')]", "Config", "order")
    assert book["order"] == ["zeta", "alpha", "mid"]


# -- identities ---------------------------------------------------------------------------------------------


def test_identities_forget_what_has_died():
    known = Identities()

    class Gone:
        pass

    name = known.of(Gone)
    assert known.find(name) is Gone and known.of(Gone) == name
    reference = weakref.ref(Gone)
    del Gone
    gc.collect()
    assert reference() is None and known.find(name) is None
    assert not known._names and not known._objects


def test_identities_take_unhashable_classes():
    class Meta(type):
        __hash__ = None

        def __eq__(cls, other):
            return True

    class A(metaclass=Meta):
        pass

    class B(metaclass=Meta):
        pass

    known = Identities()
    assert known.of(A) != known.of(B)


def test_wrapped_partial_keeps_its_signature():
    namespace = {"__name__": "__main__"}
    exec("import functools\ndef f(a, b=2): return a + b\np = functools.partial(f, b=3)", namespace)
    back = round_trip({"p": namespace["p"]}, namespace)["p"]
    assert back.func is namespace["f"] and str(inspect.signature(back)) == "(a, *, b=3)"
    assert isinstance(back, functools.partial)


def test_remote_functions_actor_classes_and_task_errors_of_ray(book):
    exceptions = pytest.importorskip("ray.exceptions")
    book.run(
        "import ray\n@ray.remote\ndef task(x): return x + k\n@ray.remote\nclass Actor:\n def m(self): return 1\n"
        "class Failed(Exception):\n def __init__(self, a, b):\n  super().__init__('text')\n  self.a = a"
    )
    error = exceptions.RayTaskError("task", "traceback", book["Failed"](1, 2)).as_instanceof_cause()
    book.names["error"] = error
    names = "task Actor Failed error"
    book.land(
        "k = 5\nseen = isinstance(error, Failed), error.cause.a, task._function(1)", names, f"seen {names}"
    )
    assert book["seen"] == (True, 1, 6)
    assert type(book["error"]) is type(error) and isinstance(book["error"], book["Failed"])


def test_a_reading_that_broke_off_leaves_no_unfinished_class():
    namespace: dict = {"__name__": "__main__"}
    exec(
        "class Picky:\n def __setstate__(self, state):\n  if not ready: raise ImportError('not yet')\n"
        "class A:\n parts = [Picky()]\n def f(self): return 4\nA.parts[0].x = 1\na = A()\nready = False",
        namespace,
    )
    frozen = freeze({"a": namespace["a"]}, namespace, SIGNER, copy=True)
    identities.drop(identities.of(namespace["A"]))
    identities.drop(identities.of(namespace["Picky"]))
    with pytest.raises(ImportError) as held:  # the error's frames keep what was begun alive
        thaw(frozen.graph, [], namespace)
    namespace["ready"] = True
    assert thaw(frozen.graph, [], namespace)["a"].f() == 4
    assert held.value.__traceback__


def test_code_keeps_the_name_of_its_file():
    namespace: dict = {"__name__": "__main__"}
    exec(compile("def f():\n    return [x for x in ()], lambda: 1", "/tmp/cell_7.py", "exec"), namespace)
    frozen = freeze({"f": namespace["f"]}, namespace, SIGNER, copy=True)
    assert frozen.files == {"/tmp/cell_7.py"}
    there: dict = {"__name__": "__main__"}
    del namespace
    gc.collect()
    code = thaw(frozen.graph, [], there)["f"].__code__
    inner = [c.co_filename for c in code.co_consts if hasattr(c, "co_filename")]
    assert {code.co_filename, *inner} == {"/tmp/cell_7.py"}
