"""The process that executes the cell: folder, inputs, cell, outputs. :mod:`.guard` watches over it."""

from __future__ import annotations

import ast
import atexit
import base64
import contextlib
import faulthandler
import functools
import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import failures, on_ray
from .batch import Batch
from .channel import Channel
from .chunks import ITEMS, stored_lists, unpack
from .codec import Frozen, freeze, thaw
from .command import exit_failure, run_command
from .connection import Connection
from .describe import describe
from .failures import Unready, failure_of
from .files import Folder, limits, ray_package
from .interrupt import Interrupt
from .items import CALL
from .on_import import prepare_libraries
from .outputs import Before, imports_of
from .parts import Part
from .place import made, make_folder
from .processes import limit_memory, unlimit_memory
from .shell import CellError, Outcome, make_shell
from .store import Missing
from .stream import CellStream

__all__ = ["STORE_PATIENCE", "CellProcess"]

#: How long a call of the runner bears a store that does not answer, seconds: it has nobody else to go to.
STORE_PATIENCE = 600.0
#: After the name of an input, where its value comes back although the name is bound to another one now.
REPLACED = "="
#: How far a chain of unchanged inputs is followed from job to job.
CHAIN = 100


class CellProcess:
    """Runs one job, and tells the guard how it ended.

    Parameters
    ----------
    connection : Connection
    channel : Channel
    interrupt : Interrupt
    home : pathlib.Path
        A folder for everything of this job; the guard removes it.
    """

    def __init__(self, connection: Connection, channel: Channel, interrupt: Interrupt, home: Path) -> None:
        self._signer = connection.signer
        self._store = connection.open_store(STORE_PATIENCE)
        self._channel, self._interrupt, self._home = channel, interrupt, home
        self._pid = os.getpid()
        CellStream.install(channel)
        faulthandler.enable()  # a crash in C code says where, as in a kernel
        prepare_libraries()
        self._shell = make_shell(str(made(home / "ipython")), channel.tell)
        self._spec: dict[str, Any] = {}
        self._sealed: dict[str, str] = {}
        self._ahead: tuple[Any, Folder] | None = None
        self._late = False  # whether Ray learns of the workspace from us, not from the submission

    def prepare(self, plan: dict[str, Any]) -> None:
        """Do ahead what the cell will need, and say when that is done; what fails now fails again then."""
        self._late = not plan.get("connect")
        try:
            self._ahead = (_workspace_of(plan), make_folder(self._store, plan, self._home))
        except Exception:
            self._log_trouble()
        for name in plan.get("imports") or ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        if plan.get("connect"):
            try:
                on_ray.connect_ahead()
            except Exception:
                self._log_trouble()
        self._rehearse()
        self._channel.tell("ready")

    def _rehearse(self) -> None:
        """Do once what takes longer the first time."""
        with contextlib.suppress(Exception):
            self._shell.rehearse(self._interrupt)
            frozen = self._freeze({"nothing": None}, skip=True)
            thaw(frozen.graph, [b.data for b in frozen.buffers], {}, ["nothing"])
            self._store.ping()

    def expect(self, spec: dict[str, Any]) -> None:
        """Get ready for a job, which is begun by :meth:`run`; another one may take its place before."""
        self._spec = spec
        if (spec.get("kind") or "cell") == "cell":
            self._shell.parsed(spec["source"])

    def run(self) -> NoReturn:
        """Execute the job that was expected last, and end the process."""
        code = failures.NOT_THE_CELL
        try:
            end = self._execute()
            code = end["exit_code"]
            self._flush()
            if os.getpid() == self._pid:
                self._channel.tell("end", {**end, "sealed": self._sealed})
                _say_goodbye()
        except KeyboardInterrupt:  # the guard, who asked for it, says how the job ended
            pass
        except BaseException:  # the guard sees that this process ends without a word
            self._log_trouble()
        finally:
            with contextlib.suppress(Exception):
                self._flush()
            os._exit(code)

    def _execute(self) -> dict[str, Any]:
        kind = self._spec.get("kind") or "cell"
        doing = ["making the working folder"]
        try:
            folder = self._folder()
            if kind == "program":
                return self._run_program(folder)
            doing.append("loading the inputs")
            self._shell.recall(self._spec.get("cells") or {})
            inputs = self._load_inputs()
            doing.append("running the cell")
            run = self._run_call if kind == "callable" else self._run_cell
            run = functools.partial(self._run_batch, folder) if self._spec.get("batch") else run
            end = run(inputs)
            on_ray.await_workers()
            doing.append("storing the files")
            end.update(self._files(folder))
            return end
        except Unready as error:
            failure = error.failure
        except KeyboardInterrupt:
            raise
        except Exception as error:
            failure = failure_of(error, doing[-1], self._spec.get("libraries"))
            self._log_trouble()  # perhaps a slip of ours
        return {"phase": "failed", "exit_code": failures.NOT_THE_CELL, "failure": failure}

    # ------------------------------------------------------------------ before

    def _folder(self) -> Folder:
        """Give the working folder: the one that was made ahead, if it is what the job asks for."""
        if self._late and self._spec.get("package"):
            on_ray.bind_workspace(f"gcs://{ray_package(self._spec['package'])}")
        if self._ahead is not None and self._ahead[0] == _workspace_of(self._spec):
            return self._ahead[1]
        if self._ahead is not None:
            os.chdir(self._home)  # out of the one that gives way
        return make_folder(self._store, self._spec, self._home)

    def _load_inputs(self) -> dict[str, Any]:
        job, namespace = self._spec["id"], self._shell.user_ns
        after = self._spec.get("after") or {}
        values: dict[str, Any] = {}
        sources: dict[str, dict[str, str]] = {}
        for name, place in after.items():
            source, _, there = place.partition("#")
            sources.setdefault(source, {})[name] = there or name
        for source, names in sources.items():
            values.update(self._from_job(source, names, CHAIN))
        if any(v["name"] not in after for v in self._spec.get("inputs") or ()):
            values.update(self._store.get_payload(job, "inputs", namespace))
        namespace.update(
            {
                n: v
                for n, v in values.items()
                if n != ITEMS and (self._spec.get("kind") != "callable" or n not in CALL)
            }
        )
        # `Out[7]` is what `_7` is.
        namespace["Out"].update({int(n[1:]): v for n, v in values.items() if re.fullmatch(r"_\d+", n)})
        return values

    def _from_job(self, job: str, names: dict[str, str], depth: int) -> dict[str, Any]:
        """Read outputs of another job, by their names there; what it did not change, it has as inputs."""
        record = self._store.read(job) or {}
        end, after = record.get("end") or {}, (record.get("spec") or {}).get("after") or {}
        namespace, same = self._shell.user_ns, end.get("same") or {}
        wanted = {n: same.get(there, there) for n, there in names.items()}
        found: dict[str, Any] = {}
        if "manifest" in end:  # a batch
            came = {v["name"] for v in end["outputs"] if not v.get("reason")} & set(wanted.values())
            lists = stored_lists(self._store, job, end, sorted(came), namespace)
            found = {n: lists[t] for n, t in wanted.items() if t in lists}
            wanted = {n: t for n, t in wanted.items() if n not in found}
        for slot in ("outputs", "inputs"):
            with contextlib.suppress(Missing):
                stored = {v["name"] for v in self._store.peek_payload(job, slot)["values"]}
                here = {n: t for n, t in wanted.items() if t in stored}
                if here:
                    values = self._store.get_payload(
                        job, slot, namespace, list(here.values()), known=self._as_sent(job)
                    )
                    found.update({n: values[t] for n, t in here.items()})
                    wanted = {n: t for n, t in wanted.items() if n not in here}
        if not wanted:
            return found
        imports = end.get("imports") or {}
        refused = {v["name"]: v["reason"] for v in end.get("outputs") or () if v.get("reason")}
        for name, there in wanted.items():
            if there in imports:
                found[name] = _imported(*imports[there])
            elif there in after and depth:
                source, _, earlier = after[there].partition("#")
                found.update(self._from_job(source, {name: earlier or there}, depth - 1))
            elif there in refused:
                raise Missing(f"`{there}` of job {job} cannot travel: {refused[there]}")
            else:
                raise Missing(f"`{there}` of job {job} is not, or no longer, in the store")
        return found

    def _as_sent(self, job: str) -> Callable[[str], Any]:
        """Give what reads inputs of a job, and parts of them, as they were sent."""

        @functools.cache  # parts of one input belong together
        def read(name: str) -> Any:
            return self._store.get_payload(job, "inputs", self._shell.user_ns, [name])[name]

        def find(key: str) -> Any:
            part = Part.from_key(key)
            return part.of(read(part.name))

        return find

    # ------------------------------------------------------------------ the three kinds

    def _run_cell(self, inputs: dict[str, Any]) -> dict[str, Any]:
        spec, shell = self._spec, self._shell
        names = set(inputs)
        inputs.clear()  # the namespace alone keeps them: what the cell drops is free
        tree = shell.parsed(spec["source"])
        chosen = (spec.get("options") or {}).get("outputs")
        maybe = set(spec.get("watched") or ()) | set(spec.get("expected") or ()) if chosen is None else set()
        before = Before(
            shell.user_ns, names, maybe, tree, spec.get("aliased") or (), spec.get("deletes") or ()
        )
        outcome = self._limited(
            lambda: shell.run_source(
                spec["source"], self._interrupt, spec.get("cell_line") or "", spec.get("count")
            )
        )
        end = {**self._ended(outcome), **self._outputs(before, tree, chosen, outcome)}
        return {**end, "file": shell.compile.cell}  # by this name the code of its functions is known

    def _run_call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        function, args, kwargs = (inputs.pop(name) for name in CALL)
        inputs.clear()
        outcome = self._limited(lambda: self._shell.run_call(function, args, kwargs, self._interrupt))
        end = self._ended(outcome)
        if outcome.error is None:
            end["result"] = self._result(outcome.value)
        return end

    def _run_batch(self, folder: Folder, inputs: dict[str, Any]) -> dict[str, Any]:
        there = (self._channel.tell, self._home, folder)
        return Batch(self._spec, self._shell, self._store, self._signer, *there).run(inputs)

    def _run_program(self, folder: Folder) -> dict[str, Any]:
        job = self._spec["id"]
        given = (self._store.read(job) or {}).get("input")
        if self._spec.get("batch"):
            data = self._store.get_blob(given["digest"], given["size"]) if given else b""
            end = self._run_batch(folder, {ITEMS: unpack(data)})
            on_ray.await_workers()
            return {**end, **self._files(folder)}
        home = made(self._home / "program")
        code, result = run_command(self._store, self._signer, job, self._spec["source"], home, given)
        end = {"phase": "failed" if code else "succeeded", "exit_code": code}
        if code:
            end["failure"] = exit_failure(code)
        if result:
            end["result"] = result
        return {**end, **self._files(folder)}

    def _limited(self, run: Callable[[], Outcome]) -> Outcome:
        memory = self._memory()
        if not memory:
            return run()
        limit_memory(memory)
        try:
            return run()
        finally:
            unlimit_memory()

    def _memory(self) -> int:
        """Give the bytes that the cell may use; 0 where Ray or Kubernetes limits it, or nobody."""
        if os.environ.get("RAYOFFLOAD_MEMORY_LIMIT") != "1":
            return 0
        resources = (self._spec.get("options") or {}).get("resources") or {}
        return int(resources.get("memory") or 0)

    # ------------------------------------------------------------------ after

    def _ended(self, outcome: Outcome) -> dict[str, Any]:
        error = outcome.error
        if error is None:
            return {"phase": "succeeded", "exit_code": 0}
        end: dict[str, Any] = {"phase": "failed", "exit_code": 1, "failure": self._failure(error)}
        if self._put_error(error.error):
            end["error_slot"] = "error"
        return end

    def _failure(self, error: CellError) -> dict[str, Any]:
        failure: dict[str, Any] = {"traceback": error.traceback}
        if error.line:
            failure["line"] = error.line
        memory = self._memory()
        if memory and isinstance(error.error, MemoryError):
            return failure | failures.beyond_memory(memory)
        if isinstance(error.error, ModuleNotFoundError) and error.error.name:
            hint = failures.import_hint(error.error.name, self._spec.get("libraries") or {})
            failure |= {"hint": hint} if hint else {}
        return failure | {"ename": error.ename, "evalue": error.evalue}

    def _put_error(self, error: BaseException) -> bool:
        """Store the exception itself, if it can be rebuilt."""
        try:
            frozen = self._freeze({"error": error})
            # A classic: it can be written and not be read, for its constructor wants other arguments.
            thaw(frozen.graph, [b.data for b in frozen.buffers], dict(self._shell.user_ns), ["error"])
            self._keep("error", frozen)
        except Exception:
            return False
        return True

    def _outputs(
        self, before: Before, tree: ast.Module | None, chosen: list[str] | None, outcome: Outcome
    ) -> dict[str, Any]:
        namespace = self._shell.user_ns
        names = before.changed() if chosen is None else [n for n in chosen if n in namespace]
        values = {name: namespace[name] for name in names}
        imports = imports_of(tree, values)
        same = {n: m for n in values if n not in imports and (m := before.same_as(n)) is not None}
        pickled = {name: value for name, value in values.items() if name not in imports and name not in same}
        hidden = {f"{n}{REPLACED}": v for n, v in before.replaced().items()} if chosen is None else {}
        pickled |= hidden
        sent = {v["name"] for v in self._spec.get("inputs") or ()} - set(self._spec.get("after") or {})
        known = {n: v for n, v in before.unchanged().items() if n in sent}
        whole = sent - set(before.in_place(pickled))
        known |= before.parts_of(whole, pickled.values(), self._as_sent(self._spec["id"]))
        frozen = self._freeze(pickled, skip=True, changed=list(pickled), known=known)
        if frozen.values:
            self._keep("outputs", frozen)
        listed = {v["name"]: v for v in frozen.values}
        listed.update({n: _value(n, describe(values[n])) for n in same})
        listed.update({n: _value(n, "module" if not a else f"{m}.{a}") for n, (m, a, *_) in imports.items()})
        listed.update({n: _refused(n, reason) for n, reason in frozen.refused.items()})
        order = [n for n in names if n in listed] if chosen is None else chosen
        end: dict[str, Any] = {
            "outputs": [listed.get(n) or _refused(n, "the cell never bound it") for n in order]
        }
        if in_place := before.in_place(names):
            end["in_place"] = in_place
        if same:
            end["same"] = same
        arrived = {v["name"] for v in frozen.values}
        if replaced := {n.removesuffix(REPLACED): n for n in hidden if n in arrived}:
            end["replaced"] = replaced
        if imports:
            end["imports"] = imports
        if before.deleted():
            end["deleted"] = before.deleted()
        if outcome.error and (bound := [n for n in arrived if values.get(n) is outcome.error.error]):
            end["error_name"] = bound[0]  # it is raised as the very object that the name is bound to
        if outcome.value is not None:
            sent = {v["name"] for v in frozen.values} | set(imports) | set(same)
            bound = [n for n in values if n in sent and values[n] is outcome.value]
            end["result"] = {"name": bound[0]} if bound else self._result(outcome.value)
        return end

    def _result(self, value: Any) -> dict[str, Any]:
        """Store the value of the last expression, or of the call."""
        frozen = self._freeze({"result": value}, skip=True)
        if frozen.refused:
            return {"reason": frozen.refused["result"]}
        self._keep("result", frozen)
        return {"slot": "result", "type": frozen.values[0]["type"], "size": frozen.values[0]["size"]}

    def _keep(self, slot: str, frozen: Frozen) -> None:
        """Store values; small ones are written with the end."""
        sealed = self._store.seal_payload(self._spec["id"], slot, frozen)
        if sealed is None:
            self._store.put_payload(self._spec["id"], slot, frozen)
        else:
            self._sealed[slot] = base64.b64encode(sealed).decode()

    def _freeze(self, values: dict[str, Any], **options: Any) -> Frozen:
        return freeze(values, self._shell.user_ns, self._signer, copy=False, **options)

    def _files(self, folder: Folder) -> dict[str, Any]:
        fetch = (self._spec.get("options") or {}).get("fetch") or ()
        changes = folder.changes(fetch, *limits(os.environ))
        end: dict[str, Any] = {}
        if changes.files:
            end["files"] = changes.files
        if changes.more:
            end["files_more"] = changes.more
        if changes.deleted:
            end["files_deleted"] = changes.deleted
        if changes.travel:
            archive = self._home / "files.zip"
            folder.pack(changes.travel, archive)
            name = self._signer.digest(archive.read_bytes())
            self._store.put_package(name, archive)
            end["files_package"] = name
        return end

    def _log_trouble(self) -> None:
        self._channel.tell("log", {"text": traceback.format_exc()})

    def _flush(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()


def _workspace_of(spec: dict[str, Any]) -> list[Any]:
    """Give what makes a working folder this one."""
    return [spec.get("package") or "", list(spec.get("modules") or ()), list(spec.get("overlays") or ())]


def _imported(module: str, attribute: str | None, submodules: Sequence[str] = ()) -> Any:
    loaded = importlib.import_module(module)
    for name in submodules:
        importlib.import_module(name)
    return getattr(loaded, attribute) if attribute else loaded


def _value(name: str, type: str) -> dict[str, Any]:
    return {"name": name, "type": type}


def _refused(name: str, reason: str) -> dict[str, Any]:
    return {"name": name, "state": "cannot travel", "reason": reason}


def _say_goodbye() -> None:
    """End in order what the cell began: its exit handlers, then Ray's connection."""
    ray = sys.modules.get("ray")
    if ray is not None:
        atexit.unregister(ray.shutdown)  # as an exit handler it sleeps half a second
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    if ray is not None and ray.is_initialized():
        with contextlib.suppress(Exception):
            ray.shutdown()
