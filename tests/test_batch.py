"""The batch API: everything is submitted once, whatever happens, and comes to the rows that a chat comes to."""

import json
import re
import ssl
from collections import Counter
from functools import cache, partial

import pytest

from benchmarks.chat_server import ChatServer, Refusal
from benchmarks.rule_teacher import answer as rule
from drp_hf.errors import DRPError
from drp_hf.pruning import FALLBACK, Reason, prune
from drp_hf.records import CorpusRow, Trace
from drp_hf.store import RowStore
from drp_hf.teachers import batch as batch_module
from drp_hf.teachers.asking import Replies, Tally
from drp_hf.teachers.batch import BATCHES, BatchAsker
from drp_hf.teachers.chat import ChatAsker
from drp_hf.teachers.language_model import LanguageModelTeacher
from drp_hf.teachers.slicing import SlicingTeacher

TRACES = {
    f"row {n}": Trace(
        f"What is {n} + 3?",
        str(n + 3),
        f"So {n} + 3 = {n + 3}. Wait, let me check that: {n} + 3 = {n + 3}. The answer is {n + 3}.",
        f"It is {n + 3}.",
    )
    for n in range(2, 9)
}


def count(text: str) -> int:
    return len(text.split())


TEACHER = LanguageModelTeacher("teacher", count, fallback=SlicingTeacher())
STRICT = LanguageModelTeacher("teacher", count)


@pytest.fixture(autouse=True)
def _one_tls_context(monkeypatch):
    """A client reads all certificates, which takes longer than most tests here; nothing here is encrypted."""
    monkeypatch.setattr(ssl, "create_default_context", certificates)


certificates = cache(ssl.create_default_context)


class Rows:
    """A corpus in the making, of which final rows survive a stop."""

    def __init__(self, folder, teacher=TEACHER, traces=TRACES) -> None:
        self.path = folder / "replies.sqlite"
        self.teacher = teacher
        self.traces = traces
        self.final: dict[str, CorpusRow] = {}
        self.provisional: dict[str, CorpusRow] = {}
        self.finished: Counter[str] = Counter()

    def __iter__(self):
        for key, trace in self.traces.items():
            if key not in self.final:
                yield key, partial(prune, trace, self.teacher, count)

    def finish(self, key: str, row: CorpusRow, final: bool) -> None:
        self.finished[key] += 1
        (self.final if final else self.provisional)[key] = row

    def make(self, asker, prepare=lambda store: None, model="teacher") -> Tally:
        """Runs an asker on the rows that are not there, with the replies that are on disk."""
        tally = Tally()
        with RowStore(self.path, remakeable=True) as store:  # a power cut is not what is tested
            prepare(store)
            asker.run(self, Replies(store, model, tally), self.finish)
        return tally


def asker_of(server: ChatServer, model: str = "teacher", **settings) -> BatchAsker:
    return BatchAsker(model, server.url, poll_seconds=0.001, **{"requests_per_batch": 3} | settings)


def submitted(server: ChatServer) -> list[list[str]]:
    """The custom ids of every batch, in order."""
    files = [state["batch"]["input_file_id"] for state in server._batches.batches.values()]
    lines = [map(json.loads, server._batches.contents[file].splitlines()) for file in files]
    return [[line["custom_id"] for line in batch] for batch in lines]


def sometimes_bad(body: dict) -> str:
    """Answers as the rule teacher does, but badly at first about 4 and about 7."""
    first = len(body["messages"]) == 2
    return "no" if first and re.search(r"What is [47] ", body["messages"][1]["content"]) else rule(body)


@pytest.fixture(scope="module")
def chatted(tmp_path_factory) -> dict[str, CorpusRow]:
    """What asking in a chat comes to."""
    rows = Rows(tmp_path_factory.mktemp("chat"))
    with ChatServer(sometimes_bad) as server:
        rows.make(ChatAsker("teacher", server.url))
    assert len(rows.final) == len(TRACES) and all(row.accepted and not row.reason for row in rows.final.values())
    assert all("check" not in row.pruned_reasoning for row in rows.final.values())
    return rows.final


