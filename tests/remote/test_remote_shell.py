"""The cell is a notebook cell there too; each test runs the real runner as a process."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tests.remote.runner import Driver, driving
from tests.servers import start_redis

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    server = start_redis(folder / "redis")
    with driving(server, folder / "driver") as made:
        yield made
    server.stop()


def plain(lines) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))


def test_last_expression_is_displayed_and_kept(driver: Driver):
    run = driver.run("print('a')\n6 * 7", count=9)
    assert run.code == 0
    assert run.story() == [("stdout", "a\n"), ("execute_result", "42")]
    assert run.contents("execute_result")[0]["execution_count"] == 9
    assert run.result == 42
    assert run.end["result"]["slot"] == "result"


def test_semicolon_suppresses(driver: Driver):
    run = driver.run("6 * 7;")
    assert run.story() == []
    assert "result" not in run.end


def test_rich_displays_in_order_with_prints(driver: Driver):
    run = driver.run(
        "from IPython.display import display, HTML, Image\n"
        "print('one')\n"
        "display(HTML('<b>two</b>'))\n"
        "print('three', end='')\n"
        "display({'text/plain': 'four', 'application/x-own': [1, float('nan'), b'5']}, raw=True)\n"
        "print('five')\n"
    )
    assert [t for t, _ in run.story()] == ["stdout", "display_data", "stdout", "display_data", "stdout"]
    html, raw = run.contents("display_data")
    assert html["data"]["text/html"] == "<b>two</b>"
    assert raw["data"]["application/x-own"] == [1, None, "NQ=="]


def test_display_ids_update_and_clear(driver: Driver):
    run = driver.run(
        "from IPython.display import display, clear_output\n"
        "h = display('first', display_id='me')\n"
        "h.update('second')\n"
        "clear_output(wait=True)\n"
        "display('third')"
    )
    types = [m["type"] for m in run.messages if m["type"] != "phase"]
    assert types == ["display_data", "update_display_data", "clear_output", "display_data"]
    first, update = run.contents("display_data", "update_display_data")[:2]
    assert first["transient"] == update["transient"] == {"display_id": "me"}
    assert update["data"]["text/plain"] == "'second'"
    assert run.contents("clear_output") == [{"wait": True}]


def test_matplotlib_figures_are_flushed_at_the_end(driver: Driver):
    run = driver.run(
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nprint('drawn')",
        timeout=120,
    )
    assert run.code == 0, run.log
    assert [t for t, _ in run.story()] == ["stdout", "display_data"]
    png = base64.b64decode(run.contents("display_data")[0]["data"]["image/png"])
    assert png.startswith(b"\x89PNG")


def test_the_magic_for_inline_figures_and_show(driver: Driver):
    run = driver.run(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1]); plt.show()\nprint('after')"
    )
    assert run.code == 0, run.log
    assert [t for t, _ in run.story()] == ["display_data", "stdout"]


def test_child_processes_do_not_inherit_the_inline_backend(driver: Driver):
    run = driver.run(
        "import matplotlib, os\nprint(os.environ.get('MPLBACKEND'), matplotlib.rcParams['backend'])"
    )
    assert run.text() == "None module://matplotlib_inline.backend_inline\n"


def test_pandas_shows_a_table(driver: Driver):
    run = driver.run("import pandas as pd\npd.DataFrame({'a': [1]})")
    assert "<table" in run.contents("execute_result")[0]["data"]["text/html"]


def test_top_level_await_and_async_for(driver: Driver):
    run = driver.run(
        "import asyncio\n"
        "async def numbers():\n    for i in range(3):\n        await asyncio.sleep(0.01)\n        yield i\n"
        "async for i in numbers():\n    print(i)\n"
        "await asyncio.sleep(0.01, 'done')"
    )
    assert run.story() == [("stdout", "0\n1\n2\n"), ("execute_result", "'done'")]


def test_plain_cells_run_inside_a_loop_as_in_a_kernel(driver: Driver):
    run = driver.run(
        "import asyncio\ntask = asyncio.create_task(asyncio.sleep(100))\n"
        "asyncio.get_running_loop().is_running()"
    )
    assert run.code == 0, run.log
    assert ("execute_result", "True") in run.story()


def test_shell_commands_and_magics(driver: Driver):
    run = driver.run(
        "!echo out; echo err >&2; exit 3\n"
        "files = !printf 'a\\nb\\n'\n"
        "print(list(files), _exit_code)\n"
        "%time 1 + 1\n"
        "%env NOWHERE_SET=5\n"
        "import os; print(os.environ['NOWHERE_SET'])"
    )
    assert run.code == 0, run.log
    assert "out\r\nerr\r\n" in run.text() or "out\nerr\n" in run.text()
    assert "['a', 'b']" in run.text()
    assert "Wall time" in run.text()
    assert run.text().endswith("5\n")
    assert run.values()["files"] == ["a", "b"]


def test_cell_magics_in_the_body(driver: Driver):
    assert driver.run("%%bash\necho from bash", cell_line="%%ray_job").text() == "from bash\n"
    run = driver.run("%%capture caught\nprint('quiet')\ndisplay('too')")
    assert run.story() == []
    assert driver.run("%%timeit -n1 -r1\npass").code == 0


def test_get_ipython_names_and_main(driver: Driver):
    run = driver.run(
        "import sys\n"
        "print(__name__, sys.modules['__main__'].__dict__ is globals(), type(get_ipython()).__name__)\n"
        "print(sys.argv)"
    )
    assert run.text() == "__main__ True ZMQInteractiveShell\n['']\n"


def test_warnings_are_shown(driver: Driver):
    run = driver.run("import warnings\nwarnings.warn('mind this')")
    assert "UserWarning: mind this" in run.text("stderr")
    assert "warnings.warn('mind this')" in run.text("stderr")


def test_tracebacks_count_lines_as_the_notebook_does(driver: Driver):
    source = "a = 1\nb = 2\n\ndef f(x):\n    return 1 / x\n\nf(0)\n"
    run = driver.run(source, cell_line="%%ray_job train --cpus 2", count=7)
    assert run.code == 1
    failure = run.end["failure"]
    assert (failure["ename"], failure["evalue"], failure["line"]) == (
        "ZeroDivisionError",
        "division by zero",
        6,
    )
    shown = plain(failure["traceback"])
    assert "Cell In[7], line 8" in shown
    assert "Cell In[7], line 6, in f(x)" in shown
    assert "----> 8 f(0)" in shown
    assert "jupyter_rayoffload" not in shown and "interactiveshell" not in shown
    assert run.contents("error")[0]["traceback"] == failure["traceback"]
    assert "ZeroDivisionError" in run.log


def test_the_magic_line_and_leading_blank_lines_count(driver: Driver):
    run = driver.run("\n\n1 / 0", cell_line="%%ray_job")
    assert run.end["failure"]["line"] == 4
    run = driver.run("1 / 0", cell_line="%%ray_job here")
    assert run.end["failure"]["line"] == 2
    assert "1 # %%ray_job here" in plain(run.end["failure"]["traceback"])
    assert driver.run("\n1 / 0").end["failure"]["line"] == 2


def test_syntax_errors_have_their_line(driver: Driver):
    run = driver.run("a = 1\nb = = 2\n", cell_line="%%ray_job", count=3)
    assert run.code == 1
    failure = run.end["failure"]
    assert (failure["ename"], failure["line"]) == ("SyntaxError", 3)
    assert "Cell In[3], line 3" in plain(failure["traceback"])
    assert run.names == []


def test_an_unknown_magic_is_a_usage_error(driver: Driver):
    run = driver.run("%nonsense")
    assert run.code == 1
    assert run.end["failure"]["ename"] == "UsageError"
    assert "nonsense" in run.text("stderr")


def test_input_and_getpass_say_what_to_do(driver: Driver):
    run = driver.run("input('name? ')")
    assert run.end["failure"]["ename"] == "StdinNotImplementedError"
    assert "use the answer as a variable" in run.end["failure"]["evalue"]
    run = driver.run("import getpass\ngetpass.getpass()")
    assert run.end["failure"]["ename"] == "StdinNotImplementedError"


def test_exit_as_in_a_kernel(driver: Driver):
    run = driver.run("exit()\nprint('goes on')")
    assert (run.code, run.text()) == (0, "goes on\n")
    run = driver.run("import sys\nsys.exit(4)")
    assert run.code == 1
    assert run.end["failure"]["ename"] == "SystemExit"
    assert run.text("stderr") == "", "the notebook's own IPython says how to leave it, once"


def test_an_exception_of_the_cells_own_class_with_its_chain(driver: Driver):
    run = driver.run(
        "class Odd(Exception):\n"
        "    def __init__(self, *, size):\n"
        "        super().__init__(f'size {size}')\n        self.size = size\n"
        "try:\n    {}['k']\nexcept KeyError as e:\n"
        "    e.__notes__ = ['noted']\n    raise Odd(size=3) from e\n"
    )
    assert run.code == 1
    assert run.end["error_slot"] == "error"
    error = run.values("error")["error"]
    assert type(error).__name__ == "Odd" and error.size == 3
    assert isinstance(error.__cause__, KeyError) and error.__cause__.__notes__ == ["noted"]


def test_an_exception_that_cannot_travel_is_still_told(driver: Driver):
    run = driver.run(
        "import threading\n"
        "class Locked(Exception):\n"
        "    def __str__(self): raise ValueError('no text')\n"
        "e = Locked(); e.lock = threading.Lock()\nraise e"
    )
    assert run.code == 1
    assert "error_slot" not in run.end
    assert run.end["failure"]["ename"] == "Locked"


def test_what_was_assigned_before_an_error_is_kept(driver: Driver):
    run = driver.run("a = [1]\nb = 2\n1 / 0\nc = 3")
    assert run.values() == {"a": [1], "b": 2}


def test_nothing_is_written_to_the_home_folder(driver: Driver):
    assert driver.run("%history\nx = 1").code == 0
    assert [p.name for p in driver.home.iterdir() if p.name in (".ipython", ".jupyter")] == []
    assert [p for p in driver.temp.iterdir() if p.name.startswith("rayoffload-")] == []


def test_widget_views_are_left_out(driver: Driver):
    run = driver.run(
        "view = {'application/vnd.jupyter.widget-view+json': {'model_id': 'x'}, 'text/plain': 'bar'}\n"
        "display(view, raw=True)"
    )
    assert run.contents("display_data")[0]["data"] == {"text/plain": "bar"}


def test_bars_are_text(driver: Driver):
    pytest.importorskip("tqdm")
    run = driver.run(
        "from tqdm.auto import tqdm\nfrom tqdm.notebook import tqdm as other\n"
        "for _ in other(tqdm(range(3))): pass"
    )
    assert run.code == 0, run.log
    assert "3/3" in run.text("stderr")
    assert run.contents("display_data") == []


def test_load_ext_and_run(driver: Driver):
    Path(driver.folder / "script.py").write_text("value = 5\nprint('ran')\n")
    run = driver.run(f"%load_ext autoreload\n%run {driver.folder}/script.py\nvalue")
    assert run.code == 0, run.log
    assert ("execute_result", "5") in run.story()
