"""No piece of a password is told, whatever a library makes of the address that holds it."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from audio_mu.errors import UserError
from audio_mu.printable import printable
from audio_mu.store.connect import open_store

ADDRESSES = (
    "http://u:{}@127.0.0.1:1", "https://{}@127.0.0.1:1/x", "//u:{}@127.0.0.1:1/x", "postgresql://u:{}@127.0.0.1:port/x",
    "postgresql+psycopg2://u:{}@127.0.0.1:1/x", "mysql+nothing://u:{}@127.0.0.1:1/x", "ftp://u:{}@127.0.0.1:1/x",
    "postgresql://u@127.0.0.1:1/x?password={}",
)  # fmt: skip
SECRETS = st.lists(st.text("qxzjkvw", min_size=4, max_size=6), min_size=1, max_size=3)


@pytest.fixture(autouse=True)
def tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow asks a server and a database for minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 0)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ADDRESSES), SECRETS, st.sampled_from([*"/@:#?%&=-. '\\", "%40"]))
@example(ADDRESSES[0], ["hunx", "terq"], "/")
@example(ADDRESSES[4], ["hunx", "terq"], "@")
@example(ADDRESSES[7], ["qqqq", "kkkk"], " ")
@example(ADDRESSES[2], ["sqxzret"], "-")
def test_nothing_of_a_password_is_told(
    capsys: pytest.CaptureFixture[str], address: str, words: list[str], between: str
) -> None:
    """Catches an address that is masked while the driver's own words, a port or a host, hold a half of its password."""
    assume(between != "&" or "=" not in address)  # which ends the password there
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address.format(between.join(words)))
        with pytest.raises(UserError) as raised:
            open_store()
        told = f"{raised.value}{''.join(capsys.readouterr())}"
    assert "\n" not in str(raised.value)
    assert not [word for word in words if word in told]


def test_other_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a token that a server's answer repeats, and a masking that takes the user's or host's name as well."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-1234")
    monkeypatch.setenv("AUDIO_MU_LEDGER", "https://mlflow:pa%2Fss4567@mlflow.org/list")
    assert printable("denied: tok-1234, pa/ss4567, SS4567, mlflow run .") == "denied: ***, ***, ***, mlflow run ."
    assert not re.search("ss4567", printable("could not translate host name 'ss4567@mlflow.org'"))
