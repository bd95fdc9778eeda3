"""Who may see what the server tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from measnet.errors import UsageError
from measnet.runtime.live.events import Events
from measnet.runtime.operations.access import FILE_VARIABLE, GUESSES, VARIABLE, Guesses
from measnet.runtime.operations.server import Operations
from runtime.operations.kit import ANYWHERE, HERE, TOKEN, Camera, Connect, Serve


def test_at_home_it_answers_to_its_own_names_alone(serve: Serve, client: Connect, events: Events) -> None:
    operations = serve(Camera("door", events))
    asking = client(operations)
    for host in ("localhost", "127.0.0.1:8080", "[::1]:9", "LOCALHOST:1"):
        assert asking.get("/api/cameras", Host=host)[0] == 200, host
    for host in (
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "",
        "[::1].evil",
        "::1",
    ):
        assert asking.get("/api/cameras", Host=host)[0] == 421, host
    assert operations.lines == [f"console: {operations.url()}/"]


def test_what_a_page_may_do_is_said_to_browsers(serve: Serve, client: Connect) -> None:
    status, headers, body = client(serve()).get("/")
    assert status == 200 and b"</html>" in body
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    assert b"http://" not in body and b"https://" not in body, "the page has to work without the internet"


def test_from_elsewhere_it_wants_a_token_and_prints_the_one_that_it_made(
    serve: Serve, client: Connect, events: Events
) -> None:
    operations = serve(Camera("door", events), console=ANYWHERE, metrics=ANYWHERE)
    [line] = operations.lines
    token = re.fullmatch(r"console: http://[^/]+/\?token=([\w-]{32})", line)
    assert token is not None
    asking = client(operations)
    for path in ("/", "/api/live", "/api/cameras", "/api/pair?camera=door", "/metrics", "/nothing"):
        status, headers, _ = asking.get(path)
        assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
        assert asking.get(path, Authorization="Bearer wrong-" + path)[0] == 401
    assert asking.get("/healthz")[0] == 200
    for path in ("/", "/api/live", "/metrics"):
        assert asking.get(path, Authorization=f"Bearer {token[1]}")[0] == 200, path


def test_a_browser_gives_the_token_once_and_keeps_a_cookie_that_is_not_it(
    serve: Serve, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    operations = serve(console=ANYWHERE)
    assert TOKEN not in "".join(operations.lines)
    asking = client(operations)
    status, _, form = asking.get("/", Accept="text/html")
    assert status == 401 and b'name="token"' in form
    assert asking.get("/?token=not-the-token", Accept="text/html")[0] == 401
    status, headers, body = asking.get(f"/?token={TOKEN}", Accept="text/html")
    assert status == 303 and headers["location"] == "/"
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower()
    assert TOKEN not in cookie + body.decode() + str(headers)
    kept = cookie.split(";")[0]
    assert asking.get("/", Cookie=kept)[0] == 200
    assert asking.get("/api/live", Cookie=kept)[0] == 200
    assert asking.get("/api/live", Cookie=kept[:-1] + "x")[0] == 401
    assert asking.get(f"/api/live?token={TOKEN}")[0] == 401  # in an address it is for the page alone


def test_a_token_that_is_guessed_a_thousand_times_is_not_found_nor_are_others_kept_out(
    serve: Serve, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    operations = serve(console=ANYWHERE)
    bad, good = client(operations, "127.0.0.2"), client(operations, "127.0.0.3")
    answers = []
    for number in range(1000):
        way = number % 2
        guess = f"guess-{number:020}"
        status, headers, body = (
            bad.get(f"/?token={guess}") if way else bad.get("/api/live", Authorization=f"Bearer {guess}")
        )
        answers.append(status)
        assert TOKEN.encode() not in body
    assert answers[:GUESSES] == [401] * GUESSES and set(answers[GUESSES:]) == {429}
    assert 0 < int(headers["retry-after"]) <= 60
    assert bad.get("/api/live", Authorization=f"Bearer {TOKEN}")[0] == 429  # nor does a right one tell itself
    assert good.get("/api/live", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_wrong_tokens_are_forgotten_in_time_and_their_number_is_bounded() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    for _ in range(GUESSES):
        assert guesses.seconds_to_wait("10.0.0.1") == 0
        guesses.wrong("10.0.0.1")
    assert guesses.seconds_to_wait("10.0.0.1") > 59
    now = 61.0
    assert guesses.seconds_to_wait("10.0.0.1") == 0
    for number in range(GUESSES):
        guesses.wrong(f"2001:db8::{number:x}")  # one subscriber has all of them
    assert guesses.seconds_to_wait("2001:db8::ffff") > 0
    assert guesses.seconds_to_wait("2001:db8:0:1::1") == 0
    for number in range(Guesses.MOST + 10):
        guesses.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(guesses._wrong) == Guesses.MOST


@pytest.mark.parametrize("token", ["short", "with spaces in it, many", "x" * 300, "ümläut-in-a-long-token"])
def test_a_token_that_could_be_guessed_or_not_be_sent_is_refused(
    token: str, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, token)
    with pytest.raises(UsageError, match="16 to 256 letters") as refused:
        Operations(events, console=HERE)
    assert token not in str(refused.value)


def test_a_token_can_be_in_a_file_and_a_given_one_holds_at_home_too(
    serve: Serve, client: Connect, events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "token"))
    asking = client(serve())
    assert asking.get("/api/live")[0] == 401
    assert asking.get("/api/live", Authorization=f"Bearer {TOKEN}", Host="proxy.example")[0] == 200
    monkeypatch.setenv(FILE_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UsageError, match="cannot be read"):
        Operations(events, console=HERE)


def test_a_token_is_not_made_where_it_would_stand_in_a_log(events: Events) -> None:
    with pytest.raises(UsageError, match=f"set {VARIABLE}"):
        Operations(events, console=ANYWHERE, may_print=False)
    Operations(events, console=HERE, may_print=False).close()
