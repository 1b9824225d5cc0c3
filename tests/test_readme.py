"""The README is true: its commands parse, its Python runs, its output is what comes out, its file tree is the real one.

`python -m tests.test_readme` writes the file tree anew.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import textwrap
from pathlib import Path

import pytest

from paligemma.cli import COMMANDS, build_app, main

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "paligemma"
README = ROOT / "README.md"
DEMO_PICTURES = PACKAGE / "bundled" / "demo"


def region(name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- end -->`."""
    found = re.search(rf"<!-- {re.escape(name)} -->\n(.*?)<!-- end -->", README.read_text(encoding="utf-8"), re.S)
    assert found, f"README.md has no region {name!r}"
    return found[1].strip("\n")


def indented(text: str) -> list[str]:
    """The lines of indented code blocks."""
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def tree() -> str:
    """Every module with the first sentence of its docstring; small folders of one idea as a whole."""
    lines = ["```", "src/paligemma/"]
    lines += [_line(path, "  ") for path in sorted(PACKAGE.glob("*.py")) if path.stem != "__init__"]
    for folder in sorted(path.parent for path in PACKAGE.glob("*/__init__.py")):
        lines.append(_line(folder / "__init__.py", "  ", f"{folder.name}/"))
        lines += [_line(path, "    ") for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return "\n".join([*lines, "```"])


def _line(path: Path, indent: str, name: str = "") -> str:
    told = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
    sentence = textwrap.shorten(re.split(r"(?<=[.!?])\s", told)[0].rstrip("."), 105, placeholder=" ...")
    return f"{indent}{name or path.name:<{28 - len(indent)}} {sentence}"


def test_the_file_tree_is_the_real_one():
    assert region("tree") == tree(), "write it anew: python -m tests.test_readme"


def test_every_module_says_what_it_is():
    assert [line for line in tree().splitlines() if line.strip().endswith((".py", "/"))] == ["src/paligemma/"]


def commands() -> list[str]:
    found = [line for line in indented(README.read_text(encoding="utf-8")) if line.startswith("paligemma ")]
    return [line.split(" > ")[0] for line in found]


def test_the_readme_shows_the_commands():
    shown = {shlex.split(command)[1] for command in commands()}
    assert {"caption", "ask", "detect", "segment", "ocr", "run", "pull", "doctor"} <= shown
    assert shown <= {name for group in COMMANDS.values() for name in group}


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_can_be_called_so(command: str):
    build_app().parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    picture = next(DEMO_PICTURES.glob("*.png"))
    shutil.copy(picture, "photo.jpg")  # what a file is, its content says
    exec(compile(code, "README.md", "exec"), {})
    assert '"type": "detections"' in capsys.readouterr().out
    assert (tmp_path / "boxes.png").is_file()


def test_the_demo_prints_what_the_readme_shows(tmp_path, monkeypatch, capsys):
    shown = [line for line in indented(region("output: make demo")) if line.strip()]
    assert len(shown) > 10
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    printed = [without_numbers(line) for line in capsys.readouterr().out.splitlines()]
    place = 0
    for line in shown:
        if line.strip() == "...":
            continue
        assert without_numbers(line) in printed[place:], f"the demo does not print (here): {line}"
        place = printed.index(without_numbers(line), place) + 1
    assert place == len(printed), "the README does not show the last line"
    assert (tmp_path / "paligemma-demo" / "index.html").is_file()


def without_numbers(line: str) -> str:
    """Scores and coordinates differ in their last digit from machine to machine."""
    return re.sub(r"\d+", "#", line.rstrip())


def test_the_shown_test_run_passed():
    (line,) = indented(region("output: make test"))
    assert re.fullmatch(r"\d+ passed(, \d+ \w+)* in [\d.]+s( \([\d:]+\))?", line)
    assert "failed" not in line


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
)
def test_links_lead_somewhere(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)[^)]*\)|(?:src|href)=\"([^\"#]+)\"", text)
    local = [link for pair in links for link in pair if link and "://" not in link]
    assert [link for link in local if not ((ROOT / document).parent / link).exists()] == []


def test_the_places_to_change_things_exist():
    text = README.read_text(encoding="utf-8")
    table = text[text.index("| to change | go to |") :].split("\n\n")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", table)
    assert len(named) >= 9
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_make_offers_what_the_readme_names():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert {line.split()[1] for line in indented(README.read_text(encoding="utf-8")) if line.startswith("make ")} <= targets


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(
        re.sub(r"(<!-- tree -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}\n{tree()}\n\n{m[2]}", text, flags=re.S), encoding="utf-8"
    )
