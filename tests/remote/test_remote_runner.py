"""The runner as a process: output, stopping, crashes, the store going away. No Ray: that only starts it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from tests.remote.runner import KEY, SIGNER, Driver, driving
from tests.servers import start_redis

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    server = start_redis(folder / "redis")
    with driving(server, folder / "driver") as made:
        yield made
    server.stop()


@pytest.fixture
def lonely(own_redis, tmp_path):
    """A driver on a Redis of its own, to be restarted."""
    with driving(own_redis, tmp_path / "driver") as made:
        yield made


# ---------------------------------------------------------------------- output


def test_prints_of_every_sort_in_order(driver: Driver):
    run = driver.run(
        "import ctypes, os, subprocess, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "print('python')\n"
        "libc.puts(b'c code'); libc.fflush(None)\n"
        "print('again')\n"
        "os.write(1, b'descriptor\\n')\n"
        "subprocess.run(['echo', 'child'])\n"
        "display('shown')\n"
        "os.system('echo shell')\n"
        "print('error', file=sys.stderr)\n"
        "print('out')\n"
        "os.write(2, b'raw error\\n')\n"
        "display('end')\n"
    )
    assert run.code == 0, run.log
    assert run.story() == [
        ("stdout", "python\nc code\nagain\ndescriptor\nchild\n"),
        ("display_data", "'shown'"),
        ("stdout", "shell\n"),
        ("stderr", "error\n"),
        ("stdout", "out\n"),
        ("stderr", "raw error\n"),
        ("display_data", "'end'"),
    ]
    # Ray's own log has all of it, in the same order.
    assert run.log == (
        "python\nc code\nagain\ndescriptor\nchild\n'shown'\nshell\nerror\nout\nraw error\n'end'\n"
    )


def test_streams_that_take_turns_keep_their_order(driver: Driver):
    run = driver.run(
        "import random, sys\n"
        "chance = random.Random(1)\n"
        "for i in range(300):\n"
        "    print('n', i, file=chance.choice([sys.stdout, sys.stderr]))\n"
    )
    assert run.log == "".join(f"n {i}\n" for i in range(300))
    assert run.text("stdout", "stderr") == run.log


def test_a_cell_may_put_a_write_of_its_own_into_a_stream(driver: Driver):
    run = driver.run(
        "import sys\n"
        "heard, real = [], sys.stdout.write\n"
        "sys.stdout.write = lambda text: heard.append(text) or real(text)\n"
        "for i in range(3):\n"
        "    print('out', i)\n"
        "    print('error', i, file=sys.stderr)\n"
        "del sys.stdout.write\n"
        "print('after', ''.join(heard).count('out'))\n"
    )
    assert run.text().startswith("out 0\n")
    assert run.text().endswith("after 3\n")
    assert run.text("stderr") == "error 0\nerror 1\nerror 2\n"


def test_two_hundred_thousand_lines_are_complete_and_in_order(driver: Driver):
    began = time.monotonic()
    run = driver.run("for i in range(200_000): print(f'line {i:6} ' + 'x' * 80)", timeout=120)
    took = time.monotonic() - began
    assert run.code == 0
    lines = run.text().splitlines()
    assert len(lines) == 200_000
    assert all(line.startswith(f"line {i:6} ") and len(line) == 92 for i, line in enumerate(lines))
    assert run.end["lines"] == 200_000
    assert len(run.driver.store.read_events(run.id)) < 2000
    assert took < 30


def test_prints_of_threads_and_pieces_of_characters(driver: Driver):
    run = driver.run(
        "import os, threading, time\n"
        "def say(n):\n    for i in range(200): print(f'{n}:{i}\\n', end='')\n"
        "ts = [threading.Thread(target=say, args=(n,)) for n in range(4)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]\n"
        "for b in 'é→😀'.encode():\n    os.write(1, bytes([b])); time.sleep(0.02)\n"
        "os.write(1, b'\\xff')\n"
    )
    lines, last = run.text("stdout").rsplit("\n", 1)
    for n in range(4):
        assert [x for x in lines.splitlines() if x.startswith(f"{n}:")] == [f"{n}:{i}" for i in range(200)]
    assert last == "é→😀\ufffd"


def test_a_line_is_seen_soon(driver: Driver):
    run = driver.start(driver.submit("import time\nprint('sent', time.time(), flush=True)\ntime.sleep(1)"))
    run.wait()
    (message,) = [m for m in run.messages if m["type"] == "stream"]
    entry = next(e for e in driver.store.read_events(run.id) if message in e.messages)
    printed = float(message["content"]["text"].split()[1])
    assert int(entry.id.split("-")[0]) / 1000 - printed < 0.2  # 50 ms on a machine that does nothing else


def test_output_beyond_the_limit_is_cut_and_says_so(driver: Driver):
    run = driver.run(
        "for i in range(5000): print('y' * 99)\ndisplay('late')\nprint('end')",
        env={"RAYOFFLOAD_OUTPUT_LIMIT": "100000"},
    )
    text = run.text()
    assert text.startswith("y" * 99 + "\n")
    assert text.endswith("all that is printed.\n") and "output is cut here: 0.1 MB reached" in text
    assert len(text) < 100_500
    assert run.contents("display_data") == []
    assert run.log.count("y" * 99) == 5000 and run.log.endswith("end\n")
    assert run.code == 0


# ---------------------------------------------------------------------- begin and end


def test_record_state_and_events_agree(driver: Driver):
    run = driver.run("x = 1", job_id="agreed")
    first, last = run.contents("phase")
    assert first["phase"] == "running" and first["submission"] == "agreed-1"
    assert {"pid", "host", "python", "session"} <= set(first)
    assert last["phase"] == "succeeded"
    assert run.end == last and last["attempt"] == 1
    state = run.record["state"]
    assert (state["phase"], state["exit_code"], state["attempt"]) == ("succeeded", 0, 1)
    assert state["steps"]["running"]["end"] >= state["steps"]["running"]["begin"]
    assert [v["name"] for v in state["outputs"]] == ["x"]


def test_one_of_many_runners_executes_an_attempt(driver: Driver):
    job = driver.submit("print('once')")
    runs = [driver.start(job) for _ in range(3)]
    for run in runs:
        run.wait()
    assert [run.code for run in runs] == [0, 0, 0]
    assert runs[0].text() == "once\n"
    assert sum("is not run here" in run.log for run in runs) == 2


def test_what_is_not_to_be_run_is_not(driver: Driver):
    assert "no such job" in driver.start("nowhere").wait().log
    job = driver.submit("print('never')")
    driver.store.void(job, 1)
    run = driver.start(job).wait()
    assert run.code == 0 and run.messages == [] and "taken back" in run.log
    job = driver.submit("print('never')")
    driver.store.write_state(job, {"phase": "cancelled", "attempt": 0})
    run = driver.start(job).wait()
    assert run.code == 0 and run.messages == [] and "cancelled" in run.log


def test_results_of_earlier_cells_are_there(driver: Driver):
    run = driver.run("total = Out[3] + _3 + _", {"_": 1, "_3": 20})
    assert run.code == 0, run.log
    assert run.values() == {"total": 41}


def test_a_retry_runs_after_a_failure(driver: Driver):
    run = driver.run("raise SystemError('first')")
    assert run.code == 1
    again = driver.start(run.id, attempt=2).wait()
    assert again.code == 1
    assert again.end["attempt"] == 2
    assert driver.start(run.id, attempt=1).wait().code == 0


def test_another_python_is_refused_with_the_reason(driver: Driver):
    run = driver.run("x = 1", versions={"python": "3.7.9"})
    assert run.code == 3
    assert run.end["failure"]["reason"] == "ClusterMismatch"
    assert "Python 3.7" in run.end["failure"]["message"]


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        ("{}", 0o600, "is not a connection file"),
        (None, 0o644, "open to every user"),
        ("x", 0o600, "not a connection"),
    ],
)
def test_a_bad_connection_file_is_refused(driver: Driver, tmp_path, content, mode, word):
    path = tmp_path / "connection.json"
    path.write_text(driver.connection.read_text() if content is None else content)
    path.chmod(mode)
    run = driver.start("any", env={"RAYOFFLOAD_CONNECTION_FILE": str(path)}).wait()
    assert run.code == 3 and word in run.log
    assert KEY.hex() not in run.log and driver.server.password not in run.log


def test_a_wrong_password_is_told(driver: Driver, tmp_path):
    data = json.loads(driver.connection.read_text())
    data["store"]["password"] = "wrong-secret"
    path = tmp_path / "connection.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(data))
    run = driver.start("any", env={"RAYOFFLOAD_CONNECTION_FILE": str(path)}).wait()
    assert run.code == 3 and "refuses our user or password" in run.log and "wrong-secret" not in run.log


def test_usage(driver: Driver):
    done = subprocess.run([sys.executable, "-m", "jupyter_rayoffload.remote"], capture_output=True, text=True)
    assert done.returncode == 2 and "JOB_ID ATTEMPT" in done.stderr


# ---------------------------------------------------------------------- inputs and outputs


def test_inputs_and_outputs(driver: Driver):
    np = pytest.importorskip("numpy")
    inputs = {"xs": [1], "a": np.arange(100_000), "n": 5, "d": {"k": 1}, "gone": 0}
    run = driver.run(
        "xs.append(2)\na[0] = -1\nm = n\nn = n\nd['k']\ndel gone\nimport os.path as p\n"
        "from json import dumps as dd\n"
        "import threading\nlock = threading.Lock()\nxs",
        inputs,
        expected=["a", "m", "n"],
        watched=["xs", "d"],
    )
    assert run.code == 0, run.log
    listed = {v["name"]: v for v in run.end["outputs"]}
    assert set(listed) == {"xs", "a", "m", "n", "p", "dd", "threading", "lock"}
    assert listed["lock"]["state"] == "cannot travel" and listed["lock"]["reason"]
    assert run.end["imports"] == {
        "p": ["posixpath", None],
        "dd": ["json", "dumps"],
        "threading": ["threading", None],
    }
    assert run.end["deleted"] == ["gone"]
    values = run.values()
    assert values["xs"] == [1, 2] and values["a"][0] == -1
    assert run.end["same"] == {"m": "n", "n": "n"}  # the very object that was sent: it does not travel back
    assert set(run.end["in_place"]) == {"xs", "a", "n"}
    assert run.end["result"] == {"name": "xs"}


def test_chosen_outputs_alone_come_back(driver: Driver):
    run = driver.run("a = 1\nb = 2", options={"outputs": ["b", "c"]})
    assert [v["name"] for v in run.end["outputs"]] == ["b", "c"]
    assert run.end["outputs"][1]["reason"] == "the cell never bound it"
    assert run.values() == {"b": 2}


def test_a_result_that_cannot_travel_says_why(driver: Driver):
    run = driver.run("(i for i in range(3))")
    assert run.code == 0
    assert "generator" in run.end["result"]["reason"]


def test_functions_live_in_the_runners_namespace(driver: Driver):
    namespace: dict = {"w": 2}
    exec("def area(h):\n    return w * h", namespace)
    run = driver.run("w = 10\narea(3)", {"area": namespace["area"], "w": 2}, namespace=namespace)
    assert run.result == 30


def test_chained_inputs_go_from_store_to_runner(driver: Driver):
    first = driver.run("x = 41\nimport json", {"same": [7]}, watched=["same"])
    second = driver.run("(x + 1, same, json.dumps(1), y)", after={
        "x": first.id, "same": first.id, "json": first.id, "y": f"{first.id}#x"
    })  # fmt: skip
    assert second.code == 0, second.log
    assert second.result == (42, [7], "1", 41)
    third = driver.run("x", after={"x": second.id})
    assert third.result == 41


def test_a_chain_to_what_is_gone_says_so(driver: Driver):
    run = driver.run("x", after={"x": "never-was"})
    assert run.code == 3
    assert run.end["failure"]["reason"] == "Expired" and "never-was" in run.end["failure"]["message"]


def test_a_chain_to_what_cannot_travel_says_why(driver: Driver):
    first = driver.run("x = (i for i in range(3))")
    run = driver.run("x", after={"x": first.id})
    assert run.code == 3 and "generator" in run.end["failure"]["message"]


def test_a_missing_library_is_named(driver: Driver, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    run = driver.run("x = thing", {"thing": only_here.Thing()})
    assert run.code == 3
    failure = run.end["failure"]
    assert failure["reason"] == "MissingLibrary" and "only_here" in failure["message"]
    assert "--pip only_here" in failure["hint"]


@pytest.fixture
def fruit(driver: Driver, tmp_path, monkeypatch):
    """A library that has version 2.0 here, and on the cluster what a test puts there."""
    library(tmp_path, "2.0", "class Thing: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import fruit

    yield fruit
    sys.modules.pop("fruit", None)


def library(folder: Path, version: str, source: str) -> dict[str, str]:
    """Install the module `fruit` of the distribution `fruit-salad`, and give the environment that has it."""
    (folder / "fruit").mkdir(parents=True)
    (folder / "fruit/__init__.py").write_text(source)
    info = folder / f"fruit_salad-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fruit-salad\nVersion: {version}\n")
    package = Path(__file__).parents[2]
    return {"PYTHONPATH": f"{package}{os.pathsep}{folder}"}


NEEDED = {"fruit": "fruit-salad==2.0"}


def test_the_runner_says_which_of_the_libraries_are_there(driver: Driver, fruit, tmp_path):
    env = library(tmp_path / "there", "1.0", "class Thing: pass\n")
    needed = {**NEEDED, "absent": "absent==1"}
    run = driver.run("import fruit; t", {"t": fruit.Thing()}, libraries=needed, env=env)
    assert run.code == 0, run.log
    assert run.contents("libraries") == [{"libraries": {"fruit": "1.0", "absent": ""}}]
    assert not driver.run("1").contents("libraries")  # nothing was asked


def test_inputs_of_a_missing_library_say_which_version_is_here(driver: Driver, fruit):
    run = driver.run("x = t", {"t": fruit.Thing()}, libraries=NEEDED)
    assert run.code == 3 and run.end["failure"]["reason"] == "MissingLibrary"
    assert run.end["failure"]["hint"].startswith(
        "The notebook has fruit-salad 2.0. Add it with --pip fruit-salad==2.0"
    )
    assert run.contents("libraries") == [{"libraries": {"fruit": ""}}]


def test_inputs_that_another_version_cannot_read_say_both(driver: Driver, fruit, tmp_path):
    env = library(tmp_path / "there", "1.0", "")  # no Thing there
    run = driver.run("x = t", {"t": fruit.Thing()}, libraries=NEEDED, env=env)
    failure = run.end["failure"]
    assert run.code == 3 and failure["reason"] == "EnvironmentFailed" and "Thing" in failure["message"]
    assert "fruit-salad 1.0 where the notebook has 2.0" in failure["hint"]
    assert "--pip fruit-salad==2.0" in failure["hint"]


def test_a_part_that_another_version_lacks_is_no_missing_library(driver: Driver, fruit, tmp_path):
    env = library(tmp_path / "there", "1.0", "")
    run = driver.run("import fruit.salad", libraries=NEEDED, env=env)
    failure = run.end["failure"]
    assert failure["ename"] == "ModuleNotFoundError" and "has 2.0" in failure["hint"]


def test_an_import_in_the_cell_that_fails_says_how_to_get_it(driver: Driver):
    run = driver.run("import absent.part", libraries={"absent": "absent==1.2+local"})
    failure = run.end["failure"]
    assert failure["ename"] == "ModuleNotFoundError" and run.code == 1
    assert "The notebook has absent 1.2+local. Add it with --pip absent==1.2," in failure["hint"]
    assert "hint" not in driver.run("import absent").end["failure"]
    assert "hint" not in driver.run("1 / 0", libraries={"absent": "absent"}).end["failure"]


def test_tampered_inputs_are_not_read(driver: Driver):
    job = driver.submit("print('never')", {"x": 1})
    with driver.server.client() as client:
        key = f"rayoffload:{{{driver.owner}}}:job:{job}:inputs"
        raw = client.get(key)
        client.set(key, raw[:-1] + bytes([raw[-1] ^ 1]))
    run = driver.start(job).wait()
    assert run.code == 3 and run.end["failure"]["reason"] == "Forged" and run.text() == ""


def test_a_call(driver: Driver):
    namespace: dict = {}
    exec(
        "import asyncio\n"
        "def add(a, b=0):\n    print('adding')\n    return a + b\n"
        "async def later(a):\n    await asyncio.sleep(0.01)\n    return a\n"
        "def bad():\n    raise ValueError('no')\n",
        namespace,
    )

    def call(name, *args, **kwargs):
        inputs = {"function": namespace[name], "args": args, "kwargs": kwargs}
        if name == "later":
            inputs["asyncio"] = namespace["asyncio"]
        return driver.run(f"{name}(…)", inputs, namespace=namespace, kind="callable")

    run = call("add", 1, b=2)
    assert (run.code, run.result, run.text()) == (0, 3, "adding\n")
    assert run.contents("execute_result") == []
    assert call("later", 5).result == 5
    run = call("bad")
    assert run.code == 1 and run.end["failure"]["ename"] == "ValueError"
    assert "jupyter_rayoffload" not in "".join(run.end["failure"]["traceback"])
    assert isinstance(run.values("error")["error"], ValueError)


# ---------------------------------------------------------------------- the environment


def test_the_cell_has_a_folder_of_its_own(driver: Driver):
    (driver.shared / "from_ray.py").write_text("")
    run = driver.run(
        "import os, sys, subprocess\n"
        "print(os.getcwd()); print(sys.path[0]); print(os.listdir())\n"
        "open('left.txt', 'w').write('x')\n"
        "code = 'import sys; print(sys.path)'\n"
        "print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)\n"
    )
    cwd, first, files, path, *_ = run.text().splitlines()
    assert cwd == first != str(driver.shared)
    assert files == "[]"
    assert cwd in path and str(driver.shared) not in path
    assert not Path(cwd).exists()
    assert [p.name for p in driver.shared.iterdir()] == ["from_ray.py"]
    assert run.end["files"][0]["path"] == "left.txt"


def put_package(driver: Driver, folder: Path, name: str, files: dict[str, str]) -> str:
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    driver.store.put_package(name, path)
    return name


def test_what_earlier_jobs_made_lies_over_the_workspace(driver: Driver, tmp_path):
    put = functools.partial(put_package, driver, tmp_path)
    run = driver.run(
        "import pathlib\n"
        "pathlib.Path('mine.txt').write_text('mine')\n"
        "[pathlib.Path(name).read_text() for name in ('a.txt', 'out/b.txt', 'c.txt')]",
        package=put("workspace", {"a.txt": "old", "c.txt": "as it was"}),
        overlays=[put("first", {"a.txt": "first", "out/b.txt": "first"}), put("second", {"a.txt": "second"})],
    )
    assert run.result == ["second", "first", "as it was"], run.log
    assert [f["path"] for f in run.end["files"]] == ["mine.txt"], "what others made is not this job's work"


def test_the_workspace_its_modules_and_its_files(driver: Driver, tmp_path):
    put = functools.partial(put_package, driver, tmp_path)
    package = put("workspace", {"helper.py": "value = 1", "data/in.csv": "1,2", "old.txt": "old"})
    module = put("elsewhere", {"lib/__init__.py": "other = 2"})
    run = driver.run(
        "import helper, lib, pathlib\n"
        "text = pathlib.Path('data/in.csv').read_text()\n"
        "pathlib.Path('data/out.csv').write_text(text * 2)\n"
        "pathlib.Path('old.txt').unlink()\n"
        "pathlib.Path('model.bin').write_bytes(bytes(3000))\n"
        "pathlib.Path('huge.bin').write_bytes(bytes(3000))\n"
        "(helper.value, lib.other)",
        package=package,
        modules=[module],
        options={"fetch": ["model.*"]},
        env={"RAYOFFLOAD_FETCH_BELOW": "1000"},
    )
    assert run.result == (1, 2), run.log
    assert run.end["imports"]["helper"] == ["helper", None]
    states = {f["path"]: f["state"] for f in run.end["files"]}
    assert states == {"data/out.csv": "fetched", "huge.bin": "there", "model.bin": "fetched"}
    assert run.end["files_deleted"] == ["old.txt"]
    driver.store.get_package(run.end["files_package"], tmp_path / "back.zip")
    with zipfile.ZipFile(tmp_path / "back.zip") as archive:
        assert archive.read("data/out.csv") == b"1,21,2"
        assert sorted(archive.namelist()) == ["data/out.csv", "model.bin"]


def test_a_package_that_is_gone_or_bad_is_told(driver: Driver, tmp_path):
    run = driver.run("x = 1", package="0" * 64)
    assert run.code == 3 and run.end["failure"]["reason"] == "Expired"
    (tmp_path / "bad.zip").write_bytes(b"nonsense")
    driver.store.put_package("bad", tmp_path / "bad.zip")
    run = driver.run("x = 1", package="bad")
    assert run.code == 3 and run.end["failure"]["reason"] == "WorkspaceError"


def test_an_interrupt_does_not_tear_a_message(driver: Driver):
    run = driver.start(
        driver.submit("print('begun')\nwhile True: display({'text/plain': 'x' * 3_000_000}, raw=True)")
    ).until("begun")
    time.sleep(0.3)
    run.stop_as_ray()
    run.wait(20)
    assert run.code == 143 and run.end["phase"] == "cancelled"


def test_ray_is_not_imported_for_nothing(driver: Driver):
    assert driver.run("import sys\nprint('ray' in sys.modules)").text() == "False\n"


def test_exit_handlers_run_after_the_end(driver: Driver):
    run = driver.run(
        f"import atexit, pathlib\nhandled = pathlib.Path('{driver.folder}/handled')\n"
        "atexit.register(lambda: handled.write_text('yes'))"
    )
    assert run.code == 0 and Path(driver.folder / "handled").read_text() == "yes"


def test_memory_limit_is_a_memory_error(driver: Driver):
    run = driver.run(
        "small = bytearray(10 << 20)\n"
        "try:\n    big = bytearray(400 << 20)\nexcept MemoryError:\n    print('caught')\n"
        "big = bytearray(400 << 20)",
        options={"resources": {"memory": 200 << 20}},
        env={"RAYOFFLOAD_MEMORY_LIMIT": "1"},
    )
    assert run.text() == "caught\n"
    failure = run.end["failure"]
    assert run.code == 1 and failure["reason"] == "OutOfMemory" and "200 MiB" in failure["message"]
    assert "small" in run.values()


# ---------------------------------------------------------------------- stopping


#: Time for cells that end by themselves, however busy the machine is.
PATIENT = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
LOOP = "import time\nprint('begun', flush=True)\n"


def test_stop_interrupts_gracefully(driver: Driver):
    run = driver.start(
        driver.submit(LOOP + "try:\n    time.sleep(60)\nfinally:\n    time.sleep(0.4); print('tidied up')"),
        env=PATIENT,
    ).until("begun")
    run.stop_as_ray()
    run.wait(20)
    assert run.code == 143
    assert run.text("stdout") == "begun\ntidied up\n"
    assert run.end["phase"] == "cancelled" and run.record["state"]["phase"] == "cancelled"


@pytest.mark.parametrize(
    "way", ["await asyncio.sleep(60)", "await asyncio.gather(asyncio.sleep(60), asyncio.sleep(50))"]
)
def test_stop_interrupts_a_cell_that_awaits(driver: Driver, way):
    source = f"import asyncio\nprint('begun')\ntry:\n    {way}\nfinally:\n    print('tidied up')"
    run = driver.start(driver.submit(source), env=PATIENT).until("begun")
    run.stop_as_ray()
    run.wait(20)
    assert (run.code, run.text("stdout")) == (143, "begun\ntidied up\n")


def test_stop_is_for_the_main_thread(driver: Driver):
    # That one alone handles signals in Python, and it may be asleep: here another thread would take them.
    source = (
        "import signal, threading, time\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "def take():\n"
        "    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n    print('begun')\n"
        "    time.sleep(60)\n"
        "threading.Thread(target=take, daemon=True).start()\n"
        "while signal.SIGINT not in signal.sigpending():\n    time.sleep(0.01)\n"
        "print('mine')\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])"
    )
    run = driver.start(driver.submit(source), env=PATIENT).until("begun")
    driver.store.request_stop(run.id, "a test", "gently")
    run.wait(20)
    assert (run.code, run.text("stdout")) == (143, "begun\nmine\n")
    assert "KeyboardInterrupt" in [c["ename"] for c in run.contents("error")]


@pytest.mark.parametrize(
    "ignoring",
    [
        "class Thing:\n    def __del__(self): work()\nThing()",
        "import ctypes\nctypes.CFUNCTYPE(None)(work)()",
        "class Thing: pass\nimport weakref\nthing = Thing()\nweakref.finalize(thing, work)\ndel thing",
    ],
    ids=["finalizer", "callback of C", "callback of weakref"],
)
def test_stop_where_python_ignores_exceptions(driver: Driver, ignoring):
    body = f"{ignoring}\nprint('went on')\ntime.sleep(60)"
    source = (
        "import time\ndef work():\n    print('begun')\n    time.sleep(60)\n"
        f"try:\n{textwrap.indent(body, '    ')}\nfinally:\n    time.sleep(0.4); print('tidied up')"
    )
    run = driver.start(driver.submit(source), env=PATIENT).until("begun")
    run.stop_as_ray()
    run.wait(20)
    assert run.text() == "begun\nwent on\ntidied up\n"
    assert (run.code, run.end["phase"]) == (143, "cancelled")


def test_stop_leaves_no_child_behind_even_if_all_is_ignored(driver: Driver):
    run = driver.start(
        driver.submit(
            "import subprocess, time, os, signal\n"
            "kids = [subprocess.Popen(['sh', '-c', 'trap \"\" TERM INT; while :; do sleep 1; done']),\n"
            "        subprocess.Popen(['setsid', 'sleep', '100'], start_new_session=True)]\n"
            "os.system('setsid nohup sleep 101 >/dev/null 2>&1 & sleep 0.3')\n"
            "signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('begun')\n"
            "while True:\n    try:\n        time.sleep(1)\n    except BaseException: pass\n"
        )
    ).until("begun")
    assert len(run.remember_children()) >= 4
    began = time.monotonic()
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait(20)
    assert time.monotonic() - began < 6  # 2 s of grace, and what a busy machine adds
    assert run.survivors() == []
    assert run.end["phase"] == "cancelled" and run.text() == "begun\n"


def test_stop_of_a_cell_that_holds_the_gil(driver: Driver):
    # A regular expression that backtracks for ages never lets another thread of its process run.
    run = driver.start(driver.submit("import re\nprint('begun')\nre.match('(a+)+$', 'a' * 60 + 'b')")).until(
        "begun"
    )
    run.remember_children()
    run.stop_as_ray()
    run.wait(20)
    assert run.code == 143 and run.end["phase"] == "cancelled" and run.survivors() == []


def test_stop_by_the_store(driver: Driver):
    run = driver.start(driver.submit(LOOP + "time.sleep(60)"), env=PATIENT).until("begun")
    driver.store.request_stop(run.id, "a test", "gently")
    run.wait(20)
    assert run.code == 143 and run.end["phase"] == "cancelled"
    assert "KeyboardInterrupt" in [c["ename"] for c in run.contents("error")]


def test_stop_while_children_of_multiprocessing_work(driver: Driver):
    run = driver.start(
        driver.submit(
            "import multiprocessing as mp, time\n"
            "pool = mp.get_context('fork').Pool(2)\n"
            "pool.map_async(time.sleep, [50, 50])\nprint('begun')\ntime.sleep(60)"
        )
    ).until("begun")
    assert len(run.remember_children()) >= 3
    run.stop_as_ray()
    run.wait(20)
    assert run.end["phase"] == "cancelled" and run.survivors() == []


def test_a_time_limit(driver: Driver):
    run = driver.run(LOOP + "x = 1\ntime.sleep(60)", options={"timeout": 1.0})
    assert run.code == 124
    assert run.end["failure"]["reason"] == "JobTimedOut" and "1 s" in run.end["failure"]["message"]
    assert run.record["state"]["phase"] == "failed"
    assert run.values()["x"] == 1


def test_children_left_behind_by_a_good_cell_are_ended(driver: Driver):
    run = driver.start(
        driver.submit(
            "import subprocess, time\np = subprocess.Popen(['sleep', '100'])\nprint('begun'); time.sleep(0.5)"
        )
    ).until("begun")
    run.remember_children()
    run.wait(10)
    assert run.code == 0 and run.survivors() == []


# ---------------------------------------------------------------------- crashes


def test_os_exit_loses_no_output(driver: Driver):
    run = driver.run("import os\nfor i in range(5000): print(i)\nprint('no newline', end='')\nos._exit(0)")
    assert run.text().splitlines()[-2:] == ["4999", "no newline"] and run.text().count("\n") == 5000
    failure = run.end["failure"]
    assert run.code == 3 and failure["reason"] == "JobCrashed" and "exit code 0" in failure["message"]


@pytest.mark.parametrize(("number", "word"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_killed_cell_is_told_at_once(driver: Driver, number, word):
    run = driver.run(f"import os\nprint('last words')\nos.kill(os.getpid(), {int(number)})")
    assert run.code == 128 + number
    assert run.text("stdout") == "last words\n"
    assert ("Segmentation fault" in run.text("stderr")) == (number == signal.SIGSEGV)
    assert (
        run.end["failure"]["reason"] in ("JobCrashed", "OutOfMemory")
        and word in run.end["failure"]["message"]
    )


def test_the_cell_dies_with_its_guard(driver: Driver):
    run = driver.start(driver.submit(LOOP + "time.sleep(60)")).until("begun")
    run.remember_children()
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    _, alive = psutil.wait_procs(run.children, timeout=5)
    assert alive == []


def test_forked_children_print_and_do_nothing_else(driver: Driver):
    run = driver.run(
        "import os, multiprocessing as mp, sys\n"
        "pid = os.fork()\n"
        "if not pid:\n    print('child'); display('not told'); sys.stdout.flush(); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "def work(i):\n    print('worker', flush=True); return i\n"
        "with mp.get_context('fork').Pool(1) as pool: print(pool.map(work, [1]))\n"
    )
    assert run.code == 0, run.log
    assert run.text("stdout") == "child\nworker\n[1]\n"
    assert run.text("stderr") == ""
    assert len(run.contents("phase")) == 2


def test_a_forked_child_that_reaches_the_end_of_the_cell(driver: Driver):
    run = driver.run("import os, time\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nprint('both', bool(pid))")
    assert run.code == 0, run.log
    assert sorted(run.text().splitlines()) == ["both False", "both True"]
    assert len(run.contents("phase")) == 2


def test_a_closed_stdout_is_the_cells_own_affair(driver: Driver):
    run = driver.run("import os\nprint('a')\nos.close(1)\nx = 1")
    assert run.code == 0 and run.values() == {"x": 1}


# ---------------------------------------------------------------------- the store goes away


def test_the_store_is_away_for_some_seconds(lonely: Driver):
    run = lonely.start(
        lonely.submit(
            "import time\nfor i in range(60):\n    print('tick', i); time.sleep(0.1)\nx = list(range(1000))"
        )
    ).until("tick 5")
    lonely.server.kill()
    time.sleep(3)
    lonely.server.start()
    run.wait(60)
    assert run.code == 0, run.log
    assert run.text() == "".join(f"tick {i}\n" for i in range(60))
    assert run.values()["x"] == list(range(1000))
    assert run.end["phase"] == "succeeded"


def test_the_store_comes_back_only_after_the_cell_has_ended(lonely: Driver):
    run = lonely.start(
        lonely.submit("import time\nprint('begun'); time.sleep(1)\nprint('end')\ny = 2")
    ).until("begun")
    lonely.server.stop()
    threading.Timer(4, lonely.server.start).start()
    run.wait(60)
    assert run.code == 0 and run.text() == "begun\nend\n" and run.values() == {"y": 2}


def test_the_store_is_not_there_yet(lonely: Driver):
    job = lonely.submit("print('patient')")
    lonely.server.stop()
    run = lonely.start(job)
    time.sleep(2)
    lonely.server.start()
    run.wait(60)
    assert run.code == 0 and run.text() == "patient\n"


# ---------------------------------------------------------------------- programs


def test_a_program_with_json(driver: Driver, tmp_path):
    data = json.dumps({"n": 20}).encode()
    digest = SIGNER.digest(data)
    driver.store.put_blob(digest, memoryview(data))
    job = driver.submit(
        "python -c 'from rayoffload_job import read_input, write_output; import os;"
        ' print(os.environ["RAYOFFLOAD_JOB"]);'
        ' write_output({"twice": read_input()["n"] * 2}); open("made.txt", "w").write("1")\'',
        kind="program",
    )
    driver.store.write(job, "input", {"kind": "json", "digest": digest, "size": len(data)})
    run = driver.start(job).wait()
    assert run.code == 0, run.log
    assert run.text() == f"{job}\n"
    result = run.end["result"]
    assert result["kind"] == "json"
    assert json.loads(bytes(driver.store.get_blob(result["digest"], result["size"]))) == {"twice": 40}
    assert [f["path"] for f in run.end["files"]] == ["made.txt"]


def test_a_program_with_bytes_and_an_exit_code(driver: Driver):
    run = driver.run(
        'python -c \'from rayoffload_job import *; import sys; write_output(b"raw");'
        " print(read_input()); sys.exit(7)'",
        kind="program",
    )
    assert run.code == 7 and run.text() == "None\n"
    assert bytes(driver.store.get_blob(run.end["result"]["digest"], 3)) == b"raw"
    assert run.end["failure"]["reason"] == "JobCrashed" and "exit code 7" in run.end["failure"]["message"]


def test_a_program_that_is_not_there(driver: Driver):
    run = driver.run("no-such-program --now", kind="program")
    assert run.code == 3 and "no-such-program" in run.end["failure"]["message"]


def test_stopping_a_program(driver: Driver):
    run = driver.start(
        driver.submit(
            "sh -c 'trap \"echo ended; exit 0\" TERM; echo begun; while :; do sleep 0.1; done'",
            kind="program",
        ),
        env=PATIENT,
    ).until("begun")
    run.remember_children()
    driver.store.request_stop(run.id)
    run.wait(10)
    assert run.end["phase"] == "cancelled" and run.survivors() == []
    assert run.text() == "begun\nended\n"
