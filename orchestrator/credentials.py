"""What in plain data looks like a credential, by its name or its form: what is shared or logged must not hold any.

No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_WORDS = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+")
_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "key",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "secret",
        "secrets",
        "token",
    }
)
# What keys begin with: of OpenAI and those like it, xAI, Groq, Hugging Face, GitHub, our own service.
_BEGINNINGS = "sk|xai|gsk|hf|gh[pousr]|github_pat|cbk"


def key_forms(least: int, beginnings: str = _BEGINNINGS) -> str:
    """The pattern of keys as providers write them. AWS's key ids and bearer tokens have forms of their own.

    Args:
        least: characters after the beginning: few where a word too many may be hidden, more where it would be refused.
        beginnings: those before a dash or an underscore, as alternatives of a pattern.
    """
    return rf"\b(?:(?:{beginnings})[-_][\w-]{{{least},}}|(?:AKIA|ASIA)\w{{12,}}|bedrock-api-key-[\w=+/-]+)"


# What is told to anybody, such as a provider's text of an error, which may quote a key in part.
KEY_IN_TEXT = re.compile(key_forms(8, f"{_BEGINNINGS}|key"))
# A URL with a user's password, or a text that begins as providers' keys do.
_SECRET_VALUE = re.compile(rf"://[^/\s@:]*:[^/\s@]+@|{key_forms(16)}")

# In running text, by what stands before it: a header's scheme, or a name and then ``=`` or ``:``, with quotes or not.
_SECRET_TEXT = re.compile(
    r"(?P<before>\b(?:Bearer|Basic)\s{1,4}|"
    r"(?:api[_-]?key|token|secret|passwd|password|passphrase|authorization|cookie|credential)s?"
    r"[\"']{0,2}\s{0,4}(?:[:=]|=>)\s{0,4}(?:b?[\"'])?(?:(?:Bearer|Basic)\s{1,4})?)"
    r"(?P<secret>[^\s\"',;&<>(){}\[\]]{6,})",
    re.I,
)
REDACTED = "[redacted]"
# Of a URL: what stands behind "?" may be a key by any name, such as an MCP server's.
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s?#'\"<>]+\?)([^\s#'\"<>]+)", re.I)
MIN_KNOWN = 8  # characters of a value that is taken out wherever it stands: a shorter one may be a word


def redacted(text: str, known: Iterable[str] = ()) -> str:
    """``text`` without what looks like a credential, and without those that are ``known``."""
    for secret in sorted((value for value in known if len(value) >= MIN_KNOWN), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return _SECRET_TEXT.sub(rf"\g<before>{REDACTED}", _SECRET_VALUE.sub(REDACTED, text))


def without_queries(text: str, instead: str = REDACTED) -> str:
    """``text`` without the values in the queries of its URLs; their names stay."""

    def hidden(part: str) -> str:
        name, equals, _ = part.partition("=")
        return f"{name}={instead}" if equals else instead

    return _QUERY.sub(lambda found: found[1] + "&".join(map(hidden, found[2].split("&"))), text)


def secret_values(named: Mapping[str, str]) -> frozenset[str]:
    """Of an environment: the values that are credentials by their names or forms."""
    return frozenset(value for name, value in named.items() if any(secrets_in(value, name)))


def secrets_in(value: Any, place: str) -> Iterator[str]:
    """The places in ``value``, which is of the types of JSON, that may hold a credential, by their names and forms."""
    match value:
        case str() if _SECRET_VALUE.search(value) or (value and _sounds_secret(place)):
            yield place
        case dict():
            for key, part in value.items():
                # What headers are called says little: a server may take its key in any.
                inner = f"{place}[{key!r}]"
                if "headers" in place.lower() and part:
                    yield inner
                else:
                    yield from secrets_in(part, inner)
        case list():
            for number, part in enumerate(value):
                yield from secrets_in(part, f"{place}[{number}]")


def _sounds_secret(place: str) -> bool:
    """By the last name in it: ``api_key``, ``client_kwargs['azureAdToken']``; not ``max_tokens``, nor ``key_name``."""
    names = re.findall(r"[^\[\]'\".]+", re.sub(r"\[\d+\]", "", place))
    words = [word.lower() for word in _WORDS.findall(names[-1])] if names else []
    return bool(words) and words[-1] != "name" and not _SECRET_WORDS.isdisjoint(words)
