"""Who waits for whom, and what lands where, in a real kernel."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

import pytest

from jupyter_rayoffload import attach
from jupyter_rayoffload.models import Phase

from .ground import ANSI, LIMIT, Ground, Notebook, until


@pytest.fixture(scope="module")
def kernel(ground: Ground) -> Iterator[Notebook]:
    """Start one kernel for all of them; each uses names of its own."""
    with ground.kernel("landing") as kernel:
        kernel.sit("import time, warnings").check()
        yield kernel


def _job(kernel: Notebook, name: str, source: str, options: str = "--quiet") -> None:
    kernel.sit(f"%%ray_job {name} {options}\n{source}").check()


def _ended(kernel: Notebook, name: str) -> None:
    until(lambda: kernel.value(f"{name}.done()") == "True", f"the end of {name}")


def _warnings(text: str) -> int:
    return text.count("UserWarning")


# ---------------------------------------------------------------------- waiting


def test_a_cell_that_reads_a_pending_name_waits_and_others_do_not(kernel: Notebook) -> None:
    _job(kernel, "w_job", "import time\ntime.sleep(4)\nw_value = 'landed'")
    assert kernel.value("w_job.done()") == "False"
    assert kernel.sit("'needs nothing'").check().value == "'needs nothing'"
    assert kernel.value("w_job.done()") == "False", "a cell that does not read the name does not wait"
    reading = kernel.sit("w_value").check()
    assert reading.value == "'landed'"
    notices = [c["data"]["text/plain"] for c in reading.contents("display_data")]
    assert notices == ["Waits for w_value from job w_job"]
    assert [c["data"]["text/plain"] for c in reading.contents("update_display_data")][-1] == ""


def test_a_function_that_reads_a_pending_name_waits_too(kernel: Notebook) -> None:
    kernel.sit("def f_reads():\n    return f_value * 2").check()
    _job(kernel, "f_job", "import time\ntime.sleep(2)\nf_value = 21")
    assert kernel.sit("f_reads()").check().value == "42"


def test_what_has_ended_lands_by_itself(kernel: Notebook) -> None:
    _job(kernel, "l_job", "l_value = [1, 2, 3]")
    _ended(kernel, "l_job")
    until(lambda: kernel.value("globals().get('l_' + 'value')") == "[1, 2, 3]", "the value lands")


def test_what_the_notebook_drops_is_free(kernel: Notebook) -> None:
    """A handle of a job keeps no large value alive, and has it all the same."""
    _job(
        kernel,
        "d_job",
        "import numpy\nd_array = numpy.ones(1 << 20)\nd_list = [d_array, d_array + 1]\nd_none = None",
    )
    _ended(kernel, "d_job")
    assert kernel.value("d_job.outputs['d_array'] is d_array, d_job.outputs['d_none']") == "(True, None)"
    kernel.sit("import gc, weakref\nd_refs = [weakref.ref(a) for a in (d_array, d_list[1])]").check()
    kernel.sit("del d_array, d_list\nd_found = gc.collect()").check()
    assert kernel.value("[r() for r in d_refs]") == "[None, None]"
    assert kernel.value("float(d_job.outputs['d_list'][1].sum())") == str(float(2 << 20))


def test_a_chained_job_takes_the_value_from_the_store(kernel: Notebook) -> None:
    _job(kernel, "c_one", "import time\ntime.sleep(3)\nc_first = list(range(5))")
    began = time.monotonic()
    _job(kernel, "c_two", "c_second = sum(c_first)")
    assert time.monotonic() - began < LIMIT
    assert kernel.value("c_one.done()") == "False", "the second cell did not wait for the first job"
    assert kernel.value("c_two.record.spec.after['c_first'] == c_one.id") == "True"
    assert kernel.sit("c_second").check().value == "10"
    assert kernel.value(
        "c_two.phase.value, c_one.record.ended <= c_two.record.steps['running'].begin"
    ) == str(("succeeded", True))


def test_a_chained_job_finds_the_files_of_those_before_it(kernel: Notebook) -> None:
    _job(kernel, "cf_one", "import time\ntime.sleep(3)\nopen('cf.txt', 'w').write('one')\ncf_first = 1")
    second = "cf_second = open('cf.txt').read() + str(cf_first)\nopen('cf.txt', 'w').write('two')"
    _job(kernel, "cf_two", second)
    _job(kernel, "cf_three", "cf_third = open('cf.txt').read() + cf_second")
    assert kernel.value("cf_one.done()") == "False"
    assert kernel.sit("cf_third").check().value == "'twoone1'"
    assert kernel.value("open('cf.txt').read()") == "two", "the last one that wrote it"
    again = kernel.sit("cf_again = cf_three.rerun()\ncf_again.wait()\ncf_again.outputs['cf_third']").check()
    assert again.value == "'twoone1'", "a rerun starts from the same files"


def test_a_chained_job_is_found_through_a_function_that_reads_a_name_nobody_has_bound_yet(
    kernel: Notebook,
) -> None:
    kernel.sit("def g_twice():\n    return g_first * 2").check()
    _job(kernel, "g_one", "import time\ntime.sleep(3)\ng_first = 21")
    _job(kernel, "g_two", "g_second = g_twice()")
    assert kernel.value("g_two.record.spec.after['g_first'] == g_one.id") == "True"
    assert kernel.sit("g_second").check().value == "42"


def test_a_job_that_waits_for_another_can_be_cancelled_from_elsewhere(kernel: Notebook) -> None:
    _job(kernel, "ce_one", "import time\ntime.sleep(1000)\nce_first = 1")
    _job(kernel, "ce_two", "ce_second = ce_first")
    job = kernel.value("ce_two.id")
    until(lambda: "Waits for" in kernel.value("ce_two.record.reason"), "the second job waits")
    assert attach(job).cancel()
    _ended(kernel, "ce_two")
    assert kernel.value("ce_two.phase.value, ce_two.record.attempt") == "('cancelled', 0)"
    assert kernel.value("ce_one.cancel(), ce_one.wait(60), ce_one.phase.value") == str(
        (True, True, "cancelled")
    )
    seen = attach(job)
    assert seen.wait(LIMIT)
    assert seen.phase is Phase.CANCELLED


def test_a_chained_job_of_a_failed_one_fails_with_the_reason(kernel: Notebook) -> None:
    _job(kernel, "cf_one", "import time\ntime.sleep(2)\n1 / 0\ncf_first = 1")
    _job(kernel, "cf_two", "cf_second = cf_first")
    _ended(kernel, "cf_two")
    assert kernel.value("type(cf_two.exception()).__name__") == "DependencyFailed"
    assert kernel.value("cf_one.id in str(cf_two.exception())") == "True"
    assert kernel.value("cf_two.record.attempt") == "0", "it was never submitted"


# ---------------------------------------------------------------------- who owns a name


def test_a_name_that_was_rebound_meanwhile_stays(kernel: Notebook) -> None:
    kernel.sit("r_value = 'before'").check()
    _job(kernel, "r_job", "import time\ntime.sleep(3)\nr_value = 'from the job'")
    kernel.sit("r_value = 'mine'").check()
    _ended(kernel, "r_job")
    assert kernel.value("r_value, r_job.outputs['r_value']") == str(("mine", "from the job"))
    until(lambda: "rebound" in kernel.value("[v.reason for v in r_job.record.outputs]"), "the record says so")


def test_the_newest_job_owns_the_name(kernel: Notebook) -> None:
    _job(kernel, "n_old", "import time\ntime.sleep(5)\nn_value = 'old'")
    _job(kernel, "n_new", "n_value = 'new'")
    assert kernel.sit("n_value").check().value == "'new'"
    _ended(kernel, "n_old")
    assert kernel.value("n_value, n_old.outputs['n_value'], n_old.phase.value") == str(
        ("new", "old", "succeeded")
    )
    until(
        lambda: "a newer job" in kernel.value("[v.reason for v in n_old.record.outputs]"),
        "the record says so",
    )


def test_the_name_of_a_job_never_overwrites_anything_but_a_job(kernel: Notebook) -> None:
    kernel.sit("o_data = [1, 2]").check()
    run = kernel.sit("%%ray_job o_data\n1")
    assert run.contents("error")[0]["ename"] == "UsageError"
    assert kernel.value("o_data") == "[1, 2]"
    _job(kernel, "o_job", "1")
    first = kernel.value("o_job.id")
    _job(kernel, "o_job", "2")
    assert kernel.value("o_job.id") != first
    assert kernel.sit("o_job.result()").check().value == "2"


def test_a_name_that_the_cell_deletes_goes_here_too(kernel: Notebook) -> None:
    kernel.sit("d_one, d_two = 1, 2").check()
    _job(kernel, "d_job", "d_three = d_one + d_two\ndel d_one")
    assert kernel.sit("d_three").check().value == "3"
    assert kernel.value("'d_one' in globals(), 'd_two' in globals()") == "(False, True)"


# ---------------------------------------------------------------------- failure


def test_a_failed_dependency_raises_once_warns_once_and_is_then_silent(kernel: Notebook) -> None:
    kernel.sit("x_value = 'old'").check()
    _job(kernel, "x_job", "import time\ntime.sleep(3)\nx_value = 1 / 0")
    waiting = kernel.sit("print(x_value)")
    [error] = waiting.contents("error")
    assert error["ename"] == "DependencyFailed"
    shown = ANSI.sub("", "\n".join(error["traceback"]))
    assert "ZeroDivisionError" in shown
    assert "x_value = 1 / 0" in shown
    again = kernel.sit("print(x_value)").check()
    assert (again.stdout, _warnings(again.stderr)) == ("old\n", 0), "the error itself was the warning"

    _job(kernel, "x_job", "x_value = 1 / 0")
    _ended(kernel, "x_job")
    warned = kernel.sit("print(x_value)").check()
    assert (warned.stdout, _warnings(warned.stderr)) == ("old\n", 1)
    assert "ended as failed" in warned.stderr
    silent = kernel.sit("print(x_value)").check()
    assert (silent.stdout, silent.stderr) == ("old\n", "")


def test_what_a_failed_cell_assigned_is_kept_and_lands_only_under_wait(kernel: Notebook) -> None:
    _job(kernel, "p_job", "p_value = 'partial'\nraise ValueError('no')")
    _ended(kernel, "p_job")
    assert kernel.value("'p_value' in globals(), p_job.outputs['p_value']") == "(False, 'partial')"
    run = kernel.sit("%%ray_job --wait\np_waited = 'partial'\nraise ValueError('no')")
    assert run.contents("error")[0]["ename"] == "ValueError"
    assert kernel.value("p_waited") == "partial"


def test_a_chained_job_may_change_what_it_got_in_place(kernel: Notebook) -> None:
    kernel.sit("m_old = None").check()
    _job(kernel, "m_one", "m_list, m_old, m_dict = [1], [1], {}")
    _job(kernel, "m_two", "m_list.append(2)\nm_old.append(2)\nm_dict['k'] = 1\nm_alias = m_list")
    _job(kernel, "m_three", "m_size = len(m_list)")
    assert kernel.sit("m_size, m_list, m_old, m_dict, m_alias is m_list").check().value == str(
        (2, [1, 2], [1, 2], {"k": 1}, True)
    )


def test_a_name_that_the_newest_job_only_reads_is_that_of_an_older_one(kernel: Notebook) -> None:
    _job(kernel, "y_one", "import numpy as np\ny_a = np.arange(5)\ny_kept = np.ones(3)")
    _job(kernel, "y_two", "y_b = y_a * 2\ny_a[0] = 100")
    _job(kernel, "y_three", "y_c = y_b.sum() + y_a.sum() + y_kept.sum()")
    assert kernel.sit("y_a.tolist(), y_kept.sum(), float(y_c)").check().value == str(
        ([100, 1, 2, 3, 4], 3.0, 133.0)
    ).replace("3.0,", "np.float64(3.0),", 1)


def test_what_a_newer_job_may_assign_and_does_not_is_what_it_was(kernel: Notebook) -> None:
    _job(kernel, "x_one", "import time\ntime.sleep(3)\nx_value = 'one'")
    _job(kernel, "x_two", "if not True:\n    x_value = 'two'")
    assert kernel.sit("x_value").check().value == "'one'"
    _job(kernel, "x_three", "import time\ntime.sleep(2)\nx_value = 'three'")
    _job(kernel, "x_four", "1 / 0\nx_value = 'four'")
    _ended(kernel, "x_four")
    _ended(kernel, "x_three")
    kernel.sit("import warnings\nwarnings.simplefilter('ignore')").check()
    assert kernel.sit("x_value").check().value == "'three'"


def test_an_older_value_waits_for_a_newer_job_that_then_does_not_assign_it(kernel: Notebook) -> None:
    _job(kernel, "q_one", "q_value = 'one'")
    _job(kernel, "q_two", "import time\ntime.sleep(12)\nif not True:\n    q_value = 'two'")
    _ended(kernel, "q_one")
    assert kernel.value("'q_' + 'value' in globals(), q_two.done()") == "(False, False)"
    assert kernel.sit("q_value").check().value == "'one'"


def test_a_chained_input_under_another_name_is_the_object_that_has_landed(kernel: Notebook) -> None:
    _job(kernel, "v_one", "v_first = ['first']")
    _job(kernel, "v_two", "v_second = v_first\nv_third = v_first\nv_first = None")
    assert kernel.sit("v_second, v_third is v_second, v_first").check().value == str((["first"], True, None))
    assert kernel.value("v_two.outputs['v_second'], v_two.outputs['v_first']") == str((["first"], None))


def test_a_value_that_landed_meanwhile_is_no_rebinding(kernel: Notebook) -> None:
    """The second job got the first one's value, and changed it through a function that it was passed to."""
    kernel.sit("def u_change(x):\n    x.append(len(x))").check()
    _job(kernel, "u_one", "import time\ntime.sleep(1)\nu_list = []")
    _job(kernel, "u_two", "import time\ntime.sleep(2)\nu_change(u_list)\nu_done = True")
    assert kernel.sit("u_done").check().value == "True"
    assert kernel.sit("u_list").check().value == "[0]"


