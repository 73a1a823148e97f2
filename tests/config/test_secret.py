from anyclaude.config.secret import Secret


def test_a_secret_shows_itself_only_when_it_is_asked_to() -> None:
    secret = Secret("sk-1")

    assert secret.reveal() == "sk-1"
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r:>20}", "%s" % (secret,), str([secret])):  # noqa: UP031
        assert "sk-1" not in shown
    assert not hasattr(secret, "__dict__")


def test_secrets_are_equal_by_what_they_hold() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2


def test_an_empty_secret_is_false() -> None:
    assert Secret("a")
    assert not Secret("")