def test_several_files_and_a_second_round(tmp_path, chatted):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad) as server:
        tally = rows.make(asker_of(server))
        assert rows.make(asker_of(server)).replies == 0
    batches = submitted(server)
    assert [len(batch) for batch in batches] == [3, 3, 1, 2]
    assert len({each for batch in batches for each in batch}) == len(TRACES) + 2
    assert rows.final == chatted and not rows.provisional and set(rows.finished.values()) == {1}
    assert (tally.replies, tally.replayed, tally.failures, tally.unanswered, tally.status) == (9, 0, 0, 0, "")
    assert tally.input_tokens > 9 * 100 and tally.output_tokens > 9 * 5
    assert server.asked_after_completion == 0
    with RowStore(rows.path) as store:
        assert store.get(BATCHES) == {}


def test_files_are_bounded_in_bytes_too(tmp_path, chatted):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad) as server:
        rows.make(asker_of(server, bytes_per_batch=1, requests_per_batch=100))
    assert [len(batch) for batch in submitted(server)] == [1] * 9 and rows.final == chatted


def test_the_same_request_is_submitted_once(tmp_path):
    rows = Rows(tmp_path, traces={f"{key} {n}": trace for key, trace in TRACES.items() for n in range(2)})
    with ChatServer(rule) as server:
        rows.make(asker_of(server, requests_per_batch=1))
    assert len(submitted(server)) == len(TRACES) and len(rows.final) == 2 * len(TRACES)
    assert server.asked_after_completion == 0


def test_schemas_go_along_where_they_are_wanted(tmp_path):
    for wanted in (True, False):  # one store: a reply without a schema is none to a request with one
        teacher = LanguageModelTeacher("teacher", count, structured_outputs=wanted)
        with ChatServer(rule) as server:
            Rows(tmp_path, teacher).make(asker_of(server))
        lines = [line for content in server._batches.contents.values() for line in content.splitlines()]
        asked = [json.loads(line) for line in lines if b'"messages"' in line and b'"method"' in line]
        assert len(asked) == len(TRACES) and all(("response_format" in line["body"]) == wanted for line in asked)


# --------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("error", ["500", "expired"])
def test_errors_are_asked_again(tmp_path, chatted, error):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad, batch_error_rate=0.5, batch_errors=[error], seed=3) as server:
        tally = rows.make(asker_of(server, max_attempts=20))
    assert rows.final == chatted and not rows.provisional
    assert tally.failures == server.outcomes[error] > 2 and tally.unanswered == 0
    assert server.asked_after_completion == 0


def test_expired_batches_are_asked_again(tmp_path, chatted):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad, batch_ends=["expired", "expired", "completed", "expired"]) as server:
        tally = rows.make(asker_of(server))
    assert rows.final == chatted and tally.failures == server.outcomes["expired"] >= 2
    assert server.asked_after_completion == 0


def test_what_broke_off_is_asked_again(tmp_path, chatted):
    asked = Counter()

    def overloaded(body: dict) -> str | tuple[str, str]:
        asked[json.dumps(body)] += 1
        if "What is 5 " in body["messages"][1]["content"] and asked[json.dumps(body)] < 4:
            return "[", "insufficient_system_resource"
        return sometimes_bad(body), "eos"

    rows = Rows(tmp_path)
    with ChatServer(overloaded) as server:
        tally = rows.make(asker_of(server, max_attempts=2))
        assert rows.provisional.keys() == {"row 5"} and (tally.replies, tally.failures) == (8, 2)
        assert "broke off, with finish_reason 'insufficient_system_resource'" in rows.provisional["row 5"].reason
        rows.make(asker_of(server, max_attempts=2))
    assert rows.final == chatted


def failing_for(number: int):
    def answer(body: dict) -> str:
        if f"What is {number} " in body["messages"][1]["content"]:
            raise RuntimeError("no teacher for this")
        return rule(body)

    return answer


