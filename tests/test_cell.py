"""What a cell reads and writes: tables of constructs."""

from __future__ import annotations

import ast
import sys
import time
from collections.abc import Callable

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell

from jupyter_rayoffload.cell import Analysis, analyze

BUILTINS = frozenset(
    "print range len open sum sorted ValueError Exception zip enumerate list dict int".split()
)


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def reads(source: str) -> frozenset[str]:
    return analyze(source).reads - BUILTINS


# source, what it reads (builtins left out), what it writes
PYTHON = [
    # assignments
    ("y = x", "x", "y"),
    ("x = 1\ny = x", "", "x y"),
    ("x = x + 1", "x", "x"),
    ("x += 1", "x", "x"),
    ("x = 1 if __debug__ else 2", "", "x"),
    ("a, (b, *c) = v", "v", "a b c"),
    ("a = b = c", "c", "a b"),
    ("xs[i] = v", "xs i v", ""),
    ("x = Out[7] + Out[n] + a[8]", "Out _7 n a", "x"),
    ("m.alpha = v", "m v", ""),
    ("m.a.b[0].c += v", "m v", ""),
    ("x: int = 1", "", "x"),
    ("x: T = 1", "" if sys.version_info >= (3, 14) else "T", "x"),
    ("x: T", "" if sys.version_info >= (3, 14) else "T", ""),
    ("from __future__ import annotations\nx: T = 1", "", "annotations x"),
    ("f'{a} {b!r:>{w}}'", "a b w", ""),
    ("print(x)", "x", ""),
    # deletion
    ("del x", "x", ""),
    ("x = 1\ndel x", "", "x"),
    ("del x\nx = 1\ny = x", "x", "x y"),
    ("del d['k'], m.a", "d m", ""),
    # what may stay unbound
    ("if c:\n  x = 1\ny = x", "c x", "x y"),
    ("if c:\n  x = 1\nelse:\n  x = 2\ny = x", "c", "x y"),
    ("if c:\n  x = 1\nelif d:\n  x = 2\nelse:\n  raise ValueError\ny = x", "c d", "x y"),
    ("for i in s:\n  x = i\ny = x, i", "s x i", "i x y"),
    ("for i in range(3):\n  x = i\ny = x, i", "", "i x y"),
    ("for i in range(n):\n  x = i\ny = x", "n x", "i x y"),
    ("for i in [1, 2]:\n  if i: continue\n  x = i\ny = x", "x", "i x y"),
    ("for i in s:\n  break\nelse:\n  x = 1\ny = x", "s x", "i x y"),
    ("for i in s:\n  x = 1\n  break\nelse:\n  x = 2\ny = x", "s", "i x y"),
    ("for i in s:\n  for j in t:\n    pass\n  else:\n    break\n  x = 1\n", "s t", "i j x"),
    ("while c:\n  x = 1\ny = x", "c x", "x y"),
    ("while True:\n  x = 1\n  if c: break\ny = x", "c", "x y"),
    ("while True:\n  if c: break\n  x = 1\ny = x", "c x", "x y"),
    ("while (n := g()):\n  pass\ny = n", "g", "n y"),
    ("try:\n  x = f()\nexcept ValueError:\n  pass\ny = x", "f x", "x y"),
    ("try:\n  import a as xp\nexcept ImportError:\n  import b as xp\nxp.zeros(1)", "ImportError", "xp"),
    ("try:\n  x = f()\nexcept ValueError:\n  raise\ny = x", "f", "x y"),
    ("try:\n  x = f()\nfinally:\n  y = x", "f x", "x y"),
    ("try:\n  pass\nfinally:\n  x = 1\ny = x", "", "x y"),
    ("try:\n  f()\nexcept Exception as e:\n  print(e)", "f", "e"),
    ("try:\n  f()\nexcept Exception as e:\n  pass\nprint(e)", "f e", "e"),
    ("c and (x := 1)\ny = x", "c x", "x y"),
    ("(x := 1) and c\ny = x", "c", "x y"),
    ("y = (x := 1) if c else (x := 2)\nz = x", "c", "x y z"),
    ("a < (x := b) < (y := c)\nx, y", "a b c y", "x y"),
    ("assert (x := f()), msg\ny = x", "f msg", "x y"),
    ("match v:\n  case [a, *b]: 0\n  case {'k': c, **d}: 0\n  case P(x=e) | Q(e): 0\n  case f: 0\nf",
     "v P Q f", "a b c d e f"),
    ("match v:\n  case 1: x = 1\n  case _: x = 2\ny = x", "v", "x y"),
    ("match v:\n  case 1: x = 1\n  case _ if c: x = 2\ny = x", "v c x", "x y"),
    ("match v:\n  case A.b: pass", "v A", ""),
    ("with open(p) as f:\n  d = f.read()\nprint(d)", "p", "d f"),
    ("with suppress(E):\n  d = f()\nprint(d)", "suppress E f d", "d"),
    ("with contextlib.suppress(E), open(p) as f:\n  pass\nf", "contextlib E p f", "f"),
    ("with pytest.raises(E):\n  raise E\nx", "pytest E x", ""),
    # imports
    ("import a.b, c as d\nfrom e import f as g, h", "", "a d g h"),
    ("from m import *\nx", "x", ""),
    # comprehensions
    ("[i * k for i in xs if i > t]", "k xs t", ""),
    ("[i for i in i]", "i", ""),
    ("[j for i in xs for j in i]", "xs", ""),
    ("[i for i in xs]\nprint(i)", "xs i", ""),
    ("{k: v for k, v in d.items()}", "d", ""),
    ("(f(x) for x in xs)", "f xs", ""),
    ("[(last := x) for x in xs]\nprint(last)", "xs last", "last"),
    ("[last for x in xs if (last := x)]", "xs", "last"),
    # functions
    ("def f(): return w", "w", "f"),
    ("def f(): return w\nw = 10\nf()", "", "f w"),
    ("def f(): return w\nf()\nw = 10", "w", "f w"),
    ("def f(): return w\nif c: w = 10\nf()", "w c", "f w"),
    ("def f(): return g()\ndef g(): return w\nw = 1\nf()", "", "f g w"),
    ("def f(): return g()\ndef g(): return w\nf()\nw = 1", "w", "f g w"),
    ("def f(): return g()\nf()\ndef g(): return w\nw = 1", "g w", "f g w"),
    ("def f(): return g()\ndef g(): return f()", "", "f g"),
    ("def f(n): return n and f(n - 1)", "", "f"),
    ("f = lambda: w\nw = 1\nf()", "", "f w"),
    ("run(lambda: w)\nw = 1", "run w", "w"),
    ("h = f\ndef f(): return w\nw = 1", "f w", "f h w"),  # more than is needed: which `f` is not asked
    ("def f(): return w\nh = [f]\nw = 1", "w", "f h w"),
    ("def f(a, b=x, *c, d=y, **e): return a, b, c, d, e, z", "x y z", "f"),
    ("def f(a: T) -> U: pass", "" if sys.version_info >= (3, 14) else "T U", "f"),
    ("def f():\n  x: T = 1\n  return x", "", "f"),
    ("from __future__ import annotations\ndef f(a: T) -> U: pass", "", "annotations f"),
    ("@deco(arg)\ndef f(): return w\nw = 1", "deco arg w", "f w"),
    ("@deco\ndef fib(n): return fib(n - 1)", "deco", "fib"),
    ("@ray.remote(num_cpus=n)\ndef f(): return g()\ndef g(): return 1", "ray n", "f g"),
    ("def f():\n  x = 1\n  def g(): return x + y\n  return g", "y", "f"),
    ("def f():\n  def g():\n    nonlocal x\n    x += 1\n  x = 0\n  return g", "", "f"),
    ("def f():\n  global x\n  x = 1\nf()\nprint(x)", "x", "f x"),
    ("def f():\n  global x\n  x += 1", "x", "f x"),
    ("def f():\n  global g\n  def g(): return w", "w", "f g"),
    ("def f():\n  x = x + 1", "", "f"),
    ("def f():\n  if c:\n    import os\n  return os", "c", "f"),
    ("def f():\n  [y := i for i in s]\n  return y", "s", "f"),
    ("async def f():\n  async with a as b:\n    async for c in d:\n      await e(c, b)", "a d e", "f"),
    ("def f():\n  return\n  x", "", "f"),
    ("raise E\nx", "E", ""),
    # classes
    ("class A(B, metaclass=M):\n  k = v", "B M v", "A"),
    ("class A:\n  k = 1\n  l = k\n  def m(self): return k", "k", "A"),
    ("class A:\n  k = k", "k", "A"),
    ("class A:\n  del k", "", "A"),
    ("class A:\n  if c: k = 1\n  l = k", "c k", "A"),
    ("class A:\n  k = 1\n  del k\n  l = k", "k", "A"),
    ("class A:\n  xs = [1]\n  ys = [x for x in xs]\n  zs = [xs for x in ys]", "xs", "A"),
    ("class A:\n  def m(self): return w\nw = 1\nA().m()", "", "A w"),
    ("class A:\n  def m(self): return w\nA().m()\nw = 1", "w", "A w"),
    ("class A:\n  def f(): return w\n  x = f()\nw = 1", "w", "A w"),
    ("class A:\n  def m(self): return __class__, super()", "super", "A"),
    ("class A:\n  __name__, __qualname__, __module__", "__name__", "A"),
    ("class A:\n  def m(self): return __w", "_A__w", "A"),
    ("class A:\n  global x\n  x = 1\ny = x", "", "A x y"),
    ("class A:\n  def m(self): return B()\nclass B(A): pass\nB().m()", "", "A B"),
    ("class A:\n  def m(self): return w\nclass B(A): pass\nB().m()\nw = 1", "w", "A B w"),
    ("class A:\n  def __init_subclass__(c): w\nclass B(A): pass\nclass C(B): pass\nw = 1", "w", "A B C w"),
    ("class A:\n  class B:\n    def m(self): return w\nw = 1\nA", "", "A w"),
    ("@dataclass\nclass A:\n  x: int = n\n  def m(self): return B()\nclass B: pass", "dataclass n", "A B"),
    ("from __future__ import annotations\nclass A:\n  x: T", "T", "A annotations"),
    # asynchronous, at the top level
    ("x = await f(y)", "f y", "x"),
    ("async with a as b:\n  async for c in b:\n    pass", "a", "b c"),
    ("[x async for x in s]", "s", ""),
    ("[await f(x) for x in s]", "f s", ""),
    # the notebook's own `print` and the shell's last value
    ("_ + __ + _3", "_ __ _3", ""),
]  # fmt: skip

