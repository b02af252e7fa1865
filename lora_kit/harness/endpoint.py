"""Where a chat model is served, and the key that it wants; the key is seen by that host and by nobody else.

The key comes from an environment variable that the user names, never from a file, an
argument or a variable that happens to be set, and is struck out of every text that leaves
this floor: messages, results, journals. Plain http carries no key, except on this machine.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from lora_kit.errors import Problem, RecipeError

CHAT = "/chat/completions"
SHORTEST_SECRET = 8  # a shorter key is a placeholder such as "x"; striking it out would spoil every text
STRUCK_OUT = "[key]"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server.

    Args:
        url: Its base, without ``/chat/completions``.
        key: Sent as a bearer token; empty for none.
        key_env: The variable that it came from, for messages.
    """

    url: str
    key: str = field(default="", repr=False)
    key_env: str = ""

    @property
    def host(self) -> str:
        """Name of the machine without the port: what a judgment depends on."""
        return urlsplit(self.url).hostname or ""

    @property
    def chat_url(self) -> str:
        """Where chat requests go."""
        return self.url + CHAT

    def redacted(self, text: str) -> str:
        """The text without the key, wherever in it the key is."""
        return text.replace(self.key, STRUCK_OUT) if self.is_secret else text

    @property
    def is_secret(self) -> bool:
        """Whether the key is one that must not be seen, rather than a placeholder."""
        return len(self.key) >= SHORTEST_SECRET


def read_endpoint(url: str, key_env: str, environment: Mapping[str, str]) -> Endpoint:
    """Check an address and fetch its key.

    Args:
        url: As the user gave it; ``/chat/completions`` at its end may be there or not.
        key_env: Name of the variable that holds the key; empty for a server without one.
        environment: Usually ``os.environ``.

    Raises:
        RecipeError: Not http(s), a password or a query in the address, no such variable, a key that can't be
            sent, or a key over plain http to another machine (all problems at once).
    """
    parts = _split(url)
    problems = _url_problems(url, parts)
    key = environment.get(key_env, "").strip()
    problems += _key_problems(key, key_env)
    if key and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        cure = "use https, or leave out --key-env"
        problems.append(Problem("plain http to another machine would show the key to the network", cure=cure))
    if problems:
        raise RecipeError.collect(problems)
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/").removesuffix(CHAT)
    return Endpoint(base.rstrip("/"), key, key_env)


def is_loopback(host: str) -> bool:
    """Whether a host name is this machine.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost.example")
        (True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts


def _url_problems(url: str, parts: SplitResult) -> list[Problem]:
    cure = "give the base address, such as http://127.0.0.1:8080/v1"
    if parts.username is not None or parts.password is not None:
        return [Problem("the judge's address holds a user or a password", cure="use --key-env NAME")]
    if parts.query or parts.fragment:
        return [Problem("the judge's address holds a query", cure=cure)]
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return [Problem(f"not an http(s) address: '{url}'", cure=cure)]
    return []


def _key_problems(key: str, key_env: str) -> list[Problem]:
    if not key_env:
        return []
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_env):
        # Somebody who pastes the key itself must not read it again in a log.
        return [Problem("is not the name of a variable", key="--key-env", cure="give the name, not the key")]
    if not key:
        return [Problem(f"the variable {key_env} is not set", cure=f"export {key_env}=... and run it again")]
    if not key.isascii() or not key.isprintable() or " " in key:
        return [Problem(f"the key in {key_env} has characters that can't be sent", cure="copy it again")]
    return []
