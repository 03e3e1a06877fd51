from html.parser import HTMLParser

import pytest
from rich.console import Console

from drp_hf import preview
from drp_hf.row_encoder import RowEncoder
from drp_hf.step_weights import WeightRules

COMPLETION = "<think>\nTom has 3 apples & <b>4</b> pears.\n\nWait. So 7.\n</think>\n\nThe answer is 7."


def make_row():
    edges = [8, COMPLETION.index("Wait"), COMPLETION.index("So 7"), COMPLETION.index("\n</think>")]
    steps = [
        {"start": start, "end": end, "skill": "adding <up>", "action": action}
        for start, end, action in zip(edges, edges[1:], ("KEEP", "DELETE", "MERGE"), strict=False)
    ]
    content = [{"role": "assistant", "content": COMPLETION}]
    return {"prompt": [{"role": "user", "content": "How many?"}], "completion": content, "steps": steps}


@pytest.fixture(scope="module")
def view(smollm2_tokenizer):
    rules = WeightRules(loss_scope="masked-raw", deleted_unlikelihood=0.5, action_weights={"MERGE": 2, "KEEP": 0})
    return RowEncoder(smollm2_tokenizer, rules).preview(make_row())


def test_the_terminal_shows_every_token_with_its_weight(view):
    text = preview.to_text(view)
    plain = text.plain.replace("↵\n", "\n")
    for tag in ("prompt masked", "other ×1", "KEEP masked", "DELETE ×-0.5", "MERGE ×2", "think_close ×1", "stop ×1"):
        assert plain.count(f"[{tag}]") == 1
        plain = plain.replace(f"[{tag}]", "")
    assert plain.replace("[answer ×1]", "").endswith(f"<|im_start|>assistant\n{COMPLETION}<|im_end|>")
    masked = [span for span in text.spans if getattr(span.style, "dim", False)]
    assert len(masked) == sum(token.weight == 0 for token in view)


def test_the_table_adds_up(view):
    rows = {kind: rest for kind, *rest in preview.kind_rows(view)}
    assert sum(tokens for tokens, *_ in rows.values()) == len(view)
    assert sum(share for *_, share in rows.values()) == pytest.approx(1)
    assert rows["KEEP"][1:] == [0, 0, 0] and rows["MERGE"][2] == 2 * rows["MERGE"][0]
    console = Console(width=100, record=True, quiet=True)
    console.print(preview.to_table(view, "Row 1"))
    assert list(rows) == ["KEEP", "DELETE", "MERGE", "prompt", "think_close", "answer", "stop", "other"]


class Tokens(HTMLParser):
    """The text of the page's tokens, and their classes."""

    def __init__(self):
        super().__init__()
        self.texts, self.classes, self.titles, self._depth = [], [], [], 0

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "span":
            self._depth += 1
            self.texts.append("")
            self.classes.append(attributes["class"].split())
            self.titles.append(attributes["title"])

    def handle_endtag(self, tag):
        self._depth -= tag == "span"

    def handle_data(self, data):
        if self._depth:
            self.texts[-1] += data


def test_the_page_shows_every_token_with_its_weight(view):
    page = preview.to_html([("Row 1", view), ("Row 2", view)], "somewhere <here>")
    tokens = Tokens()
    tokens.feed(page)
    assert [text.replace("↵\n", "\n") for text in tokens.texts] == [token.text for token in view] * 2
    for classes, title, token in zip(tokens.classes, tokens.titles, view, strict=False):
        assert classes[0] == token.span.kind
        assert ("masked" in classes, "negative" in classes) == (token.weight == 0, token.weight < 0)
        assert title.startswith(token.span.kind) and (token.span.skill in title)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "somewhere &lt;here&gt;" in page