if sys.version_info >= (3, 11):
    PYTHON += [
        ("try:\n  f()\nexcept* E as e:\n  g(e)", "f E g", "e"),
        ("a[*b] = c", "a b c", ""),
    ]
if sys.version_info >= (3, 12):
    PYTHON += [
        ("type X[T] = list[T] | Y", "Y", "X"),
        ("type X = Y\nY = int", "", "X Y"),
        ("def f[T: B](x: T) -> T: return T, w", "B w", "f"),
        ("class A[T](Base[T]):\n  x: T = v\n  def m[U](self, u: U, t: T): return T", "Base v", "A"),
        ("class A:\n  K = int\n  def m[U](self, k: K, u: U): pass", "", "A"),
    ]


@pytest.mark.parametrize("source, read, written", PYTHON, ids=[c[0] for c in PYTHON])
def test_python_constructs(source: str, read: str, written: str) -> None:
    found = analyze(source)
    assert found.reads - BUILTINS == names(read) - BUILTINS
    assert found.writes == names(written)


# source, reads, writes, opaque
IPYTHON = [
    ("!ls {p / 'x'} $q $$HOME", "p q", "", False),
    ("!awk '{print $1}' $f", "", "", False),
    ("!echo {x:.2f}", "", "", False),
    ("x = !ls {p}\ny = x", "p", "x y", False),
    ("if c:\n    !ls $p", "c p", "", False),
    ("%time x = f(y)", "f y", "x", False),
    ("%time x = f(y)\nx", "f y", "x", False),
    ("%time -x", "x", "", False),
    ("x = %time f(y)", "f y", "x", False),
    ("%%time\nx = f(y)\nz = x", "f y", "x z", False),
    ("%%time\n!ls $p", "p", "", False),
    ("%timeit -n 10 -r3 f(x)", "f x", "", False),
    ("%timeit -qo x = f(y); x", "f y", "", False),
    ("%%timeit x = f(y)\ng(x)", "f y g", "", False),
    ("%prun -s cumulative f(x)", "f x", "", False),
    ("%%prun -l 5\nx = f(y)", "f y", "x", False),
    ("%lprun -f m.g f(x)", "m f x", "", False),
    ("%%capture out\nx = f(y)\nprint(x)", "f y", "out x", False),
    ("%%capture --no-stderr\nx = f(y)", "f y", "x", False),
    ("def f(a):\n    %time b = g(a, c)\n    !echo $a $d", "g c d", "f", False),
    ("df?", "df", "", False),
    ("df.head??", "df", "", False),
    ("?df", "df", "", False),
    ("%matplotlib inline\nx", "x", "", False),
    ("%cd $folder", "folder", "", False),
    ("%pip install {package}", "package", "", False),
    ("%env A=$b", "b", "", False),
    ("%sc -l a = ls $p", "p", "a", False),
    ("%%bash --out o --err e\necho $HOME", "", "o e", False),
    ("%%writefile {name}\nx = y", "name", "", False),
    ("%%html\n<b>{x}</b>", "", "", False),
    ("%%ray_job out --cpus 2\nx = y", "", "", False),
    ("%run script.py", "", "", True),
    ("%store -r x", "", "", True),
    ("%mystery $x", "x", "", True),
    ("%%mystery\nx = y", "y", "x", True),
    ("%%sql\nselect * from t where a = 'b' and", "", "", True),
    ("exec(code)", "exec code", "", True),
    ("locals()['x'] = 1", "locals", "", True),
    ("vars(m)", "vars m", "", False),
    ("get_ipython().run_line_magic('time', text)", "text", "", True),
    ("get_ipython().run_cell(text)", "text", "", True),
    (">>> x = y\n... ", "y", "x", False),
    ("    x = y", "y", "x", False),
]


