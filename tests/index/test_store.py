"""The table: versions, the one writer, full text, an approximate index that finds what an exact search finds."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from paligemma.errors import CheckpointError, InputError, ResourceError, UsageError
from paligemma.index import store
from paligemma.index.entries import Facts
from paligemma.index.store import Index, folder_of, writing
from tests.index.making import ColourEncoder, entry, facts, unit

pytest.importorskip("lancedb")


def paths(index: Index, matches) -> list[str]:
    return [entry.path for entry in index.entries([match.row for match in matches])]


def test_a_reader_stays_with_its_version(tmp_path):
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(n) for n in range(3)])
        reader = Index.open(tmp_path)
        before = reader.nearest(entry(1).vector, 3)
        writer.replace([entry(1, path="elsewhere.png")])
        writer.delete(["id0"])
        writer.add([entry(3)])
        writer.tidy()
        assert reader.count() == 3
        assert paths(reader, reader.nearest(entry(1).vector, 3)) == paths(reader, before)
        assert paths(reader, before)[0] == "1.png"
        reader.refresh()
        assert reader.version == writer.version
        assert paths(reader, reader.nearest(entry(1).vector, 1)) == ["elsewhere.png"]
        assert {row["path"] for row in reader.columns(["path"])} == {"elsewhere.png", "2.png", "3.png"}


def test_similarities_are_cosines_the_highest_first(tmp_path):
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(n) for n in range(30)])
        asked = unit(np.ones((1, 8)))[0] * 7
        found = writer.nearest(asked, 30)
    exact = sorted((float(entry(n).vector @ asked) / np.linalg.norm(asked) for n in range(30)), reverse=True)
    assert [match.score for match in found] == pytest.approx(exact, abs=1e-5)


COMMON = ("cat", "dog", "man", "door", "city", "sea", "face", "die")
"""English and German words that are stop words of other languages."""


def test_full_text_before_and_after_upkeep(tmp_path):
    with writing(tmp_path, facts()) as writer:
        writer.add(
            [
                entry(1, captions={"en": "two owls on a tree", "zh": "猫头鹰、绿心和鱼"}, text="TO LET"),
                entry(2, captions={"en": "an owl"}),
                *(entry(10 + i, captions={"en": f"a {word} by the bell"}) for i, word in enumerate(COMMON)),
                entry(3),
            ]
        )
        for _ in range(2):
            assert set(paths(writer, writer.matching("owls", "words", 9))) == {"1.png", "2.png"}
            assert paths(writer, writer.matching("绿心", "words", 9)) == ["1.png"]
            assert paths(writer, writer.matching("let", "text", 9)) == ["1.png"]
            assert paths(writer, writer.matching("to", "text", 9)) == ["1.png"], "no word of printed text is too common to look for"
            assert paths(writer, writer.matching("let", "words", 9)) == ["1.png"], "read text is part of what words are looked for in"
            assert writer.matching("owl", "text", 9) == []
            for i, word in enumerate(COMMON):
                assert paths(writer, writer.matching(word, "words", 9)) == [f"{10 + i}.png"], word
            writer.tidy()


@pytest.mark.parametrize("place", ["file", "memory"])
def test_other_places_by_the_same_code(place, tmp_path):
    where = f"file://{tmp_path}/a%20b" if place == "file" else "memory://"
    with writing(where, facts()) as writer:
        writer.add([entry(1), entry(2)])
        assert paths(writer, writer.nearest(entry(2).vector, 1)) == ["2.png"]
    if place == "file":
        assert folder_of(where) == tmp_path / "a b"
        assert Index.open(tmp_path / "a b").count() == Index.open(where).count() == 2


def test_what_an_object_store_refuses_is_not_called_damage():
    with (
        pytest.raises(ResourceError, match=r"s3://album/x: the object store cannot be used \(no region\)") as refused,
        store.told("s3://album/x"),
    ):
        raise OSError("no region, /home/somebody/lance-io-13.0.0/src/object_store/aws.rs:312:18")
    assert "AWS_REGION" in str(refused.value.hint)


@pytest.mark.parametrize("number", [13, 24, 5])
def test_passing_trouble_is_not_called_damage(number):
    for error in (
        OSError(f"LanceError(IO): Generic LocalFileSystem error: Too many (os error {number}), x.rs:12"),
        PermissionError(number),
    ):
        with pytest.raises(ResourceError, match="cannot be used now") as refused, store.told("album"):
            raise error
        assert "overwrite" not in str(refused.value.hint)


def test_versions_that_cannot_be_listed_are_not_called_missing(tmp_path, monkeypatch):
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(1)])

    def refusing(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(store.os, "listdir", refusing)
    with pytest.raises(ResourceError, match="cannot be used now"):
        Index.open(tmp_path)


def test_one_writer(tmp_path):
    code = (
        "import sys; from paligemma.index.store import writing; from tests.index.making import facts\n"
        "with writing(sys.argv[1], facts()): pass"
    )
    with writing(tmp_path, facts()), pytest.raises(UsageError, match="another process is writing") as refused, writing(tmp_path, facts()):
        pass
    assert refused.value.code == "index_in_use"
    with writing(tmp_path, facts()):
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
        assert "index_in_use" in done.stderr or "another process is writing" in done.stderr
    with writing(tmp_path, facts()):
        pass


def test_another_encoders_vectors_are_refused(tmp_path):
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(1)])
    for other in (Facts("colours-2", 8, "", "/pictures"), Facts(ColourEncoder.name, 7, "", "/pictures")):
        with pytest.raises(CheckpointError, match="made by colours-1"), writing(tmp_path, other):
            pass
    with writing(tmp_path, Facts("colours-2", 7, "", "/pictures"), overwrite=True) as writer:
        assert (writer.count(), writer.facts.dimensions) == (0, 7)


def test_an_index_of_another_folder_is_refused_unless_that_folder_moved(tmp_path):
    old, new, where = tmp_path / "old", tmp_path / "new", tmp_path / "index"
    old.mkdir()
    with writing(where, facts(old)) as writer:
        writer.add([entry(1)])
    with pytest.raises(UsageError, match="the index of"), writing(where, facts(new)):
        pass
    old.rename(new)
    with writing(where, facts(new)) as writer:
        assert (writer.facts.root, writer.count()) == (str(new), 1)
    assert Index.open(where).facts.root == str(new)


def test_a_reader_goes_on_with_an_index_that_moved_or_was_made_anew(tmp_path):
    with writing(tmp_path, facts("/old")) as writer:
        writer.add([entry(1)])
    reader = Index.open(tmp_path)
    moved = Facts(ColourEncoder.name, 8, "/elsewhere/colours", "/new")
    with writing(tmp_path, moved) as writer:
        assert writer.facts == moved
    reader.refresh()
    assert (reader.facts, reader.count()) == (moved, 1)
    other = Facts("colours-2", 8, "", "/new")
    with writing(tmp_path, other, overwrite=True):
        pass
    reader.refresh()
    assert (reader.facts, reader.count()) == (other, 0)


def test_what_is_no_index(tmp_path):
    import lancedb

    with pytest.raises(InputError, match="no index here"):
        Index.open(tmp_path)
    with pytest.raises(InputError, match="no index here"):
        Index.open(tmp_path / "nowhere")
    lancedb.connect(tmp_path).create_table(store.NAME, [{"a": 1}])
    with pytest.raises(CheckpointError, match="is not an index"):
        Index.open(tmp_path)


def test_damage_is_said_to_be_damage(tmp_path):
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(n) for n in range(9)])
    data = next((tmp_path / "pictures.lance" / "data").iterdir())
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="cannot be used") as refused:
        Index.open(tmp_path).nearest(entry(1).vector, 1)
    assert refused.value.code == "bad_index"
    for manifest in (tmp_path / "pictures.lance" / "_versions").iterdir():
        manifest.write_bytes(b"no manifest")
    with pytest.raises(CheckpointError):
        Index.open(tmp_path)


def test_a_creation_that_was_killed_is_made_again(tmp_path):
    (tmp_path / "pictures.lance" / "_versions").mkdir(parents=True)
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(1)])
    assert Index.open(tmp_path).count() == 1


def test_vectors_of_any_length_can_be_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGE", 300)
    vectors = unit(np.random.default_rng(0).standard_normal((400, 5)))
    with writing(tmp_path, Facts("fives", 5, "", "/pictures")) as writer:
        writer.add([entry(n, vector) for n, vector in enumerate(vectors)])
        writer.tidy()
        assert "vector" in writer._indexed
        assert paths(writer, writer.nearest(vectors[7], 1)) == ["7.png"]


@pytest.mark.parametrize("dimensions", [8, store.MANY], ids=["eight bits", "one bit"])
def test_the_approximate_index_takes_in_what_comes_later(dimensions, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGE", 300)
    monkeypatch.setattr(store, "ROWS_A_PARTITION", 200)
    vectors = unit(np.random.default_rng(0).standard_normal((2600, dimensions)))
    rows = [entry(n, vector) for n, vector in enumerate(vectors)]
    with writing(tmp_path, Facts("any", dimensions, "", "/pictures")) as writer:
        writer.add(rows[:600])
        writer.tidy()
        kinds = {one.columns[0]: one.index_type for one in writer.table.list_indices()}
        assert kinds["vector"].upper().replace("_", "") == ("IVFRQ" if dimensions == store.MANY else "IVFSQ")
        assert writer._trained() == 600
        writer.add(rows[600:900])
        writer.delete([f"id{n}" for n in range(100)])
        for _ in range(2):
            right = 0
            for asked in range(0, 900, 90):
                exact = set(100 + np.argsort(-vectors[100:900] @ vectors[asked])[:10])
                right += len(exact & {int(path.removesuffix(".png")) for path in paths(writer, writer.nearest(vectors[asked], 10))})
            # Its training begins with chance: 82 to 100 in 132 builds. Where too few are compared again it is 43 to 65 the second time.
            assert right >= 70, "directions without topics are the hardest there are"
            writer.tidy()
        assert writer._trained() == 600, "it was made anew for a few rows more"
        writer.add(rows[900:])
        writer.tidy()
        assert writer._trained() == 2500


@pytest.mark.parametrize("few", [0, 2000], ids=["by the index", "one by one"])
def test_the_few_that_meet_a_condition_are_found_wherever_they_lie(few, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "FEW", few)
    monkeypatch.setattr(store, "LARGE", 300)
    monkeypatch.setattr(store, "ROWS_A_PARTITION", 20)
    monkeypatch.setattr(store, "PROBES", 2)
    vectors = unit(np.random.default_rng(0).standard_normal((2000, 8)))
    with writing(tmp_path, facts()) as writer:
        writer.add([entry(n, vector) for n, vector in enumerate(vectors)])
        writer.tidy()
        wanted = {f"{n}.png" for n in range(0, 2000, 100)}
        condition = "path IN (" + ", ".join(f"'{path}'" for path in sorted(wanted)) + ")"
        for asked in vectors[:5]:
            found = writer.nearest(asked, 20, condition)
            assert set(paths(writer, found)) == wanted
            assert len(writer.nearest(asked, 20, "path != '0.png'")) == 20
            assert [match.score for match in found] == sorted((match.score for match in found), reverse=True)
            assert len(writer.nearest(asked, 20)) == 20
