"""What a person reads who made a mistake in a YAML file, and what numbers mean."""

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Amount, Bytes, Count, Flag, Integer, Model, Share, human, load, parse_count, read_yaml
from pipeline.errors import ConfigError


class Leaf(Model):
    weight: Amount
    note: str = ""


class Tree(Model):
    name: str
    tokens: Count = 0
    size: Bytes = 0
    length: Integer = 0
    share: Share = 0.0
    fast: Flag = False
    tags: tuple[str, ...] = ()
    leaves: dict[str, Leaf] = {}  # noqa: RUF012
    first: Leaf | None = None


def tree(folder: Path, text: str | bytes) -> Tree:
    path = folder / "tree.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path, Tree)[0]


def complaint(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as error:
        tree(folder, text)
    return str(error.value).replace(f"{folder}/", "")


def test_a_good_file_is_read_with_its_numbers_exact(tmp_path: Path) -> None:
    found = tree(tmp_path, "name: x\ntokens: 5.133T\nsize: 325GB\nshare: 0.5%\nfast: true\nleaves: {a: {weight: 47.2}}\n")
    assert (found.tokens, found.size, found.share, found.fast) == (5_133_000_000_000, 325_000_000_000, 0.005, True)
    assert found.leaves["a"].weight == Fraction(472, 10)


def test_text_is_text_whatever_yaml_would_make_of_it(tmp_path: Path) -> None:
    for text in ("no", "1e10", "0123", "2024-01-01", "1:30", "true", "=", "1.10"):
        assert tree(tmp_path, f"name: {text}\n").name == text


def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path) -> None:
    assert tree(tmp_path, b"\xef\xbb\xbfname: x\r\ntokens: 1K\r\n").tokens == 1000


def test_every_mistake_is_reported_at_its_own_line(tmp_path: Path) -> None:
    found = complaint(tmp_path, "name: x\ntoken: 5\nleaves:\n  a: {wieght: 1}\nlength: 1.5\n").splitlines()
    assert sorted(found) == [
        "tree.yaml:2: token: unknown key; did you mean `tokens`?; allowed are name, tokens, size, length, share, fast, tags, leaves, first",
        "tree.yaml:4: leaves.a.weight: this key is missing",
        "tree.yaml:4: leaves.a.wieght: unknown key; did you mean `weight`?; allowed are weight, note",
        "tree.yaml:5: length: '1.5' is not a whole number from 0 to 2^62",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nname: y\n", "tree.yaml:2: name: the key stands here twice, first in line 1; remove one"),
        ("name: x\nfirst:\n  weight: 1\n  weight: 2\n", "tree.yaml:4: first.weight: the key stands here twice, first in line 3"),
        ("tokens: 1\n", "tree.yaml:1: name: this key is missing"),
        ("name:\n", "tree.yaml:1: name: expected text, found nothing"),
        ("name: [a]\n", "tree.yaml:1: name: expected text, found a list"),
        ("name: {a: b}\n", "tree.yaml:1: name: expected text, found keys and values"),
        ("name: x\ntags: a\n", "tree.yaml:2: tags: expected a list, found 'a'"),
        ("name: x\ntags:\n  - a\n  - [b]\n", "tree.yaml:4: tags[1]: expected text, found a list"),
        ("name: x\nleaves: [a]\n", "tree.yaml:2: leaves: expected keys and values, found a list"),
        ("name: x\nfirst: 3\n", "tree.yaml:2: first: expected keys and values, found '3'; allowed are weight, note"),
        ("name: x\ntokens: 3.86X\n", "tree.yaml:2: tokens: '3.86X' is not a number; write one such as 50M, 3.86T or 4096"),
        ("name: x\ntokens: 325GB\n", "tree.yaml:2: tokens: '325GB' is not a number"),
        ("name: x\nsize: 325G\n", "tree.yaml:2: size: '325G' is not a number; write one such as 325GB"),
        ("name: x\ntokens: -5\n", "tree.yaml:2: tokens: '-5' is not a number"),
        ("name: x\ntokens:\n", "tree.yaml:2: tokens: nothing is not a number"),
        ("name: x\ntokens: 9999999999T\n", "tree.yaml:2: tokens: '9999999999T' is not a whole number from 0 to 2^62"),
        ("name: x\nlength: 4K\n", "tree.yaml:2: length: '4K' is not a number; write one such as 4096"),
        ("name: x\nfirst: {weight: 0}\n", "tree.yaml:2: first.weight: '0' must be more than 0"),
        ("name: x\nshare: 100%\n", "tree.yaml:2: share: '100%' is not a share: at least 0 and less than 1"),
        ("name: x\nfast: yes\n", "tree.yaml:2: fast: 'yes' is neither true nor false"),
        ("", "tree.yaml:1: the file is empty"),
        ("# only a remark\n", "tree.yaml:1: the file is empty"),
        ("- a\n", "tree.yaml:1: expected keys and values, found a list"),
        ("name: x\nleaves:\n\ta: {weight: 1}\n", "tree.yaml:3: a tab stands where YAML wants spaces; indent with spaces"),
        ("name: x\nnote: a: b\n", "tree.yaml:2: not YAML: mapping values are not allowed here"),
        ("name: 'x\n", "tree.yaml:2: not YAML: found unexpected end of stream"),
        ("name: x\n---\nname: y\n", "tree.yaml:2: not YAML: but found another document"),
        (b"name: x\n# caf\xe9\n", "tree.yaml:2: byte 13 is not UTF-8; save the file as UTF-8"),
        (b"name: x\ntags: [\x00]\n", "tree.yaml:2: a control character that YAML does not allow"),
        ("name: &a x\ntags: [*a]\n", "tree.yaml:2: tags[0]: an alias (*name) is not allowed here; write the value out"),
        ("name: !!python/object/apply:os.getcwd []\n", "tree.yaml:1: name: the tag tag:yaml.org,2002:python/object/apply:os.getcwd"),
        ("name: x\n? [a, b]\n: c\n", "tree.yaml:1: a key must be a single word"),
        ("name: " + "[" * 5000, "tree.yaml:1: nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert complaint(tmp_path, text).startswith(expected)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")


def test_an_alias_bomb_is_refused_without_being_expanded(tmp_path: Path) -> None:
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 40))
    assert "an alias" in complaint(tmp_path, f"l0: &l0 x\n{levels}\n")


def test_a_path_inside_the_working_directory_is_shown_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree.yaml").write_text("name: [x]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^tree\.yaml:1: name"):
        load(tmp_path / "tree.yaml", Tree)


@pytest.mark.parametrize(
    ("text", "number"),
    [("50M", 50_000_000), ("10b", 10_000_000_000), ("10G", 10_000_000_000), ("3.86T", 3_860_000_000_000), ("1_000", 1000), (" 7 ", 7)],
)
def test_human_numbers(text: str, number: int) -> None:
    assert parse_count(text, "TOKENS") == number


@pytest.mark.parametrize("text", ["", "M", "1e9", "0x10", "1.5", "nan", "1__0", "５", "1,000"])
def test_a_bad_number_names_the_variable_that_holds_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^TOKENS: "):
        parse_count(text, "TOKENS")


@given(st.integers(0, 1 << 62))
def test_a_number_as_people_write_it_is_never_more_than_the_number(number: int) -> None:
    written = parse_count(human(number), "TOKENS")
    assert written <= number
    assert number - written <= number / 100


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_be_refused(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any.yaml"
        path.write_bytes(content)
        try:
            read_yaml(path)
        except ConfigError as error:
            assert str(error).startswith(f"{path}:")