@pytest.mark.parametrize("source, read, written, opaque", IPYTHON, ids=[c[0] for c in IPYTHON])
def test_ipython_syntax(source: str, read: str, written: str, opaque: bool) -> None:
    found = analyze(source)
    assert found.reads - BUILTINS == names(read)
    assert found.writes == names(written)
    assert found.opaque is opaque


# source, field, expected
USES = [
    (
        "import a.b.c, d as e\ndef f():\n  from g.h import i\nimport_module('j.k')",
        "modules",
        "a.b.c d g.h j.k",
    ),
    ("import a.b, c as d\nfrom e import f\nx = 1", "imports", "a d f"),
    ("from a.b import *", "stars", "a.b"),
    ("del x, d['k'], m.a", "deletes", "x"),
    ("try: f()\nexcept E as e: pass", "deletes", "e"),
    ("xs[0] = 1\nm.alpha = 2\ndel d['k']\nn.a[0].b = 3\nt += 1\n(u, v[0]) = w", "items", "xs m d n t v"),
    ("for xs[0] in s: pass\nwith o as m.f: pass", "items", "xs m"),
    ("def f(a):\n  a[0] = 1\n  g[0] = 1\n  b = []\n  b[0] = 1", "items", "g"),
    (
        "df.drop('a', inplace=True)\ndg.drop('a', inplace=False)\ndh.head().pop('a', inplace=True)",
        "inplace",
        "df",
    ),
    ("s.sort(in_place=flag)", "inplace", "s"),
    ("f(a, b.c, *d, k=e, **g)", "passed", "a d e g"),
    ("f([a, (b, {c}), {'k': d}], e if t else g)", "passed", "a b c d e g"),
    ("print(a)\nlen(b)", "passed", ""),
    ("y = x\n(z := w)\nfor i in xs: pass\n[j for j in ys]", "passed", "x w xs ys"),
    ("def f(): return xs", "passed", "xs"),
    ("f(a.b, c['k'])\nm = models[0]\nfor v in d.values(): v.fit()\nprint(e.f)", "parts", "a c models d"),
]


