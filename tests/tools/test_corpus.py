from pathlib import Path

from tools.corpus import DOCUMENT_LIMIT, documents, installed


def named(texts: dict[str, str]) -> dict:
    return {name: (lambda text=text: text) for name, text in texts.items()}


def test_text_files_are_found_below_their_roots_names(tmp_path: Path) -> None:
    for name in ("a.py", "deep/b.RST", "deep/c.so", "__pycache__/d.py", "site-packages/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to("a.py")
    assert sorted(name for name, _ in installed({"root": tmp_path})) == ["root/a.py", "root/deep/b.RST"]


def test_each_content_comes_once_and_bad_files_not_at_all() -> None:
    texts = {"r/a.py": "same", "r/b.py": "same", "r/c.md": "other", "r/d.md": " \n", "r/e.txt": "é" * (DOCUMENT_LIMIT // 2 + 1)}
    found = list(documents(named(texts) | {"r/f.py": lambda: None}))
    assert sorted(document.text for document in found) == ["other", "same"]
    assert {document.text: document.kind for document in found} == {"same": "code", "other": "prose"}


def test_order_does_not_depend_on_the_order_of_finding_and_stops_at_the_limit() -> None:
    texts = {f"r/{i}.py": f"{i:04}" for i in range(500)}
    found = list(documents(named(texts)))
    assert found == list(documents(named(dict(reversed(texts.items())))))
    assert [document.id for document in found] != sorted(texts)
    assert list(documents(named(texts), limit=400)) == found[:100]
