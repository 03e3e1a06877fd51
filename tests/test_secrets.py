"""Secrets in what is about to be published."""

import base64
import json
import random
import string
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from drp_hf.errors import DRPError
from drp_hf.hub.secret_kinds import find_secrets, masked
from drp_hf.hub.secrets import check_secrets, find_in_files

LETTERS = string.ascii_letters + string.digits


def dice(length, characters=LETTERS, seed=0):
    """Random characters, as keys are made of: written here they would be secrets in this file."""
    return "".join(random.Random(seed).choices(characters, k=length))


def jwt():
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": "1234567890", "name": "Ada"})
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{head}.{body}.{dice(43)}"


TOKEN = f"hf_{dice(34)}"
SECRETS = {
    TOKEN: "Hugging Face token",
    f"hf_oauth_{dice(34)}": "Hugging Face token",
    f"sk-{dice(20)}T3BlbkFJ{dice(20)}": "OpenAI key",
    f"sk-proj-{dice(74)}-{dice(20)}_T3BlbkFJ{dice(30)}": "OpenAI key",
    f"sk-ant-api03-{dice(60)}-{dice(30)}AA": "Anthropic key",
    f"sk-{dice(32, '0123456789abcdef')}": "key of a model provider",
    f"sk-or-v1-{dice(64, '0123456789abcdef')}": "key of a model provider",
    f"gsk_{dice(52)}": "key of a model provider",
    f"ghp_{dice(36)}": "GitHub token",
    f"github_pat_{dice(22)}_{dice(59)}": "GitHub token",
    f"glpat-{dice(20)}": "GitLab token",
    f"AIza{dice(35)}": "Google key",
    f"AKIA{dice(16, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567')}": "AWS key",
    f"xoxb-{dice(12, string.digits)}-{dice(12, string.digits)}-{dice(24)}": "Slack token",
    f"hooks.slack.com/services/T{dice(9)}/B{dice(9)}/{dice(24)}": "Slack webhook",
    f"sk_live_{dice(24)}": "Stripe key",
    f"npm_{dice(36)}": "npm token",
    f"pypi-AgEIcHlwaS5vcmc{dice(80)}": "PyPI token",
    jwt(): "JSON Web Token",
    "-----BEGIN RSA " + "PRIVATE KEY-----": "private key",
    "-----BEGIN " + "PRIVATE KEY-----": "private key",
    "/home/" + "ada": "home folder",
    "/nfs/home/" + "ada.lovelace": "home folder",
    "/Users/" + "ada": "home folder",
    "C:\\Users\\" + "ada": "home folder",
    "/data/raid/nfs/export/home/" + "ada": "home folder",
    "ada.lovelace" + "@analytical-engine.co.uk": "e-mail address",
}
"""Each alone, with its kind; put together here, so that no other program takes this file for a leak."""
SETTINGS = {
    "WANDB_API_KEY={}": dice(40, "0123456789abcdef"),
    '"aws_secret_access_key": "{}"': dice(40, LETTERS + "+/"),
    "password: {}": "Tr0ub4dor&3".replace("&", "!"),
    "DB_PASSWORD='{}'": "k3Jf-92ls!x",
    'client.login(token="{}")': dice(32),
    "Authorization: Bearer {}": dice(40),
    "postgres://ada:{}@db.analytical.io/traces": dice(12),
    "machine api.wandb.ai\\n  login user password {}".replace("\\n", " "): dice(40),
}
HARMLESS = [
    "login(token='hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')",
    "export HF_TOKEN=hf_your_token_here_0123456789abcdefgh",
    'HF_TOKEN = os.environ["HF_TOKEN"], token=self.config.hub_token_2',
    "api_key=OPENAI_API_KEY_2024_PRODUCTION",
    "user@example.com, noreply@github.com, you@your-company.com, git@github.com:drp/hf.git",
    "AKIAIOSFODNN7EXAMPLE",
    "postgres://user:password@localhost/db, https://<user>:<token>@host, http://127.0.0.1:8000/v1",
    "/home/user/data, /Users/<name>/, /home/$USER/x, https://drp.org/home/about, drp.org/Users/guide, ~/home/x",
    "https://пример.рф/home/about, https://drp.org/wiki/家/home/about, 家/home, https://drp.org/%E5%AE%B6/home/a",
    "the square/root/of 2, f(x) = x/root/2",
    '"eos_token": "<|im_end|>", "max_tokens": 4096, "pad_token_id": 2, tokens = 100200300400500600700',
    "the secret: multiply both sides, then token=3, password: unknown, Password = correct",
    "risk-neutral, task-oriented-dialogue-with-very-long-names-2024, desk-1234567890123456789012",
    "x@y, 3@4.5, @dataclass(frozen=True), actions/checkout@v4, \\@ifnextchar, a @ b.T",
    "sha256:" + dice(64, "0123456789abcdef"),
    "author={Lovelace, Ada}, url={https://arxiv.org/abs/2501.12345}, eprint={2501.12345}",
]


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:12])
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "so {} is it",
        '"{}"',
        "({}),",
        "first\\n{}\\nlast",
        "\\u0022{}\\u0022",
        "={}/x",
        "file {}/x.json",
        "是{}里",
    ],
)
def test_every_kind_is_found_wherever_it_stands(secret, around):
    ((kind, found),) = find_secrets(around.format(secret))
    assert kind == SECRETS[secret] and found == secret


