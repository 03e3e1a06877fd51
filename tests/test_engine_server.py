"""The server engine, against a server on loopback that writes with the transformers engine."""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from benchmarks.chat_server import ChatServer
from drp_hf import servers
from drp_hf.answering import AnsweringModel, Request
from drp_hf.commands.generating import GenerationArguments, check_generation
from drp_hf.engines import Completion, Sampling, make_engine
from drp_hf.engines.server import ChatEngine, CompletionsEngine, Server, read_chat, read_completion
from drp_hf.errors import DRPError
from drp_hf.servers import FEW_REFUSALS

MODEL = "smollm2-embedded"
QUESTIONS = ["Hi", "What is 2+3?", "Name a colour."]
KEY = "sk-secret-0123456789abcdef"


class Loopback(ThreadingHTTPServer):
    """Serves an engine's model as an OpenAI-compatible server does: `/models`, `/completions`, `/chat/completions`.

    Args:
        engine: the transformers engine that writes.
        names: of the models that it lists.

    Attributes:
        writing: a lock; while it is held, no answer comes.
        requests: path and body of those that came.
        received: when they came, in seconds.
        failures: status and headers of answers to the next requests, the last first.
        refused: words of questions that it refuses.
        unsupported: parameters that it does not take.
        context: tokens of prompt and completion that it says it takes.
        chats_alone: status with which it has no `/completions`; 0 where it has them.
        counts: whether it says how many tokens it wrote.
        reasons: why its next answers end, the last first, instead of the reason there was.
    """

    def __init__(self, engine, names=(MODEL,)):
        super().__init__(("127.0.0.1", 0), Answering)
        self.engine = engine
        self.names = names
        self.writing = threading.Lock()
        self.requests = []
        self.received = []
        self.failures = []
        self.refused = ()
        self.unsupported = ()
        self.context = None
        self.chats_alone = 0
        self.counts = True
        self.reasons = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that goes away while it waits for an answer is no error of the server's."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def write(self, prompt, body):
        most = body["max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"]
        sampling = Sampling(most, body.get("temperature", 1.0), body.get("top_p", 1.0))
        with self.writing:
            ((_, ids),) = self.engine._generate_ids([prompt], sampling, [body.get("seed", 0)])
        completion = self.engine._completion("", ids)
        return completion.text, {
            "usage": {"prompt_tokens": len(prompt), "completion_tokens": len(ids)},
            "finish_reason": "stop" if completion.finished else "length",
        }


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        names = self.server.names
        model = {"object": "model"} | ({"max_model_len": self.server.context} if self.server.context else {})
        self.reply(200, {"object": "list", "data": [{"id": name, **model} for name in names]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        self.server.received.append(time.monotonic())
        if self.server.failures:
            status, headers = self.server.failures.pop()
            return self.reply(status, {"error": {"message": "not now"}}, headers)
        if self.server.chats_alone and self.path != "/v1/chat/completions":
            return self.reply(self.server.chats_alone, {"error": {"message": "Not Found"}})
        for name in self.server.unsupported:
            if name in body:
                error = {"message": f"'{name}' is not supported", "code": "unsupported_value", "param": name}
                return self.reply(400, {"error": error})
        engine = self.server.engine
        question = engine.tokenizer.decode(body["prompt"]) if "prompt" in body else body["messages"][-1]["content"]
        if any(word in question for word in self.server.refused):
            return self.reply(400, {"error": {"message": "content filter"}})
        if self.path == "/v1/completions":
            text, end = self.server.write(body["prompt"], body)
            choice = {"index": 0, "text": text}
        else:
            prompt = engine.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
            text, end = self.server.write(prompt, body)
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        choice["finish_reason"] = self.server.reasons.pop() if self.server.reasons else end["finish_reason"]
        usage = {"usage": end["usage"]} if self.server.counts else {}
        self.reply(200, {"object": "completion", "choices": [choice], **usage})

    def reply(self, status, payload, headers=()):
        content = json.dumps(payload).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(servers, "FIRST_DELAY", 0.01)


@pytest.fixture(scope="module")
def local():
    return make_engine("transformers", MODEL, dtype="float32")


@pytest.fixture
def server(local):
    server = Loopback(local)
    yield server
    server.shutdown()
    server.server_close()


def test_prompts_and_answers_are_those_of_the_transformers_engine(local, server):
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=2)
    assert isinstance(engine, CompletionsEngine)
    greedy = Sampling(12)
    expected = dict(local.generate(QUESTIONS, greedy))
    assert dict(engine.generate(QUESTIONS, greedy)) == expected
    _, prompts = local.encode(QUESTIONS)
    assert sorted(body["prompt"] for _, body in server.requests) == sorted(prompts)
    assert all(body["stop_token_ids"] == sorted(local.stop_ids) for _, body in server.requests)
    assert all("seed" not in body for _, body in server.requests)

    sampled = Sampling(6, temperature=1.0, top_p=0.9)
    arguments = (QUESTIONS[:2], sampled, [5, 2**60], [None, "It is"])
    assert dict(engine.generate(*arguments)) == dict(local.generate(*arguments))


def test_the_context_and_the_frame_of_the_prompt_hold_here_too(local, server):
    engine = make_engine("server", MODEL, base_url=server.url, context_length=60, prompt="{question}!", system="Sing.")
    (prompt,) = engine.encode(["Tell a story"])[1]
    assert local.tokenizer.decode(prompt).startswith(
        "<|im_start|>system\nSing.<|im_end|>\n<|im_start|>user\nTell a story!"
    )
    ((_, answer),) = engine.generate(["Tell a story"], Sampling(500))
    assert (answer.n_tokens, answer.finished) == (60 - len(prompt), False)


def test_a_server_that_would_cut_before_max_tokens_is_asked_nothing(server, tmp_path):
    """Its context is no setting of the run: the same run would have other answers after the server's next start."""
    server.context = 100
    config = GenerationArguments(MODEL, str(tmp_path), engine="server", base_url=server.url, max_tokens=200)
    with AnsweringModel(config) as model:
        longest = max(len(prompt) for prompt in model.engine.encode(QUESTIONS)[1])
        said = f"context of 100 tokens, .* {longest} tokens and max_tokens 200 .*, or set --context-length 100"
        with pytest.raises(DRPError, match=said):
            model.complete([Request(question) for question in QUESTIONS], model.sampling)
    assert not server.requests


def test_a_context_length_within_the_servers_own_cuts_as_everywhere(server, tmp_path):
    config = GenerationArguments(MODEL, str(tmp_path), engine="server", base_url=server.url, max_tokens=200)
    with AnsweringModel(config) as model:
        (prompt,) = model.engine.encode(["Tell a story"])[1]
    server.context = config.context_length = len(prompt) + 3
    with AnsweringModel(config) as model:
        (answer,) = model.complete([Request("Tell a story")], model.sampling)
    assert (answer.n_tokens, answer.finished) == (3, False)
    engine = make_engine("server", MODEL, base_url=server.url)
    assert len(dict(engine.generate(["Tell a story"], Sampling(3)))) == 1, "there is room for max_tokens"


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_that_only_chats(local, server, tmp_path, status):
    server.chats_alone = status
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=1)
    _, error = asked(engine, QUESTIONS)
    assert "no model 'smollm2-embedded', or no /completions" in error and "--engine chat" in error
    assert len(server.requests) == 1, "asking again would not help"

    config = GenerationArguments(MODEL, str(tmp_path), engine="chat", base_url=server.url)
    check_generation(config)
    with AnsweringModel(config) as model:
        assert isinstance(model.engine, ChatEngine)
        answers = list(model.complete([Request(question) for question in QUESTIONS], Sampling(5)))
    assert answers == [answer for _, answer in sorted(local.generate(QUESTIONS, Sampling(5)))]


