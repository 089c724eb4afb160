# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does: options, errors, links, examples in Python."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from shipsight import errors
from shipsight.cli import GROUPS, make_app

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted(
    page
    for page in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("examples/**/*.md"))
    if page.is_file()
)
VERBS = ("build", "inspect", "verify", "predict", "evaluate", "bench", "serve", "promote", "rollback", "watch")


def options_of(verb: str) -> set[str]:
    """Returns the long options of a verb, as the command line itself declares them."""
    group = typer.main.get_command(make_app())
    assert hasattr(group, "commands")
    command = group.commands[verb]
    return {name for parameter in command.params for name in parameter.opts if name.startswith("--")} - {"--help"}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def shown_commands() -> list[tuple[str, str]]:
    """Returns every `shipsight ...` line of the documentation, with the page it stands on."""
    found = []
    for page in PAGES:
        indented = re.findall(r"^    (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        fenced = [
            line for language in ("sh", "console") for text in blocks(page, language) for line in text.splitlines()
        ]
        for line in (*indented, *(line.removeprefix("$ ") for line in fenced)):
            if line.startswith("shipsight ") and "[options]" not in line:  # a synopsis is no command
                found.append((page.name, re.split(r"  #| [>|] ", line)[0].strip()))
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_command_page_lists_exactly_the_options_of_the_command(verb: str) -> None:
    page = (REPOSITORY / "docs" / "commands" / f"{verb}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--[a-z0-9-]+)(?: [A-Z]+)?` \| (.+?) \| .+ \|$", page, re.MULTILINE)
    assert {option for option, _ in rows} == options_of(verb)
    assert len(rows) == len(options_of(verb)), "an option stands twice"
    page = re.sub(r"curl .*", "", page)  # another program's options
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", page))
    assert shown == options_of(verb) | (shown & {"--json"}), "the page speaks of another command's option"


def commands_of(group: str) -> dict[str, typer.core.TyperCommand]:
    """Returns the verbs under a group, as the command line itself declares them."""
    root = typer.main.get_command(make_app([group]))
    assert hasattr(root, "commands")
    return dict(root.commands[group].commands)


@pytest.mark.parametrize("group", GROUPS)
def test_page_of_a_group_has_a_section_for_each_of_its_commands(group: str) -> None:
    page = (REPOSITORY / "docs" / "commands" / f"{group}.md").read_text(encoding="utf-8")
    assert set(re.findall(rf"^## shipsight {group} ([a-z-]+)$", page, re.MULTILINE)) == set(commands_of(group))


@pytest.mark.parametrize(("group", "verb"), [(group, verb) for group in GROUPS for verb in commands_of(group)])
def test_section_lists_exactly_the_options_of_its_command_with_their_defaults(group: str, verb: str) -> None:
    page = (REPOSITORY / "docs" / "commands" / f"{group}.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", page.partition(f"## shipsight {group} {verb}\n")[2], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(--[a-z0-9-]+)(?: [A-Z]+)?` \| (.+?) \| .+ \|$", section, re.MULTILINE)
    options = {
        parameter.opts[0]: parameter.default
        for parameter in commands_of(group)[verb].params
        if parameter.opts[0].startswith("--") and parameter.opts[0] != "--help"
    }
    assert [option for option, _ in rows] == [option for option, _ in rows if option in options]
    assert len(rows) == len(options)
    for option, written in rows:
        if options[option] is False:
            assert written == "off", option
        elif options[option] is None:
            assert not re.fullmatch(r"off|`[\d.]+`", written), option
        else:
            assert written == f"`{options[option]}`", option


@pytest.mark.parametrize("verb", VERBS)
def test_command_page_states_each_default_of_the_command(verb: str) -> None:
    page = (REPOSITORY / "docs" / "commands" / f"{verb}.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"^\| `(--[a-z0-9-]+)(?: [A-Z]+)?` \| (.+?) \| .+ \|$", page, re.MULTILINE))
    group = typer.main.get_command(make_app())
    assert hasattr(group, "commands")
    for parameter in group.commands[verb].params:
        option = next((name for name in parameter.opts if name.startswith("--")), None)
        if option is None or option == "--help":
            continue
        if parameter.default is False:
            assert written[option] == "off", option
        elif parameter.default is None:
            assert not re.fullmatch(r"off|`[\d.]+`", written[option]), option
        else:
            assert written[option] == f"`{parameter.default}`", option


def test_every_verb_has_a_page() -> None:
    group = typer.main.get_command(make_app())
    assert hasattr(group, "commands")
    pages = {page.stem for page in (REPOSITORY / "docs" / "commands").glob("*.md")}
    assert pages == set(group.commands)


def test_shown_commands_parse() -> None:
    commands = shown_commands()
    assert len(commands) >= 25
    group = typer.main.get_command(make_app())
    assert hasattr(group, "commands")
    for page, line in commands:
        _, verb, *rest = shlex.split(line)
        assert verb in group.commands, f"{page}: {line}"
        command = group.commands[verb]
        if verb in GROUPS:
            if rest in (["COMMAND", "[options]"], []):
                continue
            assert rest[0] in command.commands, f"{page}: {line}"
            command = command.commands[rest.pop(0)]
        command.make_context(verb, list(rest))


def test_errors_page_equals_the_tree_of_errors() -> None:
    page = (REPOSITORY / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \| (\d+) \| \S.* \| \S.* \|$", page, re.MULTILINE)
    listed = set(rows)
    assert len(rows) == len(listed)
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert listed == {(kind.code, kind.__name__, str(kind.exit_code)) for kind in kinds}
    assert len({kind.code for kind in kinds}) == len(kinds), "a code names one class"


def test_errors_exported_are_all_errors_defined() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ShipsightError)
    }
    assert set(errors.__all__) == defined


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_inside_the_project_resolve(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page if not path else (page.parent / path)
        assert linked.exists(), f"{page.name} links {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{page.name} links {target}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_python_examples_use_names_that_exist(page: Path) -> None:
    import shipsight

    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "shipsight":
                assert hasattr(shipsight, node.attr), f"shipsight.{node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shipsight"):
                module = __import__(str(node.module), fromlist=[alias.name for alias in node.names])
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a build on two busy cores
def test_getting_started_commands_run_in_order_on_the_sample(sample_dir: Path, tmp_path: Path) -> None:
    page = REPOSITORY / "docs" / "getting-started.md"
    lines = [
        line for block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ shipsight ")
    ]
    verbs = [shlex.split(line)[2] for line in lines]
    assert verbs == ["build", "inspect", "verify", "predict", "bench"]
    sample = tmp_path / "examples" / "digits"
    sample.mkdir(parents=True)
    shutil.copy(sample_dir / "digits.onnx", sample)
    for line in lines:
        command = [sys.executable, "-m", *shlex.split(line)[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "digits.bundle" / "report.html").is_file()
    assert list((tmp_path / "drawn").glob("*.jpg"))


def test_tests_that_security_pages_name_are_there() -> None:
    named = set()
    for page in (REPOSITORY / "docs" / "security").glob("*.md"):
        named |= set(re.findall(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", page.read_text(encoding="utf-8")))
    assert len(named) > 100
    for file, name in sorted(named):
        assert re.search(rf"def {name}\(", (REPOSITORY / "tests" / file).read_text(encoding="utf-8")), f"{file}::{name}"


def test_documentation_speaks_of_this_project_alone() -> None:
    for page in PAGES:
        assert "/" + "work/" not in page.read_text(encoding="utf-8"), page
