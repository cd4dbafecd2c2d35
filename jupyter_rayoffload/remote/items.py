"""The items of a batch, one after the other, in a process that Ray has for them.

The process makes one shell and keeps it. Each item finds the namespace as the first one did: what it needs is
laid out anew, and what it leaves behind is taken away.
"""

from __future__ import annotations

import ast
import atexit
import json
import os
import re
import shutil
import sys
import tempfile
import time
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .chunks import ABOUT, ERROR, ITEMS, RESULT, Parcel, key_of
from .codec import freeze, thaw
from .command import exit_failure, filled, run_program
from .connection import read_connection
from .elsewhere import Outpost
from .failures import Unready, beyond_memory, import_hint
from .interrupt import Interrupt
from .on_import import prepare_libraries
from .outputs import OWN_NAMES, bound_by_definition
from .place import enter, make_folder
from .processes import limit_memory, unlimit_memory
from .shell import CellError, Outcome, make_shell

__all__ = ["CALL", "ItemRunner"]

#: The names of a call's own parts among its inputs.
CALL = ("function", "args", "kwargs")
#: A chunk that takes longer than this gives back the items that it has not begun, seconds.
CHUNK_SECONDS = 1.0
#: How long a worker bears a store that does not answer, seconds.
STORE_SECONDS = 60.0
#: Of so many items the text of their results is kept, for the text of the list: IPython shows no more.
SHOWN_RESULTS = 1000
#: Before a line of this form Ray's log monitor takes the name of what prints (ray_constants.py).
_NAMED = ":task_name:"
_OWN = re.compile(OWN_NAMES)
_ABSENT = object()