@pytest.mark.parametrize("per_batch", [1, 3, 100])
def test_a_request_is_given_up_after_so_many_batches(tmp_path, per_batch):
    """Also where its file is the same each time."""
    rows = Rows(tmp_path, STRICT)
    with ChatServer(failing_for(5)) as server:
        tally = rows.make(asker_of(server, max_attempts=3, requests_per_batch=per_batch))
    times = Counter(each for batch in submitted(server) for each in batch)
    assert sorted(times.values()) == [1] * 6 + [3]
    assert set(rows.provisional) == {"row 5"} and len(rows.final) == 6 and set(rows.finished.values()) == {1}
    reason = rows.provisional["row 5"].reason
    assert reason.startswith(f"{Reason.NO_PROPOSAL}: the teacher gave no answer (") and "no teacher for this" in reason
    assert (tally.failures, tally.unanswered, tally.replies) == (3, 1, 6)


def test_what_was_given_up_is_asked_again_by_the_next_run(tmp_path):
    rows = Rows(tmp_path)
    with ChatServer(failing_for(5)) as server:
        rows.make(asker_of(server, max_attempts=2))
        row = rows.provisional["row 5"]
        assert row.accepted and row.reason.startswith(f"{FALLBACK}: slicing-default: the teacher gave no answer")
        server.answer = rule
        before = len(submitted(server))
        tally = rows.make(asker_of(server, max_attempts=2))
        assert [len(batch) for batch in submitted(server)[before:]] == [1]
    assert rows.final.keys() == TRACES.keys() and rows.final["row 5"].reason == ""
    assert (tally.replies, tally.unanswered) == (1, 0) and server.asked_after_completion == 0


def refusing(*numbers: int):
    def answer(body: dict) -> str:
        if any(f"What is {number} " in body["messages"][1]["content"] for number in numbers):
            raise Refusal(400, "This model's maximum context length is 8192 tokens.")
        return rule(body)

    return answer


def test_what_is_refused_is_submitted_once_and_final(tmp_path):
    rows = Rows(tmp_path, STRICT)
    with ChatServer(refusing(5)) as server:
        tally = rows.make(asker_of(server, requests_per_batch=1))
        assert rows.make(asker_of(server)).failures == 0
        assert [len(batch) for batch in submitted(server)] == [1] * 7
        assert rows.final.keys() == TRACES.keys() and "maximum context length" in rows.final["row 5"].reason
        assert (tally.replies, tally.failures, tally.unanswered) == (6, 1, 0)

        rows.final.pop("row 5")  # as if the run had been stopped before
        rows.make(asker_of(server))
        assert len(submitted(server)) == 8 and rows.final.keys() == TRACES.keys()


def test_many_refusals_in_a_run_without_any_answer_are_not_final(tmp_path, monkeypatch):
    """It may be another server, or other settings, than those with which there were answers."""
    monkeypatch.setattr(batch_module, "FEW_REFUSALS", 3)
    rows = Rows(tmp_path, traces={"row 2": TRACES["row 2"]})
    with ChatServer(refusing(*range(3, 9))) as server:
        rows.make(asker_of(server))
        rows.traces = TRACES
        rows.make(asker_of(server))
        assert rows.final.keys() == {"row 2"} and len(rows.provisional) == 6
        server.answer = rule
        rows.make(asker_of(server))
    assert rows.final.keys() == TRACES.keys() and not any(row.reason for row in rows.final.values())


def test_where_everything_is_refused_one_round_is_enough(tmp_path):
    rows = Rows(tmp_path)
    with ChatServer(refusing(*range(9))) as server:
        with pytest.raises(DRPError, match="no request was answered .This model's maximum context length"):
            rows.make(asker_of(server))
        assert server.attempts == len(TRACES) and not rows.finished
        server.answer = rule
        rows.make(asker_of(server))
    assert rows.final.keys() == TRACES.keys()


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (Refusal(401, "Incorrect API key.", "invalid_api_key"), "the server refuses the key .*: correct OPENAI_API"),
        (Refusal(402, "Insufficient Balance"), "no quota left .Insufficient Balance.*add credit and start again"),
        (Refusal(403, "Not for your country."), "the server refuses the key .Not for your country"),
        (Refusal(404, "It does not exist.", "model_not_found"), "no model 'teacher', or is none .*: correct --model"),
        (Refusal(429, "You exceeded your current quota.", "insufficient_quota"), "no quota left .You exceeded"),
    ],
)
def test_what_no_further_request_can_mend_is_told_after_one_round(tmp_path, chatted, refusal, message):
    """Whatever was answered before is kept, in the same file and in others; started again, the rest is submitted."""

    def broken(body: dict) -> str:
        if any(f"What is {number} " in body["messages"][1]["content"] for number in (3, 5)):
            raise refusal
        return rule(body)

    rows = Rows(tmp_path)
    with ChatServer(broken, batch_polls=1) as server:
        with pytest.raises(DRPError, match=message):
            rows.make(asker_of(server))
        assert [len(batch) for batch in submitted(server)] == [3, 3, 1] and server.completed == 5
        server.answer = rule
        tally = rows.make(asker_of(server))
    assert rows.final == chatted and (tally.replayed, tally.replies) == (5, 2)
    assert server.asked_after_completion == 0 and server.outcomes["refused"] == 2


