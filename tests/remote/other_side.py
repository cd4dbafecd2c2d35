"""A notebook here and a runner there: a real process that has a copy of ``remote`` under another name."""

from __future__ import annotations

import itertools
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from jupyter_rayoffload.remote import codec
from jupyter_rayoffload.remote.signing import Signer

PACKAGE = "remote_xyz"
SIGNER = Signer(bytes(range(32)))

_PROGRAM = """
import builtins, pickle, sys
from remote_xyz import codec
from remote_xyz.signing import Signer
assert not any(name.startswith("jupyter_rayoffload") for name in sys.modules)
signer = Signer(bytes(range(32)))
channel_in, channel_out = sys.stdin.buffer, sys.stdout.buffer
namespaces = {}
while True:
    try:
        number, graph, buffers, cell, outputs, changed = pickle.load(channel_in)
    except EOFError:
        break
    namespace = namespaces.setdefault(number, {"__name__": "__main__", "__builtins__": builtins})
    try:
        namespace.update(codec.thaw(graph, buffers, namespace))
        exec(compile(cell, "<cell>", "exec", dont_inherit=True), namespace)
        values = {n: namespace[n] for n in outputs}
        frozen = codec.freeze(values, namespace, signer, copy=False, changed=changed)
        answer = frozen.graph, [bytearray(b.data) for b in frozen.buffers]
    except BaseException as error:
        import traceback
        answer = traceback.format_exc()
    pickle.dump(answer, channel_out)
    channel_out.flush()
"""


class OtherSide:
    """The runner's process."""

    def __init__(self, folder: Path) -> None:
        source = Path(codec.__file__).parent
        shutil.copytree(
            source, folder / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{_PROGRAM}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        pickle.dump(request, self.process.stdin)
        self.process.stdin.flush()
        answer = pickle.load(self.process.stdout)
        assert not isinstance(answer, str), answer
        return answer

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(20) == 0
        self.process.stdout.close()


class Notebook:
    """A namespace whose cells may run there, in a namespace of its own."""

    _numbers = itertools.count()

    def __init__(self, there: OtherSide) -> None:
        self.there = there
        self.number = next(self._numbers)
        self.names: dict[str, Any] = {"__name__": "__main__"}

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def run(self, cell: str) -> None:
        exec(compile(cell, "<notebook>", "exec", dont_inherit=True), self.names)

    def eval(self, expression: str) -> Any:
        return eval(expression, self.names)

    def offload(self, cell: str, inputs: str = "", outputs: str = "", changed: str = "") -> dict[str, Any]:
        """Run a cell there; give its outputs without binding them here."""
        values = {name: self.names[name] for name in inputs.split()}
        frozen = codec.freeze(values, self.names, SIGNER, copy=True)
        buffers = [bytearray(b.data) for b in frozen.buffers]
        graph, back = self.there.ask(
            self.number, frozen.graph, buffers, cell, outputs.split(), changed.split()
        )
        return codec.thaw(graph, back, self.names)

    def land(self, cell: str, inputs: str = "", outputs: str = "", changed: str = "") -> None:
        """Run a cell there, and bind its outputs here."""
        self.names.update(self.offload(cell, inputs, outputs, changed))


def round_trip(
    values: dict[str, Any], namespace: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Freeze and thaw in this process."""
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    frozen = codec.freeze(values, namespace, SIGNER, copy=True, **options)
    return codec.thaw(frozen.graph, [bytearray(b.data) for b in frozen.buffers], namespace)