class ItemRunner:
    """Runs items in this process.

    Parameters
    ----------
    shared : Mapping
        ``{spec, inputs, home}``: the job, its inputs as a parcel, and the runner's folder.
    """

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._spec: Mapping[str, Any] = shared["spec"]
        self._batch: Mapping[str, Any] = self._spec["batch"]
        self._inputs: Parcel = shared["inputs"]
        connection = read_connection()
        self._signer = connection.signer
        home = Path(shared["home"])
        here = (home / "work").is_dir()  # the runner's node: what the items write is in its folder
        self._outpost: Outpost | None = None
        self._scratch = Path(tempfile.mkdtemp(prefix="rayoffload-items-", dir=home if here else None))
        if here:  # and who removes that, removes this
            modules = [str(p) for p in sorted(home.glob("modules*"))]
            enter(str(home / "work"), modules)
        else:
            atexit.register(shutil.rmtree, self._scratch, ignore_errors=True)
            folder = make_folder(connection.open_store(STORE_SECONDS), self._spec, self._scratch)
            fetch = (self._spec.get("options") or {}).get("fetch") or ()
            self._outpost = Outpost(folder, self._scratch, fetch)
        prepare_libraries()
        ipython = self._scratch / "ipython"
        ipython.mkdir()
        self._shell = make_shell(str(ipython), self._tell)
        self._shell.recall(self._spec.get("cells") or {})
        self._interrupt = Interrupt()
        self._messages: list[dict[str, Any]] = []
        self._text = ""
        self._streams = [_NamedStream(sys.stdout), _NamedStream(sys.stderr)]
        self._call: dict[str, Any] = {}
        # Whether an item may find what another one did to an input, if it is not laid out anew.
        self._fresh = bool(self._spec.get("watched")) or self._spec.get("kind") == "callable"
        self._clean = dict(self._shell.user_ns)
        self._used = False
        self._lay_out()
        self._defined = bound_by_definition(self._tree())

    # ------------------------------------------------------------------ one chunk

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run some items.

        Parameters
        ----------
        order : Mapping
            ``{indices, items, limits}``: numbers, the items as a parcel, and how large files may be.

        Returns
        -------
        dict
            ``done`` (number, whether well, seconds), ``values`` (a parcel for the store), ``failures`` and
            ``texts`` by number, ``rest``: the numbers of items that were not begun, and ``files`` that the
            runner's folder lacks.
        """
        given: Parcel = order["items"]
        items = thaw(given.graph, given.views(), self._shell.user_ns)[ITEMS]
        pairs = list(zip(order["indices"], items, strict=True))
        end = time.monotonic() + CHUNK_SECONDS
        found: dict[str, Any] = {"done": [], "failures": {}, "texts": {}, "rest": []}
        values: dict[str, Any] = {}
        errors: dict[str, Any] = {}
        for number, (index, item) in enumerate(pairs):
            if number and time.monotonic() > end:
                found["rest"] = [i for i, _ in pairs[number:]]
                break
            if self._spec.get("kind") == "program":
                self._program(index, item, found, values)
            else:
                self._one(index, item, found, values, errors)
        values |= errors  # the last: who reads the others does not have to read them
        frozen = freeze(values, self._shell.user_ns, self._signer, copy=False, skip=True)
        files = self._outpost.changed(order["limits"]) if self._outpost else None
        return {**found, "values": Parcel.of(frozen), "files": files}

    def _one(
        self,
        index: int,
        item: Any,
        found: dict[str, Any],
        values: dict[str, Any],
        errors: dict[str, Any],
    ) -> None:
        namespace = self._shell.user_ns
        self._messages, self._text = [], ""
        if self._fresh and self._used:
            self._lay_out()
        self._used = True
        begin = time.perf_counter()
        with _named(self._streams, index):
            outcome = self._limited(item)
        seconds = round(time.perf_counter() - begin, 4)
        error = outcome.error
        found["done"].append([index, error is None, seconds])
        about: dict[str, Any] = {"displays": self._messages} if self._messages else {}
        if error is not None:
            about["failure"] = found["failures"][index] = self._failure(error)
            if self._can_be_rebuilt(error.error):
                errors[key_of(index, ERROR)] = error.error
        else:
            for name, value in self._changed(item).items():
                values[key_of(index, name)] = value
            if outcome.value is not None:
                values[key_of(index, RESULT)] = outcome.value
                if index < SHOWN_RESULTS:
                    found["texts"][index] = self._text or repr(outcome.value)
        if about:
            values[key_of(index, ABOUT)] = about
        namespace.clear()
        namespace.update(self._clean)
        self._forget()

    def _program(
        self, index: int, given: tuple[str, bytes], found: dict[str, Any], values: dict[str, Any]
    ) -> None:
        """Run the program of the job on one input."""
        begin = time.perf_counter()
        home = Path(tempfile.mkdtemp(dir=self._scratch))
        failure: dict[str, Any] = {}
        result: tuple[str, bytes] | None = None
        with _named(self._streams, index):
            for stream in self._streams:
                stream.tell_name()  # what the program prints does not come by here
            try:
                source = filled(self._spec["source"], self._batch.get("name") or "", given)
                code, result = run_program(self._spec["id"], source, home, given, bound=True)
                failure = exit_failure(code) if code else {}
            except Unready as error:
                failure = error.failure
            finally:
                shutil.rmtree(home, ignore_errors=True)
        found["done"].append([index, not failure, round(time.perf_counter() - begin, 4)])
        if failure:
            found["failures"][index] = failure
            values[key_of(index, ABOUT)] = {"failure": failure}
        if result is not None:
            kind, data = result
            values[key_of(index, RESULT)] = json.loads(data) if kind == "json" else data

    def _memory(self) -> int:
        """Give the bytes that an item may use; 0 where Ray or Kubernetes limits it, or nobody."""
        if os.environ.get("RAYOFFLOAD_MEMORY_LIMIT") != "1":
            return 0
        return int(((self._spec.get("options") or {}).get("resources") or {}).get("memory") or 0)

    def _limited(self, item: Any) -> Outcome:
        memory = self._memory()
        if not memory:
            return self._execute(item)
        limit_memory(memory)
        try:
            return self._execute(item)
        finally:
            unlimit_memory()

    def _execute(self, item: Any) -> Outcome:
        shell, spec = self._shell, self._spec
        try:
            if spec.get("kind") == "callable":
                call = self._call
                return shell.run_call(
                    call["function"], (item, *call["args"]), call["kwargs"], self._interrupt
                )
            shell.user_ns[self._batch["name"]] = item
            return shell.run_source(
                spec["source"], self._interrupt, spec.get("cell_line") or "", spec.get("count")
            )
        finally:
            self._interrupt.close()

    # ------------------------------------------------------------------ before and after an item

    def _lay_out(self) -> None:
        """Put the inputs into the namespace, as they were sent."""
        namespace = self._shell.user_ns
        namespace.clear()
        namespace.update(self._clean)
        views = self._inputs.views(copy=bool(self._batch.get("copies")))
        values = thaw(self._inputs.graph, views, namespace)
        if self._spec.get("kind") == "callable":
            self._call = {name: values.pop(name) for name in CALL}
        self._clean.update(values)
        namespace.update(values)
        self._used = False

    def _changed(self, item: Any) -> dict[str, Any]:
        """Give the names that the item has bound: no modules, and no functions that its text defines."""
        namespace = self._shell.user_ns
        chosen = (self._spec.get("options") or {}).get("outputs")
        if chosen is not None:
            return {name: namespace[name] for name in chosen if name in namespace}
        if self._spec.get("kind") == "callable":
            return {}
        before = {**self._clean, self._batch["name"]: item}
        return {
            name: value
            for name, value in namespace.items()
            if before.get(name, _ABSENT) is not value
            and name not in self._defined
            and not _OWN.fullmatch(name)
            and not isinstance(value, types.ModuleType)
        }

    def _forget(self) -> None:
        """Keep none of IPython's memories of an item: of ten thousand they would fill this process."""
        shell: Any = self._shell
        shell.user_ns["_oh"].clear()
        for history in ("input_hist_parsed", "input_hist_raw"):
            del getattr(shell.history_manager, history)[1:]
        hook = shell.displayhook
        hook._ = hook.__ = hook.___ = ""

    def _can_be_rebuilt(self, error: BaseException) -> bool:
        """Whether an exception can be read again: many want other arguments than they keep."""
        namespace = self._shell.user_ns
        try:
            frozen = freeze({"error": error}, namespace, self._signer, copy=False)
            thaw(frozen.graph, [b.data for b in frozen.buffers], dict(namespace))
        except Exception:
            return False
        return True

    def _failure(self, error: CellError) -> dict[str, Any]:
        failure: dict[str, Any] = {"traceback": list(error.traceback)}
        if error.line:
            failure["line"] = error.line
        memory = self._memory()
        if memory and isinstance(error.error, MemoryError):
            return failure | beyond_memory(memory)
        if isinstance(error.error, ModuleNotFoundError) and error.error.name:
            hint = import_hint(error.error.name, self._spec.get("libraries") or {})
            failure |= {"hint": hint} if hint else {}
        return failure | {"ename": error.ename, "evalue": error.evalue}

    def _tell(self, kind: str, content: dict[str, Any]) -> None:
        """Take what an item shows: its text goes to the log, the rest waits for who asks for it."""
        if kind == "error":
            return
        text = (content.get("data") or {}).get("text/plain")
        if kind == "execute_result":
            self._text = text if isinstance(text, str) else ""
            return
        self._messages.append({"type": kind, "content": content})
        if kind == "display_data" and isinstance(text, str):
            print(text)

    def _tree(self) -> ast.Module | None:
        try:
            return ast.parse(self._shell.transformed(self._spec.get("source") or ""))
        except (SyntaxError, ValueError):
            return None


class _NamedStream:
    """A stream of Ray's worker that says, before what an item prints, which item that is."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.name_due, self._last = stream, "", "\n"

    def tell_name(self) -> None:
        """Say which item comes now."""
        if self.name_due:
            self._stream.write(f"{_NAMED}{self.name_due}\n")
            self._stream.flush()
            self.name_due = ""

    def write(self, text: str) -> int:
        if text:
            self.tell_name()
        self._stream.write(text)  # whose answer is not that of a stream
        self._last = text[-1:] or self._last
        return len(text)

    def end_line(self) -> None:
        """End a line that an item has left open: the next item's name needs one of its own."""
        if self._last != "\n":
            self.write("\n")
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _named:
    """Lets the streams name an item while it runs."""

    def __init__(self, streams: list[_NamedStream], index: int) -> None:
        self._streams, self._name = streams, f"item {index}"

    def __enter__(self) -> None:
        for stream in self._streams:
            stream.name_due = self._name
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._streams

    def __exit__(self, *error: object) -> None:
        for stream in self._streams:
            stream.end_line()
        sys.stdout, sys.stderr = self._before