def test_another_name_of_what_a_job_changes_is_waited_for(kernel: Notebook) -> None:
    kernel.sit("import types\ns_list = []\ns_same = s_list").check()
    kernel.sit("s_model = types.SimpleNamespace(inner=[])\ns_part = s_model.inner").check()
    _job(kernel, "s_one", "import time\ntime.sleep(1)\ns_list.append(1)\ns_model.inner.append(3)")
    assert kernel.sit("s_same, s_part").check().value == "([1], [3])"
    _job(kernel, "s_two", "import time\ntime.sleep(1)\ns_list.append(2)")
    _job(kernel, "s_three", "s_same.append(3)")
    assert kernel.sit("s_list, s_same is s_list").check().value == "([1, 2, 3], True)"


def test_a_global_that_a_called_function_binds_is_waited_for(kernel: Notebook) -> None:
    kernel.sit(
        "b_total = 0\ndef b_add(k):\n    global b_total, b_fresh\n    b_total += k\n    b_fresh = k"
    ).check()
    _job(kernel, "b_one", "import time\ntime.sleep(1)\nb_add(2)")
    _job(kernel, "b_two", "b_add(3)")
    assert kernel.sit("b_total, b_fresh").check().value == "(5, 3)"


# ---------------------------------------------------------------------- references


