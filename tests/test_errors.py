# SPDX-License-Identifier: Apache-2.0
"""The tree of errors: codes, exit statuses, messages, and what survives a pipe between processes."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight import errors
from shipsight.errors import ShipsightError


def tree(root: type[ShipsightError]) -> list[type[ShipsightError]]:
    """The classes of `errors` below and with a class; other modules may add none."""
    return [root, *(each for child in root.__subclasses__() for each in tree(child))]


CLASSES = sorted(set(tree(ShipsightError)), key=lambda kind: kind.__name__)
# Who must act decides; a class below may only differ where it is named here itself.
EXIT_CODES = {
    errors.ShipsightError: 2,
    errors.InputError: 2,
    errors.ArtefactError: 2,
    errors.TamperedError: 1,
    errors.AnswerIsNoError: 1,
    errors.EnvironmentLackError: 3,
    errors.LimitError: 2,
    errors.AccessError: 1,
    errors.ServiceError: 1,
    errors.InternalError: 70,
}
texts = st.text(max_size=40)
fields = st.fixed_dictionaries(
    {},
    optional={
        "where": texts | st.integers(),
        "expected": texts | st.tuples(st.integers(), st.integers()),
        "got": texts | st.floats(allow_nan=False),
        "hint": texts,
    },
)


def test_every_class_is_public_and_stands_in_the_module() -> None:
    assert sorted(errors.__all__) == [kind.__name__ for kind in CLASSES]
    assert all(getattr(errors, kind.__name__) is kind for kind in CLASSES)


def test_every_class_has_a_code_of_its_own() -> None:
    own = {kind: kind.__dict__.get("code") for kind in CLASSES}
    assert all(isinstance(code, str) and re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in own.values()), own
    assert len(set(own.values())) == len(CLASSES)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_exit_code_is_that_of_the_branch(kind: type[ShipsightError]) -> None:
    branch = next(parent for parent in kind.__mro__ if parent in EXIT_CODES)
    assert kind.exit_code == EXIT_CODES[branch]
    assert ("exit_code" in kind.__dict__) == (kind is ShipsightError or EXIT_CODES.get(kind, 2) != 2)


def drawn() -> dict[str, tuple[str, set[int]]]:
    """The tree in the module's docstring: class -> its parent there, and the exit statuses of its branch."""
    found: dict[str, tuple[str, set[int]]] = {}
    stack: list[tuple[int, str, set[int]]] = []
    block = (errors.__doc__ or "").split("\n\n")[1]
    for line in block.splitlines():
        names = list(re.finditer(r"\b[A-Z]\w*Error\b", line))
        depth = names[0].start()
        while stack and stack[-1][0] >= depth:
            stack.pop()
        said = re.search(r"exit ([\d or]+)$", line)
        exits = {int(number) for number in re.findall(r"\d+", said[1])} if said else stack[-1][2] if stack else set()
        grouped = re.search(r"\((\w+Error)\)", line)
        parent = grouped[1] if grouped else stack[-1][1] if stack else ""
        for name in names:
            found[name[0]] = (parent if name[0] != parent else stack[-1][1], exits)
        stack.append((depth, names[0][0], exits))
    return found


def test_tree_of_the_docstring_names_every_class_under_its_parent_with_its_exit_code() -> None:
    said = drawn()
    assert sorted(said) == [kind.__name__ for kind in CLASSES]
    for kind in CLASSES:
        parent, exits = said[kind.__name__]
        if kind is ShipsightError:
            assert parent == ""
            continue
        assert kind.__base__ is not None
        assert parent == kind.__base__.__name__, kind
        assert kind.exit_code in exits, kind


@pytest.mark.parametrize(
    ("given_fields", "message"),
    [
        ({}, "the file is damaged"),
        ({"where": "a.onnx"}, "a.onnx: the file is damaged"),
        ({"expected": 3}, "the file is damaged; expected 3"),
        ({"got": (1, 2)}, "the file is damaged; got (1, 2)"),
        ({"hint": "Try again."}, "the file is damaged. Try again."),
        (
            {"where": "a", "expected": "x", "got": "y", "hint": "Do z."},
            "a: the file is damaged; expected x; got y. Do z.",
        ),
        ({"expected": "", "got": 0}, "the file is damaged; expected ; got 0"),
    ],
    ids=["what", "where", "expected", "got", "hint", "all", "empty-and-zero"],
)
def test_message_is_built_from_the_fields(given_fields: dict[str, object], message: str) -> None:
    assert str(errors.CorruptError("the file is damaged", **given_fields)) == message


@given(kind=st.sampled_from(CLASSES), what=texts, given_fields=fields)
def test_fields_survive_to_dict_and_pickling(
    kind: type[ShipsightError], what: str, given_fields: dict[str, object]
) -> None:
    error = kind(what, **given_fields)
    told = error.to_dict()
    expected = {key: str(given_fields[key]) if key in given_fields else None for key in EXPECTED_FIELDS}
    assert told == {"code": kind.code, "what": what, **expected}
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.to_dict(), str(copy), copy.args) == (told, str(error), error.args)


EXPECTED_FIELDS = ("where", "expected", "got", "hint")


def test_where_stands_out_of_what_so_that_machines_can_read_it() -> None:
    error = errors.TensorError("another shape", where="images", expected=(1, 2), got=(3,))
    assert error.to_dict() == {
        "code": "tensor",
        "what": "another shape",
        "where": "images",
        "expected": "(1, 2)",
        "got": "(3,)",
        "hint": None,
    }