def test_everything_fails(tmp_path):
    rows = Rows(tmp_path)
    with ChatServer(rule, batch_error_rate=1) as server:
        with pytest.raises(DRPError, match="no request was answered .*mend that and start again"):
            rows.make(asker_of(server, max_attempts=2))
    assert not rows.finished and server.attempts == 2 * len(TRACES)


def test_a_model_that_takes_neither_max_tokens_nor_a_temperature(tmp_path, chatted):
    """What is learnt of it holds after a stop, too."""

    def reasoner(body: dict) -> str:
        for name in ("max_tokens", "temperature"):
            if name in body:
                raise Refusal(400, f"Unsupported: '{name}'.", "unsupported_parameter", param=name)
        assert body["max_completion_tokens"] == 4096
        return sometimes_bad(body)

    rows = Rows(tmp_path)
    with ChatServer(reasoner) as server:
        asker = asker_of(server, max_attempts=1)
        retrieve = asker.client.batches.retrieve

        def until_the_third_round(identity: str):
            if len(submitted(server)) == 9:
                raise Stopped
            return retrieve(identity)

        asker.client.batches.retrieve = until_the_third_round
        with pytest.raises(Stopped):
            rows.make(asker)
        rows.make(asker_of(server, max_attempts=1))
    assert [len(batch) for batch in submitted(server)] == [3, 3, 1] * 3 + [2]
    assert rows.final == chatted and server.outcomes["refused"] == 2 * len(TRACES)


def test_a_failed_batch_says_why_and_can_be_started_again(tmp_path, chatted):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad) as server:
        read = server._batches._read
        error = {"code": "invalid_request", "message": "No such endpoint", "param": None, "line": 1}
        server._batches._read = lambda batch: ([], [error])
        with pytest.raises(DRPError, match=r"the batch batch_\w+ is failed \(No such endpoint"):
            rows.make(asker_of(server, requests_per_batch=100))
        server._batches._read = read
        rows.make(asker_of(server, requests_per_batch=100))
    assert rows.final == chatted and server.asked_after_completion == 0
    assert [len(batch) for batch in submitted(server)] == [7, 7, 2]


def test_one_run_forgets_all_that_was_cancelled(monkeypatch, tmp_path, chatted):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad) as server:
        with monkeypatch.context() as patched:
            asker = asker_of(server)
            stops = Stops(patched, asker, rows, None, "before Batches.retrieve")
            with pytest.raises(Stopped):
                rows.make(asker, stops.store)
        for identity in server._batches.batches:
            asker_of(server).client.batches.cancel(identity)
        with pytest.raises(DRPError, match=r"the batch batch_\w+ is cancelled"):
            rows.make(asker_of(server))
        with RowStore(rows.path) as store:
            assert store.get(BATCHES) == {}
        rows.make(ChatAsker("teacher", server.url))
    assert rows.final == chatted and len(submitted(server)) == 3