@pytest.mark.parametrize("source, attribute, expected", USES, ids=[c[0] for c in USES])
def test_uses_of_values(source: str, attribute: str, expected: str) -> None:
    assert getattr(analyze(source), attribute) == names(expected)


def test_methods_belong_to_the_name_that_the_chain_starts_from() -> None:
    found = analyze(
        "df.columns.sort()\ndf.groupby('a').mean()\nd['k'].append(1)\nf(x).g()\n', '.join(y)\n[].pop()"
    )
    assert found.methods == {
        "df": {"sort", "groupby", "mean"},
        "d": {"append"},
        "f": {"g"},
    }


@pytest.mark.parametrize(
    "source, line",
    [
        ("x = (1,", 1),
        ("a = 1\nreturn a", 2),
        ("a = 1\nb = 2\nfor", 3),
        ("%time x = (", 1),
        ("break", 1),
        ("!ls\n1 = x", 2),
    ],
)
def test_a_syntax_error_is_pythons_own(source: str, line: int) -> None:
    with pytest.raises(SyntaxError) as caught:
        analyze(source)
    assert caught.value.lineno == line


def test_a_cell_may_import_a_future_feature_in_its_middle() -> None:
    # IPython compiles statement by statement, so that this is no error there.
    assert "T" not in analyze("x = 1\nfrom __future__ import annotations\ny: T = 1").reads


