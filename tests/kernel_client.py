"""Run cells in a real kernel, as a notebook front end does, and collect what it publishes.

>>> with Kernel(folder) as kernel:
...     run = kernel.run("print('a'); 1 + 1")
>>> run.stdout, run.value
('a\\n', '2')
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.manager import KernelManager
from nbformat.v4 import output_from_msg

__all__ = ["Kernel", "KernelDied", "Run", "fold"]

Message = dict[str, Any]
#: Message types that become outputs of a cell, or change those that are there.
OUTPUT_TYPES = frozenset(
    {"stream", "display_data", "update_display_data", "execute_result", "clear_output", "error"}
)


class KernelDied(AssertionError):
    """The kernel's process ended while a cell was running."""


@dataclass
class Run:
    """One cell that was run, and every message that the kernel published for it.

    Parameters
    ----------
    source : str
    id : str
        Message id of the execute request: the parent of what was published.
    messages : list of dict
        iopub messages in order; those that arrive after the cell has ended are added too.
    reply : dict
        Content of the execute reply.
    began, ended : float
        When the request was sent and when the kernel was idle again (``time.monotonic``).
    """

    source: str
    id: str
    messages: list[Message] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the cell held the kernel."""
        return self.ended - self.began

    @property
    def ok(self) -> bool:
        """Whether the cell ended without an error."""
        return bool(self.reply.get("status") == "ok")

    @property
    def count(self) -> int:
        """Execution count of the cell."""
        return int(self.reply["execution_count"])

    @property
    def outputs(self) -> list[Any]:
        """The cell's outputs as a saved notebook holds them."""
        return fold([self])[0]

    @property
    def stdout(self) -> str:
        """All that was printed."""
        return self._stream("stdout")

    @property
    def stderr(self) -> str:
        """All that was printed to the error stream."""
        return self._stream("stderr")

    @property
    def value(self) -> str | None:
        """Text of the value that the cell displayed as its result."""
        texts = [o.data.get("text/plain", "") for o in self.outputs if o.output_type == "execute_result"]
        return texts[-1] if texts else None

    def contents(self, kind: str) -> list[dict[str, Any]]:
        """Contents of the messages of type `kind`."""
        return [m["content"] for m in self.messages if m["msg_type"] == kind]

    def check(self) -> Run:
        """Give this run, or fail with the cell's traceback."""
        assert self.ok, "\n".join([self.source, *self.reply.get("traceback", [str(self.reply)])])
        return self

    def _stream(self, name: str) -> str:
        return "".join(c["text"] for c in self.contents("stream") if c["name"] == name)


class Kernel:
    """A kernel in a process of its own.

    Parameters
    ----------
    cwd : path
        The notebook's folder.
    env : Mapping of str to str, optional
        Further environment variables.
    """

    def __init__(self, cwd: os.PathLike[str] | str, env: Mapping[str, str] | None = None) -> None:
        self.cwd = Path(cwd)
        self._env = {**os.environ, **(env or {})}
        # ipykernel captures file descriptors 1 and 2 (prints of C code) unless it finds itself in a test run.
        self._env.pop("PYTEST_CURRENT_TEST", None)
        self._manager = KernelManager(kernel_name="python3")
        self._runs: dict[str, Run] = {}
        self._start()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    @property
    def pid(self) -> int:
        """Process id of the kernel."""
        return int(self._manager.provisioner.pid)  # type: ignore[union-attr]

    def start(self, source: str, *, headless: bool = True, history: bool = True) -> Run:
        """Send a cell and return at once; :meth:`finish` waits for it."""
        message = self._client.execute(source, allow_stdin=not headless, store_history=history)
        self._runs[message] = run = Run(source, message, began=time.monotonic())
        return run

    def run(self, source: str, *, timeout: float = 60, headless: bool = True, history: bool = True) -> Run:
        """Run a cell to its end.

        Parameters
        ----------
        source : str
        timeout : float
            Seconds; the kernel is interrupted, and the test fails, when they are over.
        headless : bool
            Whether the request says that nobody can answer ``input()``, as nbclient's do.
        history : bool
            Whether the cell counts, and its value is kept in ``_``.
        """
        return self.finish(self.start(source, headless=headless, history=history), timeout=timeout)

    def finish(self, run: Run, timeout: float = 60) -> Run:
        """Wait until the kernel has ended `run`."""
        deadline = time.monotonic() + timeout
        while not run.ended:
            self._receive(deadline, run)
        reply = self._client.get_shell_msg(timeout=10)
        while reply["parent_header"].get("msg_id") != run.id:
            reply = self._client.get_shell_msg(timeout=10)
        run.reply = reply["content"]
        return run

    def drain(self, seconds: float = 0.5) -> None:
        """Take in what the kernel publishes outside of cells for `seconds`; it is added to its own run."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._enter(self._client.get_iopub_msg(timeout=left))
            except queue.Empty:
                return

    def interrupt(self) -> None:
        """Interrupt the running cell, as the stop button does."""
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """Kill the kernel and start a new one in the same folder."""
        self.shutdown()
        self._manager = KernelManager(kernel_name="python3")
        self._start()

    def kill(self) -> None:
        """Kill the kernel without a chance to say goodbye."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def shutdown(self) -> None:
        """End the kernel."""
        self._client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel()
        self._manager.context.destroy(linger=0)

    def _start(self) -> None:
        self._manager.start_kernel(cwd=str(self.cwd), env=self._env)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def _receive(self, deadline: float, run: Run) -> None:
        # One second at a time, so that a dead kernel is noticed and does not cost the whole time-out.
        try:
            return self._enter(self._client.get_iopub_msg(timeout=1))
        except queue.Empty:
            pass
        if not self._manager.is_alive():
            raise KernelDied(f"the kernel died in:\n{run.source}\nafter {run.outputs}")
        if time.monotonic() > deadline:
            self.interrupt()
            raise TimeoutError(f"the cell did not end in time:\n{run.source}\nafter {run.outputs}")

    def _enter(self, message: Message) -> None:
        run = self._runs.get(message["parent_header"].get("msg_id", ""))
        if run is None:
            return
        run.messages.append(message)
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            run.ended = run.ended or time.monotonic()


def fold(runs: Iterable[Run]) -> list[list[Any]]:
    """Give the outputs of each run as a notebook would hold them after all of them.

    Display ids reach across cells, ``clear_output`` and pieces of one stream are applied.
    """
    cells: list[list[Any]] = []
    shown: dict[str, list[Any]] = {}
    for run in runs:
        cells.append(_fold_one(run.messages, shown))
    return cells


def _fold_one(messages: Sequence[Message], shown: dict[str, list[Any]]) -> list[Any]:
    outputs: list[Any] = []
    clear_next = False
    for message in messages:
        kind, content = message["msg_type"], message["content"]
        if kind not in OUTPUT_TYPES:
            continue
        display_id = content.get("transient", {}).get("display_id")
        if kind == "update_display_data":
            for output in shown.get(display_id, ()):
                output.update(data=content["data"], metadata=content["metadata"])
            continue
        if kind == "clear_output" and content["wait"]:
            clear_next = True
            continue
        if kind == "clear_output" or clear_next:
            outputs.clear()
            clear_next = False
        if kind == "clear_output":
            continue
        if kind == "stream" and outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
            continue
        outputs.append(output_from_msg(message))  # type: ignore[no-untyped-call]
        if display_id is not None:
            shown.setdefault(display_id, []).append(outputs[-1])
    return outputs