def test_a_lazy_output_is_a_reference_that_the_next_job_takes_from_the_store(kernel: Notebook) -> None:
    _job(kernel, "z_job", "import numpy\nz_big = numpy.arange(10**6)", "--quiet --lazy")
    run = kernel.sit("z_big").check()
    assert run.value is not None
    assert "in the store: .get() brings it here" in run.value
    _job(kernel, "z_next", "z_sum = int(z_big.sum())")
    assert kernel.value("z_next.record.spec.after['z_big']") == f"{kernel.value('z_job.id')}#z_big"
    assert kernel.sit("z_sum").check().value == str(sum(range(10**6)))
    assert kernel.value("z_job._values") == "{}", "it never came here"
    assert kernel.value("int(z_big.get().sum())") == str(sum(range(10**6)))


# ---------------------------------------------------------------------- waiting cells


def test_a_headless_cell_waits_and_publishes_what_its_job_publishes(kernel: Notebook) -> None:
    run = kernel.run(
        "%%ray_job\nimport time\ntime.sleep(1)\nprint('out')\nh_value = 5\nh_value * 2", timeout=LIMIT
    )
    assert run.check().stdout == "out\n"
    assert run.value == "10"
    assert kernel.value("h_value, _") == "(5, 10)"


def test_an_interrupt_under_wait_cancels_the_job(kernel: Notebook) -> None:
    run = kernel.start(
        "%%ray_job i_job --wait\nimport time\nprint('begun')\ntime.sleep(1000)", headless=False
    )
    until(lambda: kernel.drain(0.2) or "begun" in run.stdout, "the cell runs there")
    began = time.monotonic()
    kernel.interrupt()
    kernel.finish(run, timeout=LIMIT)
    print(f"cancelled {time.monotonic() - began:.1f} s after the interrupt")
    [error] = run.contents("error")
    assert error["ename"] == "KeyboardInterrupt"
    [line] = error["traceback"]
    assert "was cancelled" in line
    assert "%ray rerun" in line
    assert kernel.value("i_job.phase.value") == "cancelled"