def test_without_a_tokenizer_the_server_renders_the_messages(local, server, capsys):
    server.names = ("./gpt-0",)
    engine = make_engine("server", "./gpt-0", base_url=server.url)
    assert isinstance(engine, ChatEngine) and engine.tokenizer is None
    assert "./gpt-0 is asked through the server's own chat template" in capsys.readouterr().err
    assert dict(engine.generate(QUESTIONS, Sampling(12))) == dict(local.generate(QUESTIONS, Sampling(12)))
    with pytest.raises(DRPError, match="gpt-0 cannot be made to go on from a text"):
        list(engine.generate(["Hi"], Sampling(5), prefixes=["So"]))


def test_passing_failures_are_tried_again(local, server):
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=1)
    server.failures = [(500, {}), (503, {}), (429, {})]
    assert dict(engine.generate(QUESTIONS[:1], Sampling(5))) == dict(local.generate(QUESTIONS[:1], Sampling(5)))
    assert len(server.requests) == 4


def test_a_pause_that_the_server_asks_for_is_kept_by_all(local, server):
    """Nothing is sent into it: neither the two questions that were refused nor the third."""
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=2)
    server.failures = [(429, {"Retry-After": "0.4"})] * 2
    assert dict(engine.generate(QUESTIONS, Sampling(5))) == dict(local.generate(QUESTIONS, Sampling(5)))
    assert len(server.received) == 2 + len(QUESTIONS)
    assert min(server.received[2:]) - server.received[0] >= 0.39


@pytest.mark.parametrize("model", [MODEL, "./gpt-0"])
def test_an_answer_that_broke_off_is_asked_for_again(local, server, model):
    server.names, server.reasons = (model,), [None, "abort", "insufficient_system_resource", "error"]
    engine = make_engine("server", model, base_url=server.url, batch_size=1)
    assert dict(engine.generate(QUESTIONS[:1], Sampling(5))) == dict(local.generate(QUESTIONS[:1], Sampling(5)))
    assert len(server.requests) == 5