@pytest.mark.parametrize("secret", [TOKEN, "/home/" + "ada"])
def test_what_an_address_escapes_ends_before_a_secret(secret):
    assert [found for _, found in find_secrets(f"https://drp.org/?to%3D{secret}&x=1")] == [secret]


def test_a_path_that_climbs_is_found():
    (found,) = find_secrets("read ../.." + "/home/" + "ada/acme/x.jsonl")
    assert found[0] == "home folder" and found[1].endswith("/home/" + "ada")


def test_the_home_of_the_administrator_is_one():
    assert list(find_secrets("see /ro" + "ot/runs and /ro" + "ot/data")) == [("home folder", "/ro" + "ot")]


@pytest.mark.parametrize("setting", SETTINGS)
def test_values_of_settings_are_found(setting):
    assert [secret for _, secret in find_secrets(setting.format(SETTINGS[setting]))] == [SETTINGS[setting]]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_so_is_not_found(text):
    assert not list(find_secrets(text))


def test_random_keys_of_every_length_are_found():
    """No rule about randomness turns a real key down."""
    for seed in range(3000):
        for secret in (f"hf_{dice(34, seed=seed)}", f"sk-{dice(32, '0123456789abcdef', seed)}"):
            assert [s for _, s in find_secrets(f"key {secret}.")] == [secret]


