"""What must never be published, and how it looks: keys, passwords, home folders, e-mail addresses.

Every kind is one regular expression, written so that Arrow (RE2) and Python read it alike, of ASCII words: Arrow goes
through millions of texts at once and says which of them hold something, and Python says what it is in those. What a
regular expression cannot say, a check does: that a key is random, not `hf_xxxxxxxx`, and that a password is no name of
a variable.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """One kind of secret.

    Args:
        name: for people.
        pattern: with the secret as its group `secret`, or as a whole.
        is_one: says whether what fits the pattern is meant.
    """

    name: str
    pattern: str
    is_one: Callable[[re.Match[str]], bool]
    regex: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.ASCII))


def find_secrets(text: str) -> Iterator[tuple[str, str]]:
    """Kind and secret, for all secrets of a text; none is said twice."""
    said: set[str] = set()
    taken: set[int] = set()
    for kind in KINDS:
        for match in kind.regex.finditer(text):
            place = range(*match.span())
            if taken.isdisjoint(place) and kind.is_one(match):
                taken.update(place)
                if (secret := _secret(match)) not in said:
                    said.add(secret)
                    yield kind.name, secret


def masked(secret: str) -> str:
    """What people need to find it again, and nobody can use."""
    shown = min(6, len(secret) // 4)
    return f"{secret[:shown]}… ({len(secret)} characters)"


def _secret(match: re.Match[str]) -> str:
    return match["secret"] if "secret" in match.re.groupindex else match[0]


# ------------------------------------------------------------------------------------------------------- checks

_ESCAPE = re.compile(r"(?:\\(?:[bfnrtv]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|%(?:[02][0-9a-fA-F]|3[a-fA-F]))\Z")
"""The end of `\\n`, `%3D` and the like, as JSON, programs and addresses write it: no part of the word that follows."""
_IN_ADDRESS = re.compile(r"://[\w.~%/?=&#:-]*\Z")


def _begins_here(match: re.Match[str], also_not: str = "") -> bool:
    """Whether a word begins at a match, and not in the middle of another.

    Letters that are not ASCII are of no key: Chinese and Japanese have no space between such a letter and a key.
    """
    start = match.start()
    if start == 0:
        return True
    before = match.string[start - 1]
    if not ((before.isascii() and before.isalnum()) or before in also_not):
        return True
    return _ESCAPE.search(match.string[max(0, start - 6) : start]) is not None


def _is_key(match: re.Match[str]) -> bool:
    """A key is random, and no part of a longer word."""
    return _begins_here(match) and _is_random(_secret(match))


def _is_aws_key(match: re.Match[str]) -> bool:
    return _begins_here(match) and "EXAMPLE" not in match[0]  # how Amazon's manual ends all of them


def _is_random(text: str) -> bool:
    """Whether a text looks as if dice had made it.

    Ten different characters and three bits each are less than real keys have, even of hex digits, and more than
    `hf_xxxxxxxx` has; words in small letters are no key.
    """
    counts = Counter(text)
    bits = -sum(count / len(text) * math.log2(count / len(text)) for count in counts.values())
    return len(counts) >= 10 and bits >= 3 and not _PLACEHOLDER.search(text) and not re.fullmatch("[a-z_-]+", text)


_PLACEHOLDER = re.compile(r"(?i)example|xxxx|your|placeholder|<|>|\$|\{|\}|\*\*|\.\.\.|0123456789abcdef|abcdefghijkl")
_NAME_IN_CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[a-z][a-z0-9]*(?:_[a-z0-9]+)+|(?:[A-Z][a-z]+\d*){2,}"
)
"""`config.api_key2`, `API_KEY_2`, `my_password_1`, `Token2Ids`: what code says instead of the secret."""


def _is_assigned(match: re.Match[str]) -> bool:
    """Whether the value of `token = …` is a secret: random, with a digit, and no code."""
    value = _secret(match)
    return re.search(r"\d", value) is not None and not _NAME_IN_CODE.fullmatch(value) and _is_random(value)


def _is_password(match: re.Match[str]) -> bool:
    """Whether the value of `password = …` is one: people's passwords are shorter than keys, and less random."""
    value = _secret(match)
    if re.search(r"[()\[\]]", value) or _NAME_IN_CODE.fullmatch(value) or _PLACEHOLDER.search(value):
        return False
    kinds = sum(bool(re.search(characters, value)) for characters in ("[a-z]", "[A-Z]", "[0-9]", r"[^\w\s\\]"))
    return kinds >= 2 and any(map(str.isalpha, value)) and len(set(value)) >= 6


_NOBODY = frozenset(
    "default guest home me my-name myname myuser name public shared someone user user1 user_name username you "
    "your-name your-user your-username your_name your_user your_username yourname youruser yourusername xxx".split()
)
"""Names in paths and addresses that are no one's."""


def _is_path(match: re.Match[str]) -> bool:
    """Whether a path begins at the root of a machine, and not at a web site's."""
    before = match.string[max(0, match.start() - 7) : match.start()]
    if before[-1:].isalnum() and not before[-1:].isascii():  # https://пример.рф/home/about is no path
        return _IN_ADDRESS.search(match.string[max(0, match.start() - 200) : match.start()]) is None
    return before.endswith(("file://", "..")) or _begins_here(match, ".:/~")


_NO_PERSON = frozenset("git noreply no-reply email e-mail mail test".split()) | _NOBODY
_NO_DOMAIN = re.compile(
    r"(?i)(?:.*\.)?(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost|local|noreply\.github\.com"
    r"|(?:your|my)?-?(?:domain|company|email|server)\.(?:com|org|net))"
)


