"""Which names a cell reads and binds, and which reads can need a value from before the cell.

A set says which names the cell has certainly bound or deleted so far: reading one of those cannot need the
value that the notebook had before. Nothing takes a name back out of that set, so a loop needs only one pass,
and the first moment at which a function may be called tells what its body may read.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .scope import Place, Scope


@dataclass
class Block:
    """Where the walk is in code that runs in one go: the cell itself, or the body of a function.

    Parameters
    ----------
    certain : frozenset of str, optional
        What is certainly bound or deleted here; None where the code cannot be reached.
    reads : set of str
        Globals whose value from before the block may be read.
    breaks, continues : list
        For each loop around, what was certain at its ``break`` and ``continue`` statements.
    """

    certain: frozenset[str] | None = frozenset()
    reads: set[str] = field(default_factory=set)
    breaks: list[list[frozenset[str] | None]] = field(default_factory=list)
    continues: list[list[frozenset[str] | None]] = field(default_factory=list)


class Flow:
    """The state of the walk over a cell.

    Attributes
    ----------
    writes, imports, deletes : set of str
        As in :class:`.cell.Analysis`.
    scope : Scope
        The block of names that the walk is in.
    """

    def __init__(self) -> None:
        self.writes: set[str] = set()
        self.imports: set[str] = set()
        self.deletes: set[str] = set()
        self.scope = Scope("module")
        self._cell = self._block = Block()
        # What the bodies of functions and classes read, by the name that must be loaded before they can be
        # called; and what was certain whenever a name was loaded.
        self._needs: dict[str, set[str]] = {}
        self._loads: dict[str, list[frozenset[str]]] = {}
        self._class_needs: set[str] = set()
        self._class_ids = itertools.count(1)
        self._class_id = 0

    @property
    def certain(self) -> frozenset[str] | None:
        """What is certainly bound or deleted here; None where the code cannot be reached."""
        return self._block.certain

    @certain.setter
    def certain(self, value: frozenset[str] | None) -> None:
        self._block.certain = value

    def reads(self) -> frozenset[str]:
        """Give what the cell reads; its functions as of the first moment at which each may be called."""
        end = self._cell.certain
        certain = {} if end is None else dict.fromkeys(self._needs, end)
        for name in self._needs.keys() & self._loads.keys():
            certain[name] = frozenset.intersection(*self._loads[name])
        found = set(self._cell.reads)
        waiting = list(certain)
        while waiting:
            name = waiting.pop()
            found |= self._needs[name] - certain[name]
            for callee in self._needs[name] & self._needs.keys():
                before = certain.get(callee)
                certain[callee] = certain[name] if before is None else before & certain[name]
                if certain[callee] != before:
                    waiting.append(callee)
        return frozenset(found)

    def load(self, name: str) -> None:
        """Note that the code here uses the value of `name`."""
        if name == "__debug__":
            return  # a constant
        name = self.scope.mangled(name)
        place = self.scope.place(name)
        if place is Place.CLASS:
            key = self._key(name)
            self._note_load(key)
            if self.certain is not None and key not in self.certain:
                self.read([name])
        elif place is Place.GLOBAL:
            self.read([name])

    def read(self, names: Iterable[str]) -> None:
        """Note that the values of the globals `names` are used here."""
        if self.certain is not None:
            for name in names:
                if name not in self.certain:
                    self._block.reads.add(name)
                self._note_load(name)

    def inherit(self, name: str) -> None:
        """Note that the class `name` becomes a base: it is used, and its methods are not called yet."""
        if self.certain is not None and name not in self.certain:
            self._block.reads.add(name)

    def bind(self, name: str, imported: bool = False) -> None:
        """Note that `name` is bound here."""
        name = self.scope.mangled(name)
        scope = self.scope
        while scope.kind == "comprehension" and scope.parent is not None and name not in scope.names.local:
            scope = scope.parent  # a walrus
        place = scope.place(name)
        if place is Place.GLOBAL:
            self.writes.add(name)
            if imported:
                self.imports.add(name)
        if place is Place.LOCAL or (place is Place.CLASS and name in scope.names.deleted):
            return  # after a `del` a class body sees the global again
        self._make_certain(self._key(name))

    def delete(self, name: str) -> None:
        """Note that `name` is deleted here."""
        name = self.scope.mangled(name)
        if self.scope.place(name) is Place.GLOBAL:
            self.read([name])
            self.deletes.add(name)
            self._make_certain(name)

    def unbind(self, name: str) -> None:
        """Note that `name`, bound before, will be unbound, as it is after ``except ... as name``."""
        name = self.scope.mangled(name)
        if self.scope.place(name) is Place.GLOBAL:
            self.deletes.add(name)

    def define(self, name: str, needs: set[str], may_be_called: bool) -> None:
        """Note a function or class.

        Parameters
        ----------
        name : str
            Empty for one without a name.
        needs : set of str
            Globals that its body reads.
        may_be_called : bool
            Whether that may happen before it has its name.
        """
        name = self.scope.mangled(name)
        if may_be_called or self._in_function:
            # A recursive function under a decorator would else read the function that it replaces.
            self.read(needs - {name})
        if not self._in_function:
            if name:
                self._needs.setdefault(self._key(name), set()).update(needs)
            if self.scope.kind == "class":
                self._class_needs |= needs

    def global_name(self, node: ast.expr | None) -> str | None:
        """Give the name of `node` if it is a global one."""
        if not isinstance(node, ast.Name):
            return None
        name = self.scope.mangled(node.id)
        return name if self.scope.place(name) is Place.GLOBAL else None

    @contextmanager
    def inside(self, scope: Scope) -> Iterator[None]:
        """Be in the block `scope`, whose code runs here and now."""
        around, self.scope = self.scope, scope
        yield
        self.scope = around

    @contextmanager
    def inside_function(self, scope: Scope) -> Iterator[set[str]]:
        """Be in the block `scope`, whose code runs later or never; give the set of globals that it reads."""
        around, self._block = self._block, Block()
        with self.inside(scope):
            yield self._block.reads
        self._block = around

    @contextmanager
    def inside_class(self, scope: Scope, needs: set[str]) -> Iterator[set[str]]:
        """Be in the body of a class; the globals that it and its methods need are added to `needs`."""
        around = self._class_id, self._class_needs
        self._class_id, self._class_needs = next(self._class_ids), needs
        with self.inside(scope):
            for name in ("__module__", "__qualname__"):  # the compiler binds them first
                scope.names.local.add(name)
                self._make_certain(self._key(name))
            yield self._class_needs
        self._class_id, self._class_needs = around

    @contextmanager
    def loop(self, is_entered: bool, ends: bool) -> Iterator[list[frozenset[str] | None]]:
        """Be in the body of a loop; what is certain afterwards holds where it ended by itself.

        Parameters
        ----------
        is_entered : bool
            It has a first round.
        ends : bool
            It ends by itself at all, and not only by a ``break``.

        Yields
        ------
        list
            What is certain at each ``break``.
        """
        before = self.certain
        breaks, continues = self._block.breaks, self._block.continues
        breaks.append([])
        continues.append([])
        yield breaks[-1]
        breaks.pop()
        after_round = join(self.certain, *continues.pop())
        self.certain = (after_round if is_entered else before) if ends else None

    def break_(self) -> None:
        """Be at a ``break``."""
        self._block.breaks[-1].append(self.certain)
        self.certain = None

    def continue_(self) -> None:
        """Be at a ``continue``."""
        self._block.continues[-1].append(self.certain)
        self.certain = None

    @property
    def _in_function(self) -> bool:
        return self._block is not self._cell

    def _key(self, name: str) -> str:
        """Give the entry of `name` in the sets: a name of a class body is not the global of that name."""
        return f"{self._class_id}:{name}" if self.scope.place(name) is Place.CLASS else name

    def _note_load(self, key: str) -> None:
        if self.certain is not None and not self._in_function:
            states = self._loads.setdefault(key, [])
            if not states or states[-1] is not self.certain:
                states.append(self.certain)

    def _make_certain(self, key: str) -> None:
        if self.certain is not None and key not in self.certain:
            self.certain |= {key}


def join(*states: frozenset[str] | None) -> frozenset[str] | None:
    """Give what is certain where one of several ways was taken."""
    reached = [s for s in states if s is not None]
    return frozenset.intersection(*reached) if reached else None