def test_a_masked_secret_is_of_no_use():
    for secret in SECRETS:
        assert secret not in masked(secret) and len(masked(secret).split("…")[0]) <= max(2, len(secret) // 4)
    assert masked(TOKEN) == f"{TOKEN[:6]}… (37 characters)"


def places(files, **options):
    return [(finding.file, finding.place, finding.kind) for finding in find_in_files(files, **options)]


def test_it_says_file_row_column_and_line(tmp_path):
    address = "ada" + "@analytical.io"
    steps = [[{"text": "a"}, {"text": "b"}], [], None, [{"text": f"mail {address}"}], [{"text": None}]]
    table = pa.table(
        {
            "question": ["q"] * 4 + [f"use {TOKEN} now"],
            "steps": pa.array(steps),
            "kind": pa.array(["x", "y", "y", TOKEN, None]).dictionary_encode(),
            "tags": pa.array([{"a": "b"}, None, {"c": address}, {}, {}], pa.map_(pa.string(), pa.string())),
            "n": list(range(5)),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    files = {
        "steps/train.parquet": tmp_path / "rows.parquet",
        "traces.jsonl": f'{{"a": 1}}\n{{"a": "{TOKEN}"}}\n'.encode(),
        "README.md": f"# Card\n\nwrite to {address}".encode(),
        "config.yaml": b"output_dir: /home/" + b"ada/runs\n",
    }
    assert sorted(places(files)) == sorted(
        [
            ("README.md", "line 3", "e-mail address"),
            ("config.yaml", "line 1", "home folder"),
            ("traces.jsonl", "row 2", "Hugging Face token"),
            ("steps/train.parquet", "row 5, column question", "Hugging Face token"),
            ("steps/train.parquet", "row 4, column steps.text", "e-mail address"),
            ("steps/train.parquet", "row 4, column kind", "Hugging Face token"),
            ("steps/train.parquet", "row 3, column tags.value", "e-mail address"),
        ]
    )


def test_names_metadata_headers_and_notes_are_looked_at(tmp_path):
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({"made by": TOKEN}), tmp_path / "x.parquet")
    pq.write_table(pa.table({f"c_{TOKEN}": [1]}), tmp_path / "y.parquet")
    header = json.dumps({"__metadata__": {"from": "/home/" + "ada/model"}}).encode()
    notes = PngInfo()
    notes.add_text("Author", "ada" + "@analytical.io", zip=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "plot.png", pnginfo=notes)
    files = {
        "x.parquet": tmp_path / "x.parquet",
        "y.parquet": tmp_path / "y.parquet",
        "model.safetensors": struct.pack("<Q", len(header)) + header + bytes(range(256)) * 10,
        "plot.png": (tmp_path / "plot.png").read_bytes(),
        f"runs/{TOKEN}.json": b"{}",
        "tokenizer.model": b"\0\1" + TOKEN.encode(),
    }
    found = places(files)
    assert {(file, kind) for file, _, kind in found} == {
        ("x.parquet", "Hugging Face token"),
        ("y.parquet", "Hugging Face token"),
        ("model.safetensors", "home folder"),
        ("plot.png", "e-mail address"),
        (f"runs/{masked(TOKEN)}.json", "Hugging Face token"),
    }


def test_findings_are_listed_and_never_printed_whole():
    rows = b"".join(f'{{"a": "hf_{dice(34, seed=seed)}"}}\n'.encode() for seed in range(30))
    with pytest.raises(DRPError) as error:
        check_secrets({"a.jsonl": rows})
    message = str(error.value)
    assert "30 secrets" in message and "and 10 more" in message and "a.jsonl row 20" in message
    assert "row 21" not in message and not any(dice(34, seed=seed) in message for seed in range(30))


def test_what_is_allowed_passes():
    files = {"a.md": f"{TOKEN} and /home/".encode() + b"ada/x", "b.md": b"ada" + b"@analytical.io"}
    assert len(places(files)) == 3
    assert [kind for _, _, kind in places(files, allow=[TOKEN, "/home/" + "ada/"])] == ["e-mail address"]
    check_secrets(files, allow=[TOKEN, "/home/" + "ada", "ada" + "@analytical.io"])
    assert len(places(files, allow=[TOKEN[:-1]])) == 3


def test_a_line_of_any_length_is_looked_at(monkeypatch):
    monkeypatch.setattr("drp_hf.hub.texts.LOOKED_AT", 10_000)
    monkeypatch.setattr("drp_hf.hub.texts.OVERLAP", 100)
    for before in (9_930, 9_970, 9_990, 10_000, 25_005):
        content = b"x\n" + b"." * before + TOKEN.encode() + b"." * 30_000 + b"\n" + TOKEN.encode()
        assert places({"one.txt": content}) == [
            ("one.txt", "line 2", "Hugging Face token"),
            ("one.txt", "line 3", "Hugging Face token"),
        ]


@pytest.mark.parametrize("name", ["x.parquet", "x.safetensors", "x.png"])
def test_a_broken_file_is_not_published_unseen(name):
    with pytest.raises(DRPError, match=f"{name} cannot be read as what its name says"):
        check_secrets({name: b"\1\2\3"})


def test_no_false_alarm_in_real_traces(shared_data):
    check_secrets({path.name: path for path in sorted((shared_data / "traces").glob("*.jsonl"))})


def test_no_false_alarm_in_a_student(student):
    check_secrets({path.name: path for path in student.iterdir()})


def test_no_false_alarm_in_the_sample_and_the_cards():
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    folders = ("drp_hf/corpus/sample", "model_cards", "drp_hf/assets", "recipes", "drp_hf/metrics")
    files = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    check_secrets({path.name: path for path in files if path.suffix != ".pyc"})
    check_secrets({"README.md": root / "README.md"})