def test_an_interrupt_of_a_cell_that_waits_for_a_name_leaves_the_job_alone(kernel: Notebook) -> None:
    _job(kernel, "k_job", "import time\ntime.sleep(6)\nk_value = 'there'")
    until(lambda: kernel.value("k_job.running()") == "True", "the job runs")
    run = kernel.start("k_value", headless=False)
    until(lambda: kernel.drain(0.2) or run.contents("display_data"), "the cell waits")
    kernel.interrupt()
    kernel.finish(run, timeout=LIMIT)
    assert run.contents("error")[0]["ename"] == "KeyboardInterrupt"
    assert kernel.value("k_job.done()") == "False"
    assert kernel.sit("k_value").check().value == "'there'"


# ---------------------------------------------------------------------- files, retries, time


def test_files_come_home_and_never_over_what_changed_here(ground: Ground, kernel: Notebook) -> None:
    (kernel.cwd / "kept.txt").write_text("as sent")
    _job(
        kernel,
        "file_job",
        "import time, pathlib\n"
        "pathlib.Path('made.txt').write_text('made there')\n"
        "pathlib.Path('kept.txt').write_text('changed there')\n"
        "pathlib.Path('large.bin').write_bytes(b'x' * 2_000_000)\n"
        "print('written')\ntime.sleep(2)\nfile_done = True",
    )
    until(lambda: "written" in kernel.value("file_job.logs()"), "the files are written")
    (kernel.cwd / "kept.txt").write_text("changed here")
    read = kernel.sit("print(file_done, open('made.txt').read())").check()
    assert read.stdout == "True made there\n", "files are here when outputs land"
    assert (kernel.cwd / "kept.txt").read_text() == "changed here"
    assert not (kernel.cwd / "large.bin").exists()
    until(lambda: "kept here" in kernel.value("[f.state for f in file_job.files]"), "the record says so")
    _job(
        kernel,
        "file_job",
        "import pathlib\npathlib.Path('out').mkdir()\n"
        "pathlib.Path('out/large.bin').write_bytes(b'y' * 2_000_000)\nfile_done = 2",
        "--quiet --fetch 'out/*.bin'",
    )
    _ended(kernel, "file_job")
    kernel.sit("open('out/large.bin').close()").check()
    digest = hashlib.sha256((kernel.cwd / "out" / "large.bin").read_bytes()).hexdigest()
    assert digest == hashlib.sha256(b"y" * 2_000_000).hexdigest()


