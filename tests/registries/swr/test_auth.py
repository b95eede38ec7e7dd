"""The choice of SWR's authentication, and the secrets of each kind."""

import pytest

from tagsync.errors import (
    ConfigError,
)
from tagsync.registries.credentials import (
    AgencyCredential,
    Credential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tagsync.registries.renewal import RegistryAuth
from tagsync.registries.swr.auth import auth_for
from tagsync.registries.swr.ecs import AgencyAuth
from tagsync.registries.swr.iam import PasswordAuth, TokenAuth
from tagsync.registries.swr.signing import (
    SigningAuth,
)
from tagsync.secrets import Secret
from tests.support.cloud import (
    PASSWORD,
    SECRET_KEY,
    Cloud,
    SetClock,
    by_agency,
    by_password,
    send,
    shows,
)


def test_repr_shows_no_secret() -> None:
    """The texts of an object and its attributes contain no secret."""
    clock = SetClock()
    password, agency = by_password(clock), by_agency(clock)
    for auth in (password, agency):
        send(auth, Cloud(clock))
    keys = KeyCredential(Secret("AK"), Secret(SECRET_KEY), Secret("made-up-token-9"))
    signing = SigningAuth(keys, clock)

    for shown in (password, agency, signing, TokenAuth(Secret("made-up-token-9"))):
        assert not shows(shown, PASSWORD, SECRET_KEY, "made-up")


def test_secrets_are_known() -> None:
    """Each kind knows its secrets, including those that it fetched and replaced."""
    clock = SetClock()
    password, agency = by_password(clock), by_agency(clock)
    assert [secret.reveal() for secret in password.secrets] == [PASSWORD]
    assert not any(agency.secrets)
    for auth in (password, agency):
        cloud = Cloud(clock)
        send(auth, cloud)
        cloud.valid = {2}
        send(auth, cloud)

    known = {secret.reveal() for secret in password.secrets}
    assert known == {PASSWORD, "made-up-token-2", "made-up-token-1"}
    known = {secret.reveal() for secret in agency.secrets}
    assert known >= {"made-up-secret-2", "made-up-token-2", "made-up-secret-1", "made-up-token-1"}
    token = Secret("made-up-token-9")
    assert TokenAuth(token).secrets == (token,)
    assert SigningAuth(KeyCredential(Secret("AK"), token), clock).secrets[1:] == (token,)
    temporary = SigningAuth(KeyCredential(Secret("AK"), token, token), clock)
    assert temporary.secrets[0].reveal() == "AK"
    assert temporary.secrets[1:] == (token, token)


@pytest.mark.parametrize("bad", ["", "made-up\n", " made-up", "made-up\xe9", "made-up\r\nX: y"])
def test_value_unfit_for_a_header_is_refused(bad: str) -> None:
    """A value that no header can carry is refused before h11 quotes it in an error."""
    good, clock = Secret(SECRET_KEY), SetClock()
    for make in (
        lambda: TokenAuth(Secret(bad)),
        lambda: SigningAuth(KeyCredential(Secret(bad), good), clock),
        lambda: SigningAuth(KeyCredential(Secret("AK"), good, Secret(bad)), clock),
        lambda: SigningAuth(KeyCredential(good, good, None, bad), clock),
        lambda: AgencyAuth(AgencyCredential(), clock, project_id=bad),
    ):
        with pytest.raises(ConfigError) as caught:
            make()
        assert not shows(caught.value, "made-up")


@pytest.mark.parametrize("bad", ["", "iam.example.com", "ftp://iam", "https://", "https://a:b"])
def test_invalid_endpoint_is_refused(bad: str) -> None:
    """An endpoint that is not a URL is an error of the configuration."""
    clock = SetClock()
    with pytest.raises(ConfigError, match="iam_endpoint"):
        PasswordAuth(PasswordCredential(bad, "robot", Secret(PASSWORD), "acme", "eu-de"), clock)
    with pytest.raises(ConfigError, match="metadata_endpoint"):
        AgencyAuth(AgencyCredential(bad), clock)


@pytest.mark.parametrize(
    ("credential", "kind", "secrets"),
    [
        (TokenCredential(Secret("made-up-1")), TokenAuth, {"made-up-1"}),
        (
            KeyCredential(Secret("MADEUP"), Secret("made-up-2"), Secret("made-up-3"), "project"),
            SigningAuth,
            {"MADEUP", "made-up-2", "made-up-3"},
        ),
        (
            PasswordCredential("https://iam.example", "robot", Secret("made-up-4"), "d", "p"),
            PasswordAuth,
            {"made-up-4"},
        ),
        (AgencyCredential("http://169.254.169.254"), AgencyAuth, set()),
    ],
    ids=["token", "aksk", "password", "ecs"],
)
def test_each_credential_has_its_authentication(
    credential: Credential, kind: type[object], secrets: set[str]
) -> None:
    """Each kind of credential has its authentication, which knows its secrets."""
    signer = auth_for(credential)

    assert isinstance(signer, kind)
    assert isinstance(signer, RegistryAuth)
    assert {secret.reveal() for secret in signer.secrets} == secrets


def test_no_credential_needs_no_authentication() -> None:
    """Without a credential, requests are anonymous."""
    assert auth_for(NoCredential()) is None