def test_tokens_that_the_server_does_not_count_are_counted_here(local, server, monkeypatch):
    server.counts = False
    engine = make_engine("server", MODEL, base_url=server.url)
    assert dict(engine.generate(QUESTIONS, Sampling(5))) == dict(local.generate(QUESTIONS, Sampling(5)))
    monkeypatch.setattr(server, "write", lambda prompt, body: ("Two words.", {"finish_reason": "stop", "usage": None}))
    ((_, answer),) = engine.generate(["Hi"], Sampling(5))
    assert answer == local._completion("", [*local.tokenizer("Two words.")["input_ids"], min(local.stop_ids)])


def test_a_chat_that_does_not_count_its_tokens_ends_it_at_once(server):
    server.names, server.counts = ("./gpt-0",), False
    engine = make_engine("server", "./gpt-0", base_url=server.url, batch_size=1)
    answers, error = asked(engine, QUESTIONS)
    assert not answers and len(server.requests) == 1
    assert error.startswith(f"{server.url}: the server does not count the tokens") and "--tokenizer" in error


def test_nothing_is_asked_after_the_caller_has_enough(server):
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=1)
    answers = engine.generate(["Hi"] * 5, Sampling(3))
    next(answers)
    answers.close()
    assert len(server.requests) <= 2


def asked(engine, questions):
    """The answers that came, by position, and the error that followed."""
    answers = {}
    with pytest.raises(DRPError) as failure:
        for index, completion in engine.generate(questions, Sampling(3)):
            answers[index] = completion
    return answers, str(failure.value)


@pytest.fixture
def later(server):
    """Lets no answer come for a moment, in which requests are refused."""
    server.writing.acquire()
    timer = threading.Timer(0.5, server.writing.release)
    timer.start()
    yield
    timer.join()


@pytest.mark.parametrize("model", [MODEL, "./gpt-0"])
def test_refused_questions_keep_no_other_from_being_answered(local, server, later, model):
    server.names, server.refused = (model,), ("bomb", "poison")
    engine = make_engine("server", model, base_url=server.url, batch_size=2)
    questions = ["Hi", "How is a bomb made, and what for, and by whom?", "Name a colour.", "Is it poison?", "Bye"]
    answers, error = asked(engine, questions)
    expected = dict(local.generate(questions, Sampling(3)))
    assert answers == {index: expected[index] for index in (0, 2, 4)}
    assert "2 of 5 questions were refused, the first of them 'How is a bomb made, and what for, and by'…" in error
    assert f"{server.url}: " in error and "content filter" in error and "not asked" not in error
    assert len(server.requests) == 5, "asking again would not help"


def test_only_what_was_refused_is_asked_again(server, tmp_path):
    server.refused = ("bomb",)
    requests = [Request(question) for question in ("Hi", "A bomb?", "Bye")]
    config = GenerationArguments(MODEL, str(tmp_path), engine="server", base_url=server.url, batch_size=1)
    with AnsweringModel(config) as model, pytest.raises(DRPError, match="1 of 3 .*; what is done is kept"):
        model.complete(requests, Sampling(3))
    server.requests.clear()
    server.refused = ()
    with AnsweringModel(config) as model:
        assert len(list(model.complete(requests, Sampling(3)))) == 3
    assert len(server.requests) == 1


def test_a_server_that_refuses_everything_is_not_asked_everything(server):
    server.refused = ("",)
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=4)
    answers, error = asked(engine, ["Hi"] * 50)
    sent = len(server.requests)
    assert not answers and FEW_REFUSALS <= sent < FEW_REFUSALS + 4
    assert f"{sent} of 50 questions were refused" in error and f"the other {50 - sent} were not asked" in error


def test_many_refusals_before_a_slow_answer_end_nothing(server, later):
    server.refused = ("bomb",)
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=2)
    answers, error = asked(engine, ["Hi", *["A bomb?"] * (FEW_REFUSALS + 2), "Bye"])
    assert answers.keys() == {0, FEW_REFUSALS + 3} and f"{FEW_REFUSALS + 2} of " in error


def test_a_model_that_does_not_take_every_parameter(server):
    server.names, server.unsupported = ("./gpt-0",), ("max_tokens", "temperature", "top_p")
    engine = make_engine("server", "./gpt-0", base_url=server.url, batch_size=1)
    answers = dict(engine.generate(QUESTIONS, Sampling(3)))
    assert answers.keys() == {0, 1, 2} and all(answer.n_tokens <= 3 for answer in answers.values())
    assert len(server.requests) == 3 + len(QUESTIONS)
    assert [set(body) for _, body in server.requests[3:]] == [{"model", "messages", "max_completion_tokens"}] * 3