def test_a_failed_job_is_tried_again_as_often_as_it_may(ground: Ground, kernel: Notebook) -> None:
    marks = ground.root / "tries"
    source = f"marks = open({str(marks)!r}, 'a')\nmarks.write('x')\nmarks.close()\n"
    _job(
        kernel,
        "t_job",
        source + f"print('try', len(open({str(marks)!r}).read()))\n"
        f"if len(open({str(marks)!r}).read()) < 3:\n    raise ValueError('not yet')\nt_value = 'third time'",
        "--quiet --retries 3",
    )
    assert kernel.sit("t_value").check().value == "'third time'"
    assert kernel.value("t_job.record.attempt, t_job.phase.value") == "(3, 'succeeded')"
    assert marks.read_text() == "xxx"
    assert [t for t in kernel.value("t_job.logs()").split("\n") if t.startswith("try")] == [
        "try 1",
        "try 2",
        "try 3",
    ]
    _job(kernel, "t_fails", source + "raise ValueError('never')", "--quiet --retries 1")
    kernel.sit("t_fails.wait()").check()
    assert kernel.value("t_fails.record.attempt, t_fails.phase.value, str(t_fails.exception())") == str(
        (2, "failed", "never")
    )
    assert marks.read_text() == "xxxxx"


def test_a_job_that_runs_longer_than_it_may_is_ended(kernel: Notebook) -> None:
    _job(
        kernel,
        "s_job",
        "import time\nprint('begun')\ns_partial = 1\ntime.sleep(1000)",
        "--quiet --timeout 2s",
    )
    _ended(kernel, "s_job")
    assert kernel.value("type(s_job.exception()).__name__, s_job.phase.value, s_job.logs()") == str(
        ("JobTimedOut", "failed", "begun")
    )
    assert "longer than its limit of 2 s" in kernel.value("s_job.exception()")
    assert kernel.value("s_job.outputs['s_partial']") == "1"