def test_an_empty_cell_does_nothing() -> None:
    assert analyze("") == analyze("# only a comment\n") == Analysis()


def test_a_tree_is_analysed_like_its_source() -> None:
    source = "def f(): return w\nx = f(y)"
    assert analyze(ast.parse(source)) == analyze(source)


def test_warnings_of_the_compiler_are_left_to_the_run() -> None:
    analyze(
        "x = '\\d'\nif x is 'a': pass\nassert (x, 'always true')"
    )  # a warning would be an error in these tests


def test_nothing_of_the_cell_runs(tmp_path) -> None:
    marker = tmp_path / "ran"
    make = f"open({str(marker)!r}, 'w').close()"
    analyze(f"{make}\n%time {make}\n!touch {marker}\n!echo {{{make}}}\ndef f(x={make}): pass")
    assert not marker.exists()


@pytest.mark.parametrize(
    "source",
    [
        " + ".join(["x"] * 500),
        "if x: pass\n" + "elif x: pass\n" * 300,
        "x" + ".a()" * 100,
        "[" + ", ".join(["x"] * 5000) + "]",
    ],
    ids=["sum", "elif", "chain", "list"],
)
def test_long_cells_are_no_problem(source: str) -> None:
    assert analyze(source).reads == {"x"}


def test_a_long_cell_costs_little_more_than_ipythons_own_reading_of_it() -> None:
    lines = "x{0} = [f(y, {0}) for y in data[{0}:] if y.a > t]\nx{0}.append(g(x{0}))"
    source = "\n".join(lines.format(i) for i in range(100))

    def read() -> None:
        compile(TransformerManager().transform_cell(source), "<cell>", "exec")

    read(), analyze(source)
    assert min(_seconds(lambda: analyze(source)) for _ in range(7)) < 6 * min(
        _seconds(read) for _ in range(7)
    )


def _seconds(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


@pytest.fixture
def shell():
    made = InteractiveShell()
    yield made
    made.history_manager.end_session()
    InteractiveShell.clear_instance()


def test_the_shell_knows_its_own_magics(shell) -> None:
    shell.register_magic_function(lambda line: None, "line", "mine")
    shell.run_line_magic("alias_magic", "t time")
    assert analyze("%mine x = y", shell).opaque
    found = analyze("%t x = y", shell)
    assert (found.reads, found.writes, found.opaque) == ({"y"}, {"x"}, False)
    assert not analyze("%matplotlib inline", shell).opaque
    assert not analyze("%%bash\nls", shell).opaque


def test_the_shell_allows_a_magic_without_its_percent_sign(shell) -> None:
    assert not analyze("pip install {package}", shell).opaque
    with pytest.raises(SyntaxError):
        analyze("pip install a\npip install b", shell)


def test_the_shell_remembers_future_annotations(shell) -> None:
    assert analyze("x: T = 1", shell).reads == (set() if sys.version_info >= (3, 14) else {"T"})
    shell.run_cell("from __future__ import annotations")
    assert analyze("x: T = 1", shell).reads == set()


def test_what_a_cell_cannot_begin_without_is_imported_before_all_else():
    source = "'doc'\nimport a.b as x, c\nfrom d.e import f\nfrom . import g\nprint(1)\nimport late\n"
    assert analyze(source).needs - {""} == {"a.b", "c", "d.e"}
    assert not analyze("try:\n    import cupy\nexcept ImportError:\n    cupy = None\n").needs
    assert not analyze("!pip install a\nimport a\n").needs
    assert not analyze("def f():\n    import a\n").needs