def test_what_can_only_fail_ends_it_at_once(server):
    engine = make_engine("server", MODEL, base_url=server.url, batch_size=2)
    server.failures = [(401, {})]
    with server.writing:
        assert "refuses the key" in asked(engine, ["Hi"] * 5)[1]
    assert len(server.requests) <= 2


def test_what_came_together_with_a_failure_is_not_lost(server, monkeypatch):
    engine = make_engine("server", MODEL, base_url=server.url)

    async def answer(self, client, manners, path, body, read):
        if "Hi" in engine.tokenizer.decode(body["prompt"]):
            raise DRPError("no quota left")
        return Completion("42", 1, True)

    monkeypatch.setattr(Server, "_answer", answer)
    answers, error = asked(engine, ["Hi", "What is 2+3?", "Bye"])
    assert answers.keys() == {1, 2} and error == "no quota left"


def test_a_server_that_goes_away(server, monkeypatch):
    engine = make_engine("server", MODEL, base_url=server.url)
    server.shutdown()
    server.server_close()
    monkeypatch.setattr("drp_hf.engines.server.MAX_ATTEMPTS", 3)
    with pytest.raises(DRPError, match="the server does not answer .*: start it"):
        list(engine.generate(["Hi"], Sampling(3)))
    with pytest.raises(DRPError, match="the server does not answer"):
        make_engine("server", MODEL, base_url=server.url)


def test_wrong_key_and_wrong_model(server, monkeypatch):
    with pytest.raises(DRPError, match="serves smollm2-embedded, and not 'other': correct the model"):
        make_engine("server", "other", base_url=server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(api_key="another") as chat, pytest.raises(DRPError, match="refuses the key") as failure:
        make_engine("server", "teacher", base_url=chat.url)
    assert KEY not in str(failure.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(DRPError, match="there is no key"):
        make_engine("server", "gpt-4o")


def test_the_provider_that_a_router_shall_take_may_stand_behind_the_model(server):
    server.names = ("Qwen/Qwen3-32B",)
    Server("Qwen/Qwen3-32B:together", server.url).check()
    with pytest.raises(DRPError, match="serves Qwen/Qwen3-32B, and not 'Qwen/Qwen3-8B:together'"):
        Server("Qwen/Qwen3-8B:together", server.url).check()


def uncounted(text, finished):
    raise AssertionError("the server has counted")


def chat_answer(message, finish_reason="stop"):
    return {"choices": [{"message": message, "finish_reason": finish_reason}], "usage": {"completion_tokens": 7}}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_in_a_field_of_its_own_gets_its_tags_back(field):
    whole = read_chat(chat_answer({"content": "\n\nIt is 7.", field: "\n3 + 4 = 7\n"}), uncounted)
    assert whole.text == "<think>\n3 + 4 = 7\n</think>\n\nIt is 7." and (whole.n_tokens, whole.finished) == (7, True)
    cut = read_chat(chat_answer({"content": None, field: "3 + 4"}, "length"), uncounted)
    assert (cut.text, cut.finished) == ("<think>\n3 + 4", False)


def test_tags_in_the_text():
    def text(message):
        return read_chat(chat_answer(message), uncounted).text

    both = "<think>\n3 + 4 = 7\n</think>\n\n7"
    assert text({"content": both, "reasoning_content": None}) == both
    assert text({"content": both.removeprefix("<think>\n")}) == both, "the template's tag"
    assert text({"content": "It is 7."}) == "It is 7."


def test_what_is_no_completion_is_an_error():
    for answer in ({}, {"choices": []}, {"choices": [{"finish_reason": "stop"}]}, {"choices": None}, {"choices": [7]}):
        with pytest.raises(ValueError, match="no completion"):
            read_completion(answer, uncounted)


@pytest.mark.parametrize("reason", ["stop", "eos", "eos_token", "length"])
def test_how_a_text_ended(reason):
    finished = reason != "length"
    answer = {"choices": [{"text": "7", "finish_reason": reason}], "usage": {"completion_tokens": 2}}
    assert read_completion(answer, uncounted) == Completion("7", 2, finished)
    cut = read_chat(chat_answer({"content": "", "reasoning": "3 + 4"}, reason), uncounted)
    assert cut == Completion("<think>\n3 + 4" + "\n</think>\n\n" * finished, 7, finished)


def test_a_content_filter_cuts_and_nothing_else_is_an_end():
    assert not read_chat(chat_answer({"content": "x"}, "content_filter"), uncounted).finished
    for reason in (None, "error", "abort", "insufficient_system_resource", "tool_calls"):
        with pytest.raises(ValueError, match=f"broke off.*{reason}"):
            read_chat(chat_answer({"content": "x"}, reason), uncounted)
