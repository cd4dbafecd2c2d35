"""The documentation says what the code does: links, examples, lists of options, verbs, settings, errors.

``python -m tests.test_docs`` writes anew what is made from the code: settings, options, the map of modules.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from traitlets import Enum

import jupyter_rayoffload
from jupyter_rayoffload import api, cli, cluster_verbs, config, errors, magics, options, traits
from jupyter_rayoffload.job import Job
from jupyter_rayoffload.models import Choice, Profile, ProfileField
from jupyter_rayoffload.profiles import apply
from tests.kernel_client import Kernel
from tests.ray_fixture import RayCluster, jupyter_environment
from tests.test_layers import LAYERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
GUIDE = ROOT / "docs" / "user-guide.md"
SETTINGS = ROOT / "docs" / "settings.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CLUSTERS = ROOT / "docs" / "clusters.md"
ADMINISTRATORS = ROOT / "docs" / "administrators.md"
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


class Block(NamedTuple):
    """A fenced block, with the comment in front of it that says what is to be done with it."""

    language: str
    text: str
    mark: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Give the fenced blocks of a page, in order."""
    text = page.read_text()
    pattern = re.compile(r"^(?:<!-- (run[^>]*?) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
    return [
        Block(found[2], found[3], found[1] or "", text.count("\n", 0, found.start()) + 1)
        for found in pattern.finditer(text)
    ]


def prose(page: Path) -> str:
    """Give a page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def section(page: Path, title: str) -> str:
    """Give the part of a page under a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page.read_text(), re.M | re.S)
    assert found, f"{page.name} has no section {title!r}"
    return found[1]


# ---------------------------------------------------------------------- form


@each_page
def test_no_tabs_and_no_spaces_at_line_ends(page: Path) -> None:
    for number, line in enumerate(page.read_text().split("\n"), 1):
        assert "\t" not in line, f"{page.name}:{number} has a tab"
        assert line == line.rstrip(), f"{page.name}:{number} ends with spaces"
    assert page.read_text().endswith("\n")


def anchors(page: Path) -> set[str]:
    """Give the anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def targets(page: Path) -> Iterator[str]:
    """Give what the links and pictures of a page lead to."""
    text = prose(page)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in targets(page):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}: no such heading"


def test_commands_of_make_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.M))
        assert named <= known, f"{page.name} names make {named - known}"


# ---------------------------------------------------------------------- examples


def compiled(source: str) -> None:
    """Compile a cell as IPython would, and what stands below a magic line too."""
    first, _, rest = source.partition("\n")
    if first.startswith("%%"):
        if first.startswith("%%ray_job"):
            options.parse_line(first.removeprefix("%%ray_job"))
        return compiled(rest)
    text = TransformerManager().transform_cell(source)  # type: ignore[no-untyped-call]
    compile(text, "<example>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@each_page
def test_python_examples_compile(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            try:
                compiled(block.text)
            except Exception as error:
                pytest.fail(f"{page.name}:{block.line}: {error}\n{block.text}")


@pytest.mark.ray
@pytest.mark.kernel
@pytest.mark.timeout(600)
def test_examples_of_the_guide_give_what_it_says(ray_cluster: RayCluster, tmp_path: Path) -> None:
    """All of them in one notebook, in order, as somebody would who reads the page."""
    places = ray_cluster.backend.places
    environment = {
        **jupyter_environment(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(places.connection.parent),
        "JUPYTER_DATA_DIR": str(places.data.parent.parent),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "RAYOFFLOAD_OWNER": ray_cluster.connection.owner,
    }
    folder = tmp_path / "notebook"
    folder.mkdir()
    page = blocks(GUIDE)
    checked = 0
    with Kernel(folder, environment) as kernel:
        for block, after in zip(page, [*page[1:], None], strict=True):
            if not block.mark:
                continue
            run = kernel.run(block.text, timeout=120, headless=False)
            where = f"{GUIDE.name}:{block.line}\n{block.text}"
            raises = block.mark.partition("raises ")[2]
            if raises:
                assert run.reply.get("ename") == raises, where
                continue
            run.check()
            if after is not None and after.language == "text":
                assert f"{run.stdout}{run.value or ''}".strip() == after.text.strip(), where
                checked += 1
    assert checked >= 8


# ---------------------------------------------------------------------- lists


def options_table() -> str:
    """Make the table of options from the code."""
    rows = ["| on the line | in Python | what |", "|---|---|---|"]
    for action in options._PARSER._actions:
        flags = ", ".join(action.option_strings) or "NAME"
        metavar = f" {action.metavar}" if action.option_strings and action.metavar else ""
        if action.nargs == "+":
            metavar += " ..."
        keyword = {"resource": "resources", "label": "label"}.get(action.dest, action.dest)
        in_python = f"`{keyword}`" if keyword in options._READERS or keyword == "label" else ""
        rows.append(f"| `{flags}{metavar}` | {in_python} | {cell(action.help or '')} |")
    return "\n".join(rows) + "\n"


def parameters(model: type) -> Iterator[tuple[str, str]]:
    """Give name and text of what a class's docstring says of its parameters."""
    said = inspect.cleandoc(model.__doc__ or "").partition("----------\n")[2]
    for found in re.finditer(r"^(\w+) : .*\n((?:    .*\n?)*)", said, re.M):
        yield found[1], found[2].replace("``", "`")