def test_an_account_with_few_tokens_gets_smaller_files_one_at_a_time(tmp_path, chatted):
    rows = Rows(tmp_path)
    under_way = []
    with ChatServer(sometimes_bad, batch_ends=["failed", "failed"]) as server:
        create = server._batches._create

        def noted(body: dict):
            states = [state["batch"]["status"] for state in server._batches.batches.values()]
            under_way.append(sum(status not in batch_module.OVER for status in states))
            return create(body)

        server._batches._create = noted
        rows.make(asker_of(server, requests_per_batch=4))
    assert rows.final == chatted and server.asked_after_completion == 0
    sizes = [len(batch) for batch in submitted(server)]
    assert sizes[:2] == [4, 3] and set(sizes[2:]) <= {1, 2} and sum(sizes[2:]) == 9
    assert under_way == [0, 1] + [0] * (len(sizes) - 2)


@pytest.mark.parametrize(
    ("reject", "message"),
    [
        ("key", "the server refuses the key .*: correct OPENAI_API_KEY"),
        ("quota", "no quota left"),
        ("bad", "the batch API answers .*Unsupported value.*: start again later"),
    ],
)
def test_a_refusing_server(tmp_path, chatted, reject, message):
    rows = Rows(tmp_path)
    with ChatServer(sometimes_bad, reject=reject) as server:
        asker = asker_of(server)
        asker.client = asker.client.with_options(max_retries=0)
        with pytest.raises(DRPError, match=message):
            rows.make(asker)
        assert not submitted(server)
        server.reject = None
        rows.make(asker_of(server))
    assert rows.final == chatted


def test_replies_may_hold_line_separators(tmp_path):
    """JSON may hold them as they are, and then no line ends there."""

    def separated(body: dict) -> str:
        return rule(body).replace("combined arithmetic", "combined\u2028arith\x85metic")

    rows = Rows(tmp_path)
    with ChatServer(separated) as server:
        add = server._batches._add_file

        def unescaped(name: str, purpose: str, content: bytes):
            lines = [json.dumps(json.loads(line), ensure_ascii=False) for line in content.decode().split("\n") if line]
            return add(name, purpose, "".join(f"{line}\n" for line in lines).encode())

        server._batches._add_file = unescaped
        rows.make(asker_of(server))
        assert any("\u2028".encode() in content for content in server._batches.contents.values())
    assert len(rows.final) == len(TRACES)
    assert {step.skill for row in rows.final.values() for step in row.steps} > {"combined arith metic"}


# ----------------------------------------------------------------------------------------------------------- resume


class Stopped(BaseException):
    """As if the process had ended here."""


class Stops:
    """Ends a run right before or after its n-th event: a call of the API, a write to the disk, a row, a pause.

    Or at the first event called `last`.
    """

    def __init__(self, monkeypatch, asker: BatchAsker, rows: Rows, at: int | None, last: str = "") -> None:
        self.left = at
        self.last = last
        self.events: list[str] = []
        calls = [(asker.client.files, name) for name in ("create", "content")]
        calls += [(asker.once.batches, "create"), *((asker.client.batches, name) for name in ("list", "retrieve"))]
        for part, name in calls:
            monkeypatch.setattr(part, name, self.around(f"{type(part).__name__}.{name}", getattr(part, name)))
        monkeypatch.setattr(batch_module.time, "sleep", self.around("sleep", lambda seconds: None))
        monkeypatch.setattr(rows, "finish", self.around("finish", rows.finish))

    def store(self, store: RowStore) -> None:
        store.put_many = self.around("put", store.put_many)

    def around(self, name: str, function):
        def stopping(*args, **kwargs):
            self.event(f"before {name}")
            result = function(*args, **kwargs)
            self.event(f"after {name}")
            return result

        return stopping

    def event(self, name: str) -> None:
        self.events.append(name)
        if self.left == 0 or name == self.last:
            raise Stopped(name)
        if self.left is not None:
            self.left -= 1


def stopped_run(monkeypatch, folder, at: int | None, **settings) -> tuple[Rows, ChatServer, list[str]]:
    """A run that ends at an event, and one that starts again; of both together, rows and server."""
    folder.mkdir()
    rows = Rows(folder, traces=dict(list(TRACES.items())[1:6]))
    with ChatServer(sometimes_bad, batch_polls=2, **settings) as server, monkeypatch.context() as patched:
        asker = asker_of(server)
        stops = Stops(patched, asker, rows, at)
        try:
            rows.make(asker, stops.store)
        except Stopped:
            patched.undo()
            rows.make(asker_of(server))
    return rows, server, stops.events


