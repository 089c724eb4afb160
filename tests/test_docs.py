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


@pytest.mark.long
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


# OWASP ASVS 5.0.0: section -> the level of each of its requirements, in order. Numbers and levels alone, from the release's table.
ASVS_LEVELS = {
    "1.1": "22", "1.2": "1111122223", "1.3": "112222222223", "1.4": "222", "1.5": "123",
    "2.1": "122", "2.2": "112", "2.3": "12223", "2.4": "23",
    "3.1": "3", "3.2": "113", "3.3": "12223", "3.4": "11222233", "3.5": "11122333", "3.6": "3", "3.7": "22333",
    "4.1": "12233", "4.2": "23333", "4.3": "22", "4.4": "1222",
    "5.1": "2", "5.2": "112333", "5.3": "113", "5.4": "222",
    "6.1": "122", "6.2": "111111112222", "6.3": "11223333", "6.4": "112233", "6.5": "22222333", "6.6": "2223", "6.7": "33", "6.8": "2222",
    "7.1": "222", "7.2": "1111", "7.3": "22", "7.4": "11222", "7.5": "223", "7.6": "22",
    "8.1": "1233", "8.2": "1123", "8.3": "133", "8.4": "23",
    "9.1": "111", "9.2": "1222",
    "10.1": "22", "10.2": "223", "10.3": "22223", "10.4": "1111122222233333", "10.5": "22222", "10.6": "22", "10.7": "222",
    "11.1": "2233", "11.2": "22233", "11.3": "11233", "11.4": "1222", "11.5": "23", "11.6": "23", "11.7": "33",
    "12.1": "12233", "12.2": "11", "12.3": "22223",
    "13.1": "2333", "13.2": "222223", "13.3": "2233", "13.4": "1222233",
    "14.1": "22", "14.2": "12223333", "14.3": "122",
    "15.1": "12233", "15.2": "12233", "15.3": "1222222", "15.4": "3333",
    "16.1": "2", "16.2": "22222", "16.3": "2222", "16.4": "222", "16.5": "2223",
    "17.1": "23", "17.2": "22223333", "17.3": "22",
}  # fmt: skip


def asvs_rows() -> list[tuple[list[str], str, str]]:
    """Returns the rows of the page: which requirements, their levels as written, what is said of them."""
    page = (REPOSITORY / "docs" / "security" / "asvs.md").read_text(encoding="utf-8")
    rows = []
    for which, levels, state in re.findall(r"^\| (\d[\d., to]+?) \| ([123, to]+) \| ([^|]+?) \| ", page, re.MULTILINE):
        numbers = []
        for part in which.split(", "):
            first, _, last = part.partition(" to ")
            section, _, begin = first.rpartition(".")
            end = int((last or first).rpartition(".")[2])
            assert not last or last.startswith(f"{section}."), part
            numbers += [f"{section}.{one}" for one in range(int(begin), end + 1)]
        rows.append((numbers, levels, state))
    return rows


def test_asvs_page_has_each_requirement_once_with_its_level() -> None:
    levels = {f"{section}.{at}": one for section, all_ in ASVS_LEVELS.items() for at, one in enumerate(all_, 1)}
    assert [list(levels.values()).count(one) for one in "123"] == [70, 183, 92]
    rows = asvs_rows()
    told = [number for numbers, _, _ in rows for number in numbers]
    assert len(told) == len(set(told))
    assert set(told) <= set(levels)
    assert {number for number, level in levels.items() if level != "3"} - set(told) == set()
    for numbers, written, _ in rows:
        expected = sorted({levels[number] for number in numbers})
        assert written in (", ".join(expected), f"{expected[0]} to {expected[-1]}"), numbers


def test_asvs_page_sums_up_what_its_rows_say() -> None:
    page = (REPOSITORY / "docs" / "security" / "asvs.md").read_text(encoding="utf-8")
    summary = page.partition("**Not met**")[2].partition("## V1 ")[0]
    below = {
        number
        for numbers, levels, state in asvs_rows()
        if levels != "3" and state not in ("met", "does not apply")
        for number in numbers
    }
    assert set(re.findall(r"\d+\.\d+\.\d+", summary)) == below


def test_documentation_speaks_of_this_project_alone() -> None:
    for page in PAGES:
        assert "/" + "work/" not in page.read_text(encoding="utf-8"), page