def profiles_tables() -> str:
    """Make the description of profiles from the models."""
    parts = []
    for model, title in (
        (Profile, "A profile"),
        (ProfileField, "One of its `fields`"),
        (Choice, "One of a field's `choices`"),
    ):
        names = [name for name, _ in parameters(model)]
        assert names and set(names) == {f.name for f in dataclasses.fields(model)}, model
        rows = [f"| {title} has | which is |", "|---|---|"]
        rows += [f"| `{name}` | {cell(text)} |" for name, text in parameters(model)]
        parts.append("\n".join(rows) + "\n")
    return "\n" + "\n".join(parts) + "\n"


def with_profiles(text: str) -> str:
    """Put the description of profiles into the page of clusters."""
    return written(text, "profiles", profiles_tables())


def cell(text: str) -> str:
    """Make text fit for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def default_text(name: str, trait: Any) -> str:
    """Say what a setting is when nobody sets it."""
    value = trait.default_value
    if name in ("owner",) or value in (None, "", {}) or not isinstance(value, (str, int, float, bool)):
        return ""
    if isinstance(trait, traits.Size) and isinstance(value, int):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("MB", 10**6)):
            if value % size == 0:
                return f"`{value // size}{unit}`"
    if isinstance(trait, traits.Duration) and isinstance(value, int):
        return f"`{value // 60}m`" if value % 60 == 0 else f"`{value}s`"
    return f"`{value}`"


def settings_page() -> str:
    """Make the page of settings from the code."""
    rows = []
    for name in [n for n in vars(config.RayOffload) if n in config.RayOffload.class_trait_names(config=True)]:
        trait = config.RayOffload.class_traits()[name]
        assert trait.help, f"setting {name} has no help"
        words = (
            f" One of {', '.join(f'`{v}`' for v in trait.values or ())}." if isinstance(trait, Enum) else ""
        )
        rows.append(f"| `{name}` | {default_text(name, trait)} | {cell(trait.help + words)} |")
    table = "\n".join(rows)
    return f"""# Settings