def test_stopped_at_any_point_and_started_again(monkeypatch, tmp_path, chatted):
    monkeypatch.setattr(batch_module, "LINES_AT_ONCE", 2)
    rows, undisturbed, events = stopped_run(monkeypatch, tmp_path / "undisturbed", None)
    expected = {key: chatted[key] for key in rows.traces}
    assert rows.final == expected
    assert [len(batch) for batch in submitted(undisturbed)] == [3, 2, 2]
    assert {event.partition(" ")[2] for event in events} == {
        *("Files.create", "Files.content", "Batches.create", "Batches.retrieve", "sleep", "finish", "put")
    }
    for at, event in enumerate(events):
        rows, server, _ = stopped_run(monkeypatch, tmp_path / str(at), at)
        assert rows.final == expected and not rows.provisional, event
        assert len(submitted(server)) == len(submitted(undisturbed)), event
        custom_ids = [each for batch in submitted(server) for each in batch]
        assert sorted(custom_ids) == sorted(each for batch in submitted(undisturbed) for each in batch), event
        assert server.asked_after_completion == 0, event


@pytest.mark.parametrize("last", ["before Batches.create", "after Batches.create"])
def test_stopped_twice_while_submitting_the_same_again(monkeypatch, tmp_path, chatted, last):
    """A file that was refused or that failed as a whole is submitted again as it was: its batches stay apart."""
    rows = Rows(tmp_path, traces={"row 2": TRACES["row 2"]})
    with ChatServer(rule, batch_ends=["failed"]) as server:
        with pytest.raises(DRPError, match="is failed"):
            rows.make(asker_of(server))
        with monkeypatch.context() as patched:
            asker = asker_of(server)
            stops = Stops(patched, asker, rows, None, last)
            with pytest.raises(Stopped):
                rows.make(asker, stops.store)
        rows.make(asker_of(server))
    assert len(submitted(server)) == 2 and rows.final == {"row 2": chatted["row 2"]}
    assert server.asked_after_completion == 0


@pytest.mark.parametrize("last", ["after Batches.create", "before Batches.retrieve"])
def test_another_model_gets_its_own_answers(monkeypatch, tmp_path, last):
    """The batches of the model before stay under way, and are fetched when that is asked again."""

    def signed(body: dict) -> str:
        return rule(body).replace("combined arithmetic", f"arithmetic of {body['model']}")

    def skills(rows: Rows) -> set[str]:
        return {step.skill for row in rows.final.values() for step in row.steps} - {"checking a result"}

    first, other = Rows(tmp_path), Rows(tmp_path)
    with ChatServer(signed) as server:
        with monkeypatch.context() as patched:
            asker = asker_of(server)
            stops = Stops(patched, asker, first, None, last)
            with pytest.raises(Stopped):
                first.make(asker, stops.store)
        tally = other.make(asker_of(server, model="other"), model="other")
        assert other.final.keys() == TRACES.keys() and skills(other) == {"arithmetic of other"}
        assert (tally.replies, tally.replayed) == (7, 0)
        tally = first.make(asker_of(server))
    assert first.final.keys() == TRACES.keys() and skills(first) == {"arithmetic of teacher"}
    assert (tally.replies, tally.replayed, server.asked_after_completion) == (7, 0, 0)
    assert sum(map(len, submitted(server))) == 2 * len(TRACES)


def test_batches_of_others_are_left_alone(tmp_path, monkeypatch, chatted):
    """Another run with the same traces on the same account submits the same lines; each fetches its own."""
    with ChatServer(rule) as server:
        one, other = Rows(tmp_path / "one"), Rows(tmp_path / "other")
        with monkeypatch.context() as patched:
            asker = asker_of(server)
            patched.setattr(asker.once.batches, "create", lambda **_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                one.make(asker)
        other.make(asker_of(server))
        client = asker_of(server).client
        client.batches.create(
            input_file_id=client.files.create(file=("x.jsonl", b'{"custom_id": "x"}'), purpose="batch").id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
        )
        one.make(asker_of(server))
    assert one.final == other.final and len(one.final) == len(TRACES)
    assert len(submitted(server)) == 3 + 1 + 3