# ---------------------------------------------------------------------- from elsewhere


def test_another_kernel_sees_the_whole_output_and_runs_it_again_from_its_frozen_inputs(
    ground: Ground, kernel: Notebook
) -> None:
    kernel.sit("e_data = {'numbers': [1, 2, 3]}\ndef e_sum():\n    return sum(e_data['numbers'])").check()
    (kernel.cwd / "e_factor.txt").write_text("10")
    _job(
        kernel,
        "e_job",
        "print('first line')\nprint('second line')\ne_total = e_sum() * int(open('e_factor.txt').read())",
    )
    assert kernel.sit("e_total").check().value == "60"
    job = kernel.value("e_job.id")
    kernel.sit("e_data['numbers'].append(100)\ndef e_sum():\n    return 0").check()
    (kernel.cwd / "e_factor.txt").write_text("0")
    with ground.kernel("landing-elsewhere") as other:
        assert other.sit(f"%ray logs {job}").check().stdout == "first line\nsecond line\n"
        other.sit(f"e_again = %ray rerun {job}").check()
        assert other.value("e_again.id") != job
        other.sit("e_again.wait()").check()
        assert other.value("e_again.phase.value, dict(e_again.outputs)") == str(
            ("succeeded", {"e_total": 60})
        )
        assert other.sit("e_total").check().value == "60", "and it lands where it was asked for"
    assert attach(job).phase is Phase.SUCCEEDED
