import pytest
from datasets import Dataset

from drp_hf.records import CORPUS_FEATURES, Action, CorpusRow, Step, Trace, final_response, render_output


def a_row() -> CorpusRow:
    steps = [
        Step(0, 4, "addition", Action.KEEP),
        Step(4, 9, "recap", Action.COMPRESS, "So 4."),
        Step(9, 12, "x", Action.DELETE),
    ]
    return CorpusRow("2+2?", "4", "2+2 is 4. Ok", "4", "m", steps, "2+2 So 4.", "…", 9, 5, "t", True, "fall-back: x")


def test_a_row_survives_a_round_trip_through_arrow(tmp_path):
    rows = [a_row(), CorpusRow("q", "1", "", "", "m", reason="empty reasoning")]
    path = tmp_path / "rows.parquet"
    Dataset.from_list([row.to_dict() for row in rows], features=CORPUS_FEATURES).to_parquet(path)
    back = Dataset.from_parquet(str(path), features=CORPUS_FEATURES, cache_dir=str(tmp_path / "cache"))
    assert [CorpusRow.from_dict(row) for row in back] == rows
    assert back.features == CORPUS_FEATURES


def test_the_dictionary_holds_every_column_in_order_and_plain_values():
    row = a_row().to_dict()
    assert list(row) == list(CORPUS_FEATURES)
    assert [type(step["action"]) for step in row["steps"]] == [str] * 3


def test_an_unknown_action_is_an_error():
    row = a_row().to_dict()
    row["steps"][0]["action"] = "SHORTEN"
    with pytest.raises(ValueError, match="SHORTEN"):
        CorpusRow.from_dict(row)


def test_text_forms():
    assert render_output("a", "b") == "<think>\na\n</think>\n\nb"
    assert Trace("q", "1", "a", "b").output == render_output("a", "b")
    assert final_response("42") == "The answer is 42."
