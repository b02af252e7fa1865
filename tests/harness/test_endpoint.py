import pytest

from lora_kit.errors import RecipeError
from lora_kit.harness.endpoint import Endpoint, is_loopback, read_endpoint

KEY = "sk-canary-0123456789"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://127.0.0.1:8123/v1", "http://127.0.0.1:8123/v1"),
        ("http://127.0.0.1:8123/v1/", "http://127.0.0.1:8123/v1"),
        ("https://api.example.com/v1/chat/completions", "https://api.example.com/v1"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_addresses(url, base):
    endpoint = read_endpoint(url, "", {})
    assert (endpoint.url, endpoint.chat_url) == (base, base + "/chat/completions")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("127.0.0.1:8123", "not an http"),
        ("ftp://x/v1", "not an http"),
        ("http://", "not an http"),
        ("http://x:99999999", "not an http"),
        ("", "not an http"),
        ("https://me:secret@x/v1", "a user or a password"),
        ("https://x/v1?key=secret", "a query"),
    ],
)
def test_bad_addresses(url, found):
    with pytest.raises(RecipeError, match=found) as caught:
        read_endpoint(url, "", {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "environment", "found"),
    [
        ("JUDGE_KEY", {}, "JUDGE_KEY is not set"),
        ("JUDGE_KEY", {"JUDGE_KEY": "  "}, "JUDGE_KEY is not set"),
        ("JUDGE_KEY", {"JUDGE_KEY": KEY + "\nX: y"}, "can't be sent"),
        ("JUDGE_KEY", {"JUDGE_KEY": KEY + "é"}, "can't be sent"),
        (KEY, {}, "not the name of a variable"),
    ],
)
def test_keys_that_can_not_be_used_are_never_quoted(name, environment, found):
    with pytest.raises(RecipeError, match=found) as caught:
        read_endpoint("https://x/v1", name, environment)
    assert KEY not in str(caught.value)


def test_only_the_named_variable_is_read():
    environment = {"OPENAI_API_KEY": KEY, "MINE": "another-key"}
    assert read_endpoint("https://x/v1", "", environment).key == ""
    assert read_endpoint("https://x/v1", "MINE", environment).key == "another-key"


def test_the_key_is_not_in_its_repr_and_is_struck_out():
    endpoint = Endpoint("https://x/v1", KEY)
    assert KEY not in repr(endpoint)
    assert endpoint.redacted(f"a {KEY}! b{KEY}") == "a [key]! b[key]"


def test_a_placeholder_is_no_secret():
    assert Endpoint("http://127.0.0.1", "x").redacted("extra") == "extra"


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("127.0.0.1.evil.com", False),
    ],
)
def test_loopback(host, is_here):
    assert is_loopback(host) is is_here