Made from the code by `python -m tests.test_docs`. [The user guide](user-guide.md#settings) says where
settings are set. In a configuration file they are `c.RayOffload.NAME`, in the environment
`RAYOFFLOAD_NAME` (in capitals), in a notebook `%ray config NAME=VALUE`. Sizes may be written as
`8GiB` or `500MB`, durations as `90s`, `15m` or `2h`.

| setting | default | what |
|---|---|---|
{table}
"""


def modules_table() -> str:
    """Make the map of modules from the first lines of their docstrings."""
    package = Path(jupyter_rayoffload.__file__).parent
    rows = ["| module | what |", "|---|---|"]
    for path in sorted(package.rglob("*.py"), key=lambda p: (len(p.relative_to(package).parts), p)):
        said = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0].rstrip(".")
        said = re.sub(r":\w+:`\.?([^`]*)`", r"`\1`", said).replace("``", "`")
        rows.append(f"| `{path.relative_to(package).as_posix()}` | {cell(said)} |")
    return "\n".join(rows) + "\n"


def written(text: str, what: str, table: str) -> str:
    """Put a table between its marks."""
    begin, end = f"<!-- {what}: written by python -m tests.test_docs -->\n", "<!-- end -->"
    head, found, rest = text.partition(begin)
    assert found, f"the mark of {what} is gone"
    return f"{head}{begin}{table}{end}{rest.partition(end)[2]}"


def with_options(text: str) -> str:
    """Put the table of options into the guide."""
    return written(text, "options", options_table())


def with_modules(text: str) -> str:
    """Put the order of imports and the map of modules into the architecture."""
    names = [", ".join(n for n in layer if n != "__init__") for layer in LAYERS]
    return written(
        written(text, "layers", "```\n" + "\n".join(names) + "\n```\n"), "modules", modules_table()
    )


def test_options_are_those_of_the_code() -> None:
    assert GUIDE.read_text() == with_options(GUIDE.read_text()), "run: python -m tests.test_docs"


def test_settings_are_those_of_the_code() -> None:
    assert SETTINGS.read_text() == settings_page(), "run: python -m tests.test_docs"


def test_profiles_are_described_as_they_are() -> None:
    assert CLUSTERS.read_text() == with_profiles(CLUSTERS.read_text()), "run: python -m tests.test_docs"


def test_the_example_of_profiles_can_be_used(tmp_path: Path) -> None:
    [example] = [b for b in blocks(ADMINISTRATORS) if b.language == "yaml" and "caps:" in b.text]
    file = tmp_path / "profiles.yaml"
    file.write_text(example.text)
    small, large, gpu = config.RayOffload.load(profiles_file=str(file)).cluster_profiles()
    assert small.default and apply(small).groups[0].replicas == 1
    chosen = apply(large, {"workers": "8", "image": "torch", "memory": "18GiB"})
    assert (chosen.groups[0].replicas, chosen.image) == (8, "registry.example/ray-torch:2.60.0-py311")
    with pytest.raises(errors.UsageError, match="may have 160 GiB of memory in all"):
        apply(large, {"workers": 8, "memory": "32GiB"})
    assert apply(gpu).groups[0].pod.node_selector == {"example.com/gpu": "a100"}


@each_page
def test_no_option_is_invented(page: Path) -> None:
    """Whatever looks like an option of the magic, or a variable of a setting, is one."""
    known = set(options._PARSER._option_string_actions)
    for line in re.findall(r"%%ray_job[^`\n|]*", page.read_text()):
        assert set(re.findall(r"(?<!\S)--[a-z-]+", line)) <= known, f"{page.name}: {line}"
    settings = {f"RAYOFFLOAD_{n.upper()}" for n in config.RayOffload.class_trait_names(config=True)}
    variables = set(re.findall(r"RAYOFFLOAD_[A-Z_]+[A-Z]", page.read_text()))
    of_jobs = {"RAYOFFLOAD_INPUT", "RAYOFFLOAD_OUTPUT", "RAYOFFLOAD_NAME", "RAYOFFLOAD_ALL_CELLS"}
    assert variables <= settings | of_jobs, page.name
    for name in re.findall(r"c\.RayOffload\.(\w+)", page.read_text()):
        assert name in config.RayOffload.class_trait_names(config=True) or name == "NAME", page.name


def test_verbs_are_those_of_the_code() -> None:
    table = section(GUIDE, "The verbs of `%ray`")
    cells = re.findall(r"^\| ([^|]*) \|", table, re.M)[1:]
    verbs = {found[1] for text in cells for found in re.finditer(r"`%ray ([a-z]+)", text)}
    assert verbs == set(magics._VERBS)
    cluster_cells = " ".join(text for text in cells if "%ray cluster" in text)
    of_cluster = set(re.findall(r"`(?:%ray cluster )?([a-z]+)[ `]", cluster_cells)) - {"cluster"}
    assert of_cluster == set(cluster_verbs.CLUSTER_VERBS)
    for verb in verbs:
        assert hasattr(magics.OffloadMagics, f"_ray_{verb}")


def test_verbs_of_other_pages_exist() -> None:
    for page in PAGES:
        for verb in re.findall(r"%ray ([a-z]+)", page.read_text()):
            assert verb in magics._VERBS, f"{page.name} names %ray {verb}"


def terminal_verbs() -> set[str]:
    """Give the verbs of ``jupyter rayoffload``."""
    [verbs] = [a for a in cli._parser()._actions if a.dest != "help" and hasattr(a, "choices") and a.choices]
    return set(verbs.choices or ())


def test_terminal_verbs_are_those_of_the_code() -> None:
    named = set(re.findall(r"jupyter rayoffload ([a-z]+)", section(GUIDE, "Terminal")))
    assert named == terminal_verbs()
    for page in PAGES:
        for verb in re.findall(r"jupyter rayoffload ([a-z]+)", page.read_text()):
            assert verb in terminal_verbs(), f"{page.name} names jupyter rayoffload {verb}"


def test_errors_are_those_of_the_code() -> None:
    table = section(GUIDE, "When something fails")
    named = re.findall(r"^\| `(\w+)` \|", table, re.M)
    assert len(named) == len(set(named))
    assert set(named) == {n for n in errors.__all__ if inspect.isclass(getattr(errors, n))}


def test_public_names_are_in_the_guide() -> None:
    text = section(GUIDE, "Python")
    for name in api.__all__:
        assert f"`{name}(" in text or f"import {name}" in text, name
        parameters = [p for p in inspect.signature(getattr(api, name)).parameters if p != "function"]
        row = re.search(rf"^\| `{name}\((.*?)\)`", text, re.M)
        assert row, f"{name} has no row"
        told = re.findall(r"(?:^|, )\*{0,2}(\w+)", re.sub(r"=[^,]*", "", row[1]))
        assert (
            {"id": "job_id"}.get(told[0], told[0]) in parameters
            if told
            else not parameters or name == "cluster"
        )
    for name in [n for n in vars(Job) if not n.startswith("_")]:
        inner = {
            "end",
            "displays",
            "spool",
            "subscribe",
            "session",
            "settle",
            "values",
            "value",
            "absent",
            "cancel_soon",
            "let_go",
            "rerun_soon",
            "fetch",
            "thaw",
            "given",
        }
        assert name in inner or f"`{name}" in text, f"Job.{name} is not in the guide"
    for name in jupyter_rayoffload.__all__:
        assert name in text or name in ("__version__", "OffloadError", "RayOffload") or "ipython_ext" in name


def test_modules_are_those_of_the_package() -> None:
    assert ARCHITECTURE.read_text() == with_modules(ARCHITECTURE.read_text()), (
        "run: python -m tests.test_docs"
    )


if __name__ == "__main__":
    SETTINGS.write_text(settings_page())
    GUIDE.write_text(with_options(GUIDE.read_text()))
    CLUSTERS.write_text(with_profiles(CLUSTERS.read_text()))
    ARCHITECTURE.write_text(with_modules(ARCHITECTURE.read_text()))
