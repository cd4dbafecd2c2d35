"""A batch: the runner's side, which hands out items to Ray's workers and keeps account of them."""

from __future__ import annotations

import logging
import os
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from .chunks import ERROR, ITEMS, RESULT, Done, Parcel, dump, load, slot_of
from .codec import freeze
from .describe import describe
from .elsewhere import Harvest
from .failures import worker_died
from .files import Folder, limits
from .ledger import Ledger
from .planner import Planner
from .shell import CellShell
from .signing import Signer
from .store import Store
from .task import run_chunk

__all__ = ["Batch"]

#: How long the loop waits for a task at most before it looks at the rest, seconds.
PAUSE_SECONDS = 0.1
#: Between two looks at how large the cluster is, seconds: it may grow.
LOOK_SECONDS = 2.0
#: How long interrupted items may take to end, seconds; then their workers end with the job.
FAREWELL_SECONDS = 0.8
#: Text of the list of results at most, characters.
LIST_TEXT = 10_000


@dataclass
class _Flight:
    """A task that is under way: the numbers of its items."""

    indices: list[int]


class Batch:
    """Runs the items of one job.

    Parameters
    ----------
    spec : Mapping
        The job's ``JobSpec``.
    shell : CellShell
        The runner's; its namespace has the inputs.
    store : Store
    signer : Signer
    tell : callable
        ``tell(type, content)`` publishes a message.
    home : pathlib.Path
        The runner's folder, with the working folder in it.
    folder : Folder
        That working folder.
    """

    def __init__(
        self,
        spec: Mapping[str, Any],
        shell: CellShell,
        store: Store,
        signer: Signer,
        tell: Callable[[str, dict[str, Any]], None],
        home: Path,
        folder: Folder,
    ) -> None:
        self._spec, self._shell, self._store, self._signer = spec, shell, store, signer
        self._tell, self._home = tell, home
        self._batch: Mapping[str, Any] = spec["batch"]
        self._harvest = Harvest(folder, home, limits(os.environ))
        self._flights: dict[Any, _Flight] = {}
        self._texts: dict[int, str] = {}
        self._values = _Values()
        self._slot = int(self._batch.get("first_slot") or 0)
        self._parallel, self._looked, self._lacking = 0, 0.0, ""

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run all items, and give how the job ended.

        Parameters
        ----------
        inputs : dict
            All inputs, the items among them; it is emptied.
        """
        items = inputs.pop(ITEMS)
        kept = self._kept()
        only = self._batch.get("only")
        indices = list(range(len(items)) if only is None else only)
        self._items = items
        self._ledger = Ledger(len(items), kept, self._name_of, self._tell, self._note)
        self._planner = Planner(indices, int((self._spec.get("options") or {}).get("retries") or 0))
        if indices:
            self._connect(inputs)
            self._free(inputs)
            try:
                self._work()
            except KeyboardInterrupt:
                self._stop()
                raise
        self._ledger.flush()
        return self._ended()

    def _kept(self) -> list[Done]:
        """Give the items that an earlier job has done."""
        if not self._batch.get("kept"):
            return []
        return load(self._store.get_blob(self._batch["kept"], self._batch["kept_size"]))

    def _connect(self, inputs: Mapping[str, Any]) -> None:
        import ray

        ray.init(ignore_reinit_error=True, logging_level=logging.WARNING)
        frozen = freeze(inputs, self._shell.user_ns, self._signer, copy=False)
        shared = {"spec": dict(self._spec), "inputs": Parcel.of(frozen), "home": str(self._home)}
        self._shared = ray.put(shared)
        resources = (self._spec.get("options") or {}).get("resources") or {}
        options: dict[str, Any] = {
            "num_cpus": 1 if resources.get("cpus") is None else resources["cpus"],
            "num_gpus": resources.get("gpus") or 0,
            "resources": dict(resources.get("custom") or {}),
            "max_retries": 0,  # a chunk is taken apart before it is run again
        }
        if resources.get("memory"):
            options["memory"] = resources["memory"]
        self._options = options
        self._task = ray.remote(run_chunk)

    def _free(self, inputs: dict[str, Any]) -> None:
        """Keep of the inputs only what items may be made of; Ray has them all."""
        for name, value in inputs.items():
            if not isinstance(value, (type, types.FunctionType, types.ModuleType)):
                self._shell.user_ns.pop(name, None)
        inputs.clear()

    # ------------------------------------------------------------------ the loop

    def _work(self) -> None:
        import ray

        while self._planner.waiting or self._flights:
            self._submit()
            refs = list(self._flights)
            ready, _ = ray.wait(refs, num_returns=1, timeout=PAUSE_SECONDS)
            if ready:
                ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            for ref in ready:
                self._land(ref, self._flights.pop(ref))
            self._show_running()
            self._ledger.tell()

    def _submit(self) -> None:
        room = self._room()
        limit = self._batch.get("parallel")
        # Beyond its room a task waits in Ray: the next one begins at once, and a cluster grows that can.
        most = limit or 2 * room
        while self._planner.waiting and len(self._flights) < most:
            indices = self._planner.take(limit or room)
            wanted = {ITEMS: [self._items[i] for i in indices]}
            parcel = Parcel.of(freeze(wanted, self._shell.user_ns, self._signer, copy=False))
            order = {"job": self._spec["id"], "indices": indices, "items": parcel}
            order["limits"] = self._harvest.limits
            name = f"item {indices[0]}" if len(indices) == 1 else f"items {indices[0]} to {indices[-1]}"
            ref = self._task.options(**self._options, name=name).remote([self._shared], order)
            self._flights[ref] = _Flight(indices)

    def _room(self) -> int:
        """Give how many tasks the cluster can run at once."""
        import ray

        if self._parallel and time.monotonic() - self._looked < LOOK_SECONDS:
            return self._parallel
        self._looked = time.monotonic()
        there: dict[str, float] = cast("Any", ray).cluster_resources()
        wanted = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"]}
        wanted |= self._options["resources"]
        wanted["memory"] = self._options.get("memory", 0)
        shares = {name: there.get(name, 0.0) / amount for name, amount in wanted.items() if amount}
        fits = int(min(shares.values(), default=there.get("CPU", 1.0)))
        lacking = next((name for name, share in shares.items() if share < 1), "")
        if lacking != self._lacking:
            said = (
                f"The items wait for {_amount(lacking, wanted[lacking])}: no node has it" if lacking else ""
            )
            self._tell("wait", {"reason": said})
        self._lacking, self._parallel = lacking, max(1, fits)
        return self._parallel

    def _show_running(self) -> None:
        """Ray begins tasks in their order: those beyond the room wait."""
        most = self._batch.get("parallel") or self._parallel
        limit = 0 if self._lacking else min(most, self._parallel)
        self._ledger.running = [i for flight in list(self._flights.values())[:limit] for i in flight.indices]

    def _land(self, ref: Any, flight: _Flight) -> None:
        import ray

        try:
            came = ray.get(ref)
        except KeyboardInterrupt:
            raise
        except Exception as error:
            self._lost(flight, error)
            return
        done = [Done(i, ok, seconds, self._slot) for i, ok, seconds in came["done"]]
        parcel: Parcel = came["values"]
        size = sum(v["size"] for v in parcel.values)
        self._planner.learn(len(done), sum(d.seconds for d in done), size)
        self._planner.give_back(came["rest"])
        done = [d for d in done if d.ok or not self._planner.again(d.item)]
        if parcel.values:
            self._store.put_payload(self._spec["id"], slot_of(self._slot), parcel.frozen())
            self._slot += 1
        self._values.add(parcel)
        if came["files"]:
            self._harvest.add(came["files"])
        self._texts.update(came["texts"])
        for one in done:
            self._ledger.add(one, came["failures"].get(one.item))

    def _lost(self, flight: _Flight, error: BaseException) -> None:
        """Deal with a task that never came back: its worker or node died, or could not even begin."""
        failure, retry = worker_died(error)
        lost = self._planner.died(flight.indices) if retry else flight.indices
        for index in lost:
            self._ledger.add(Done(index, False, 0.0, -1), failure)

    def _stop(self) -> None:
        """Interrupt what runs: the items' own ``finally`` blocks shall run."""
        import ray

        for ref in self._flights:
            ray.cancel(ref, force=False)
        if self._flights:
            ray.wait(list(self._flights), num_returns=len(self._flights), timeout=FAREWELL_SECONDS)
        self._ledger.running = []
        self._ledger.flush()

    # ------------------------------------------------------------------ the end

    def _name_of(self, index: int) -> str:
        """Say what an item is: a number or a text itself, of others what they are."""
        item, name = self._items[index], self._batch.get("name")
        if self._spec.get("kind") == "program":
            text = item[1].decode() if item[0] == "json" else describe(item[1])
        else:
            plain = isinstance(item, (int, float, str, bool, type(None)))
            text = repr(item) if plain else describe(item)
        text = text if len(text) <= 60 else f"{text[:59]}…"
        return f"{name}={text}" if name else text

    def _note(self, counts: Mapping[str, Any]) -> None:
        """Write the counts into the record, for those who list jobs: a follower may have died."""
        record = self._store.read(self._spec["id"]) or {}
        state = record.get("state") or {}
        if state.get("phase") == "running":
            self._store.write_state(self._spec["id"], {**state, "items": dict(counts)})

    def _ended(self) -> dict[str, Any]:
        ledger = self._ledger
        done = sorted(ledger.done.values())
        data = dump(done)
        digest = self._signer.digest(data)
        self._store.put_blob(digest, memoryview(data))
        end: dict[str, Any] = {
            "phase": "failed" if ledger.failed else "succeeded",
            "exit_code": 1 if ledger.failed else 0,
            "items": {**ledger.counts(), "first": ledger.first()},
            "manifest": {"digest": digest, "size": len(data), "total": ledger.total, "slots": self._slot},
            "outputs": self._outputs(),
        }
        if ledger.failed:
            end["failure"] = ledger.failure()
        refused = self._values.refused.get(RESULT)
        end["result"] = {"reason": refused} if refused else {"items": True}
        if self._texts and not ledger.failed:
            self._show_list()
        return end

    def _outputs(self) -> list[dict[str, Any]]:
        names = dict.fromkeys([*(self._spec.get("expected") or ()), *self._values.sizes])
        chosen = (self._spec.get("options") or {}).get("outputs")
        kind, listed = f"list of {self._ledger.total:,}", []
        for name in names if chosen is None else chosen:
            if name in self._values.refused:
                reason = self._values.refused[name]
                listed.append({"name": name, "state": "cannot travel", "reason": reason})
            elif name in self._values.sizes or self._empty(name):
                listed.append({"name": name, "type": kind, "size": self._values.sizes.get(name, 0)})
            elif chosen is not None:
                reason = "no item ever bound it"
                listed.append({"name": name, "state": "cannot travel", "reason": reason})
        return listed

    def _empty(self, name: str) -> bool:
        """Whether a list comes back for a name that no item of this job bound: there was nothing to run."""
        return not self._ledger.total or bool(self._ledger.kept)

    def _show_list(self) -> None:
        """Show the list of the results, as the value of a cell: each item as IPython has written it there."""
        shown = [self._texts.get(i, "None") for i in range(min(self._ledger.total, max(self._texts) + 1))]
        text, size = list[str](), 0
        for one in shown:
            size += len(one) + 2
            if size > LIST_TEXT:
                break
            text.append(one)
        if len(text) < self._ledger.total:
            text.append("...")
        content = {"data": {"text/plain": f"[{', '.join(text)}]"}, "metadata": {}}
        self._tell("execute_result", {**content, "execution_count": self._spec.get("count") or 1})


@dataclass
class _Values:
    """What the items have brought, by the names of their outputs."""

    sizes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def add(self, parcel: Parcel) -> None:
        for value in parcel.values:
            index, mark, name = _parts(value["name"])
            if mark == ".":
                self.sizes[name] = self.sizes.get(name, 0) + value["size"]
        for key, reason in parcel.refused.items():
            index, mark, name = _parts(key)
            if mark != ERROR:
                self.refused.setdefault(name or RESULT, f"item {index}: {reason}")


def _amount(name: str, amount: float) -> str:
    return f"{amount / 2**30:.3g} GiB of memory" if name == "memory" else f"{amount:g} {name}"


def _parts(key: str) -> tuple[int, str, str]:
    """Take a key of a payload apart: number, mark, name."""
    digits = len(key) - len(key.lstrip("0123456789"))
    return int(key[:digits]), key[digits], key[digits + 1 :]
