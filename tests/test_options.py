"""Every option: what it takes, and the one line that says what it takes."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_rayoffload.errors import UsageError
from jupyter_rayoffload.models import ClusterSpec, JobOptions, Resources
from jupyter_rayoffload.options import (
    completions,
    duration,
    from_keywords,
    memory,
    over,
    parse_line,
    parse_up,
    up_completions,
    usage,
)


def test_a_whole_line(tmp_path):
    line = parse_line(
        "fit -i df,params -o model,history --wait --cpus 2 --gpus 0.5 --memory 8GiB --resource TPU=1 "
        "--pip 'polars>1' xgboost --py-module src/lib --env A=1 'B=x y' "
        f"--workdir {tmp_path} --exclude '*.csv' --fetch 'out/*' --timeout 1h30m --retries 2 --lazy"
    )
    assert line.label == "fit"
    assert line.wait
    assert line.options == JobOptions(
        inputs=("df", "params"),
        outputs=("model", "history"),
        resources=Resources(2.0, 0.5, 8 * 2**30, {"TPU": 1.0}),
        pip=("polars>1", "xgboost"),
        py_modules=("src/lib",),
        env={"A": "1", "B": "x y"},
        workdir=str(tmp_path),
        exclude=("*.csv",),
        fetch=("out/*",),
        timeout=5400.0,
        retries=2,
        lazy=True,
    )


def test_an_empty_list_of_names_is_not_the_same_as_none():
    assert parse_line("-i ''").options.inputs == ()
    assert parse_line("").options.inputs is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1st", "Python name"),
        ("class", "Python name"),
        ("a b", "unrecognized arguments: b"),
        ("--gpus x", "zero or more"),
        ("--cpus -1", "zero or more"),
        ("--cpus nan", "zero or more"),
        ("--memory 8XB", "8GiB"),
        ("--memory 0", "8GiB"),
        ("--timeout soon", "2h"),
        ("--timeout 0", "above zero"),
        ("--retries -1", "whole number"),
        ("--retries 1.5", "whole number"),
        ("--env X", "NAME=VALUE"),
        ("--env 1X=2", "NAME=VALUE"),
        ("--env RAYOFFLOAD_X=1", "belongs to the runner"),
        ("--resource CPU=1", "options of their own"),
        ("--resource x", "NAME=NUMBER"),
        ("--workdir /no/such/folder", "a folder"),
        ("-i a-b", "not a name"),
        ("-o 'a b'", "not a name"),
        ("--profile ''", "some text"),
        ("--fetch /etc/passwd", "a pattern of files in the workspace, such as out/*.csv"),
        ("--fetch 'out/*' '../*'", "'../*': expected a pattern of files in the workspace"),
        ("--fetch out/../../x", "in the workspace"),
        ("--fetch '~/x'", "in the workspace"),
        ("--map xs", "expected NAME=EXPR, such as --map store=stores"),
        ("--map x==y", "expected NAME=EXPR"),
        ("--map 2x=xs", "'2x' is not a name"),
        ("--map class=xs", "'class' is not a name"),
        ("--map", "--map: expected one argument"),
        (
            "--map x=1 / 0",
            "'/' is none. An expression of --map with blanks outside of brackets needs quotation",
        ),
        ("score --map x=a if b", "unrecognized arguments: if b. An expression of --map with blanks"),
        ("--map x=f('a", "quotation"),
        ("--max-parallel 4", "--max-parallel is for batches. Add --map NAME=EXPR"),
        ("--map x=xs --max-parallel 0", "expected a whole number, one or more"),
        ("--standby 2", "--standby is planned, and not there yet"),
        ("--pip", "expected at least one argument"),
        ("--pip numpy 'not a req!!'", "'not a req!!': expected a requirement such as 'polars>=1'"),
        ("--pip 'numpy pandas'", "expected a requirement"),
        ("--nonsense", "unrecognized arguments: --nonsense"),
        ("--wai", "unrecognized arguments: --wai"),
        ("'open", "quotation"),
    ],
)
def test_bad_input_is_one_line_that_says_what_is_allowed(line, says):
    with pytest.raises(UsageError) as caught:
        parse_line(line)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "polars>=1,<2",
        "ray[data]==2.52; python_version > '3.9'",
        "tool @ https://example.org/tool-1.0-py3-none-any.whl",
        "https://example.org/tool.zip",
        "git+https://example.org/tool.git@main#egg=tool",
        "dist/tool-1.0-py3-none-any.whl",
        "../tool",
        "/shared/tool-1.0.tar.gz",
        "-r requirements.txt",
        "-e ../tool",
        "numpy==2.0 --hash=sha256:00",
    ],
)
def test_pip_installs_what_a_file_of_requirements_may_have(text):
    assert parse_line(shlex.join(["--pip", text])).options.pip == (text,)
    assert from_keywords({"pip": [text]}, JobOptions()).pip == (text,)


def test_what_pip_cannot_read_is_refused_in_python_too():
    with pytest.raises(UsageError, match=r"pip=\['x!!'\]: expected a requirement such as"):
        from_keywords({"pip": ["x!!"]}, JobOptions())
    assert from_keywords({"pip": ["--extra-index-url https://a.example"]}, JobOptions()).pip


@given(st.text(max_size=40))
def test_no_line_gives_anything_but_options_or_a_usage_error(line):
    try:
        parse_line(line)
    except UsageError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("text", "value"), [("8GiB", 8 * 2**30), ("500MB", 5e8), ("1.5 gb", 1.5e9), ("1024", 1024), (4096, 4096)]
)
def test_memory(text, value):
    assert memory(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("10min", 600), ("1h30m", 5400), ("2d", 172800)]
)
def test_duration(text, value):
    assert duration(text) == value


def test_keywords_read_like_the_line():
    options = from_keywords({"cpus": 2, "memory": "1GiB", "outputs": "a,b", "timeout": "2h"}, JobOptions())
    assert from_keywords({"fetch": ["./out/**", "a..b"]}, JobOptions()).fetch == ("./out/**", "a..b")
    assert options.resources == Resources(cpus=2.0, memory=2**30)
    assert options.outputs == ("a", "b")
    assert options.timeout == 7200


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"cpu": 1}, "no option 'cpu'"),
        ({"memory": "x"}, "8GiB"),
        ({"retries": -1}, "whole number"),
        ({"fetch": "/etc/*"}, "in the workspace"),
        ({"fetch": ["out", "../*"]}, "in the workspace"),
        ({"profile": ""}, "some text"),
    ],
)
def test_bad_keywords(given_, says):
    with pytest.raises(UsageError, match=says):
        from_keywords(given_, JobOptions())


def test_defaults_fill_only_what_is_left_open():
    given_ = parse_line("--cpus 4").options
    filled = over(given_, from_keywords({"cpus": 1, "memory": "2GiB", "retries": 3}, JobOptions()))
    assert filled.resources == Resources(cpus=4.0, memory=2 * 2**30)
    assert filled.retries == 3


def test_a_cluster_is_asked_for_by_name_profile_and_choices():
    asked = parse_up(["workers=4", "--profile", "large", "memory=8GiB", "--cluster", "big"])
    assert asked == ClusterSpec("big", "large", {"workers": "4", "memory": "8GiB"})
    assert parse_up([]) == ClusterSpec()
    assert up_completions(["--profile", "x"]) == ["--cluster"]


@pytest.mark.parametrize(
    "words", [["workers"], ["workers="], ["=4"], ["--profile"], ["--profil", "x"], ["--cluster", ""]]
)
def test_what_is_not_understood_of_it_is_told_in_one_line(words):
    with pytest.raises(UsageError) as caught:
        parse_up(words)
    assert str(caught.value).startswith("%ray cluster up: ") and "\n" not in str(caught.value)
    assert "%ray profiles" in caught.value.hint


def test_completion_offers_what_can_still_follow():
    assert "--gpus" in completions("%%ray_job --cpus 2 ")
    assert "--cpus" not in completions("%%ray_job --cpus 2 ")
    assert "--env" in completions("%%ray_job --env A=1 ")


def test_the_help_names_every_option():
    assert all(flag in usage() for flag in completions(""))


def test_an_unknown_option_is_named_and_not_its_value():
    with pytest.raises(UsageError, match=r"unrecognized arguments: --gpu\. Did you mean --gpus\?"):
        parse_line("--gpu 1")


@pytest.mark.parametrize(
    ("line", "expression"),
    [
        ("--map x=xs", "x=xs"),
        ("--map=x=xs --wait", "x=xs"),
        ("score --map x=[1, 2, (3, 'a b')] --cpus 2", "x=[1, 2, (3, 'a b')]"),
        ("--map path=glob.glob('data/*.csv') --quiet", "path=glob.glob('data/*.csv')"),
        ('--map "x=a if b else c" --quiet', "x=a if b else c"),
        ("--map 'x = xs'", "x=xs"),
        (r"--map x=f('it\'s ]') --quiet", r"x=f('it\'s ]')"),
        ("--map d={'k': [1]} -o y", "d={'k': [1]}"),
        ("--map x=xs[1:] --map y=ys", "y=ys"),
    ],
)
def test_the_expression_of_a_batch_is_python_as_it_stands(line, expression):
    assert parse_line(line).options.map == expression


@given(st.text("ab1 ()[]{}'\"\\,=*-", max_size=30))
def test_no_expression_breaks_the_line(text):
    try:
        options = parse_line(f"score --map x={text} --cpus 3").options
    except UsageError:
        return
    assert options.map.startswith("x=")
    if options.map == f"x={text}":
        assert options.resources.cpus == 3