def _is_address(match: re.Match[str]) -> bool:
    return match["local"].lower() not in _NO_PERSON and not _NO_DOMAIN.fullmatch(match["domain"])


def _is_login(match: re.Match[str]) -> bool:
    """Whether an address with a password in it has a real one."""
    words = {"password", "passwd", "pass", "pwd", "secret", "token", "hf_token", "port", match["user"].lower()}
    return match["secret"].lower() not in words and not _PLACEHOLDER.search(match["secret"])


def _always(match: re.Match[str]) -> bool:
    return True


# -------------------------------------------------------------------------------------------------------- kinds

_ASSIGN = r"['\"\\]{0,4} {0,4}(?::=|=>|={1,3}|:) {0,4}(?:(?i:bearer|basic) )?['\"\\]{0,4}"
"""From a name to its value, in shells, YAML, JSON and programs; quotes may be escaped."""

KINDS = (
    Kind("Hugging Face token", r"hf_(?:oauth_)?[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}", _is_key),
    Kind("Anthropic key", r"sk-ant-[A-Za-z0-9_-]{20,}", _is_key),
    Kind("OpenAI key", r"sk-[A-Za-z0-9_-]{0,99}T3BlbkFJ[A-Za-z0-9_-]{10,}", _is_key),
    Kind("OpenAI key", r"sk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}", _is_key),
    Kind("key of a model provider", r"sk-or-v1-[0-9a-f]{40,}|sk-[A-Za-z0-9]{32,}", _is_key),
    Kind(
        "key of a model provider",
        r"gsk_[A-Za-z0-9]{40,}|xai-[A-Za-z0-9]{60,}|nvapi-[A-Za-z0-9_-]{40,}|pplx-[A-Za-z0-9]{40,}"
        r"|r8_[A-Za-z0-9]{37}|tgp_v1_[A-Za-z0-9_-]{40,}|csk-[a-z0-9]{40,}|fw_[A-Za-z0-9]{22,24}\b",
        _is_key,
    ),
    Kind("GitHub token", r"gh[opusr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}", _is_key),
    Kind("GitLab token", r"gl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-[A-Za-z0-9_-]{20,}", _is_key),
    Kind("Google key", r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{30,}", _is_key),
    Kind("AWS key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", _is_aws_key),
    Kind("Azure key", r"AccountKey=[A-Za-z0-9+/]{86}==", _is_key),
    Kind("Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{16,}|xapp-[0-9]-[A-Za-z0-9-]{20,}", _is_key),
    Kind("Slack webhook", r"hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{16,}", _is_key),
    Kind("Stripe key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9+/]{30,}", _is_key),
    Kind("Weights & Biases key", r"wandb_v1_[A-Za-z0-9_]{40,}", _is_key),
    Kind("PyPI token", r"pypi-AgE[A-Za-z0-9_-]{50,}", _is_key),
    Kind("npm token", r"npm_[A-Za-z0-9]{36}", _is_key),
    Kind("SendGrid key", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", _is_key),
    Kind("Telegram token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", _is_key),
    Kind("JSON Web Token", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", _is_key),
    Kind("private key", r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----", _always),
    Kind(
        "login in an address",
        r"://(?P<user>[^\s/:@'\"<>]{1,64}):(?P<secret>[^\s/:@'\"<>]{3,200})@[A-Za-z0-9]",
        _is_login,
    ),
    Kind("login", r"(?i:machine)\s+\S{1,200}\s+login\s+\S{1,200}\s+password\s+(?P<secret>\S{8,200})", _is_password),
    Kind(
        "password",
        r"(?i:passw(?:or)?d|passphrase|pwd)" + _ASSIGN + r"(?P<secret>[^\s'\"\\,;<>&|]{8,200})",
        _is_password,
    ),
    Kind(
        "secret in a setting",
        r"(?i:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|secret|token|credentials?|authorization)"
        + _ASSIGN
        + r"(?P<secret>[A-Za-z0-9_~+/=.-]{16,500})",
        _is_assigned,
    ),
    Kind(
        "home folder",
        r"(?:/[A-Za-z0-9_.-]{1,40}){0,9}/(?:home|Users)/(?P<name>[A-Za-z0-9][\w.-]{0,63})",
        lambda match: _is_path(match) and match["name"].lower() not in _NOBODY,
    ),
    Kind("home folder", r"(?P<secret>/root)/[\w.]", _is_path),
    Kind(
        "home folder",
        r"[A-Za-z]:(?:\\{1,4}|/)(?i:users|documents and settings)(?:\\{1,4}|/)(?P<name>[A-Za-z0-9][\w.-]{0,63})",
        lambda match: _begins_here(match) and match["name"].lower() not in _NOBODY,
    ),
    Kind(
        "e-mail address",
        r"(?:\\(?:[bfnrtv]|u[0-9a-f]{4}))?(?P<secret>(?P<local>[A-Za-z0-9][A-Za-z0-9._%+-]{0,63})"
        r"@(?P<domain>[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9-]{1,63}){0,5}\.[A-Za-z]{2,24}))",
        _is_address,
    ),
)


def _loosely(pattern: str) -> str:
    """A pattern that fits wherever the given one does, and is quicker to compile: its counts have no upper end."""
    pattern = re.sub(r"\?P<\w+>", "?:", pattern)
    return re.sub(r"\{(\d+)(?:,\d*)?\}", lambda counts: f"{{{min(8, int(counts[1]))},}}", pattern)


ANY = "|".join(_loosely(kind.pattern) for kind in KINDS)
"""All of them in one, for a first look."""
