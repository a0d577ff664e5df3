"""A server that would be open to strangers, or could not serve, does not start: one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.errors import SettingsError
from contracts.settings import ServerSettings, Settings
from service.cli import main
from service.exposure import check_exposure
from tests.certificates import Certificate, encrypt_key, make_certificate

KEY = "sk-canary-0123456789"
ANYWHERE = "0.0.0.0"  # noqa: S104
BEYOND = [
    ANYWHERE,
    "::",
    "192.168.1.5",
    "models.example.org",
    "::ffff:127.0.0.1",
    "127.1",
    "0",
    "localhost.evil.com",
    "",
]


def check(**server: object) -> None:
    check_exposure(Settings(server=ServerSettings(**server)), {})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class TestKeys:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "127.0.0.2"])
    def test_this_machine_alone_needs_no_key(self, host: str) -> None:
        check(host=host)

    @pytest.mark.parametrize("host", BEYOND)
    def test_beyond_this_machine_there_must_be_a_key(self, host: str) -> None:
        with pytest.raises(SettingsError, match="there is no API key"):
            check(host=host)

    @pytest.mark.parametrize("host", BEYOND)
    def test_a_key_or_the_word_of_the_operator_is_enough(self, host: str, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(f'[[keys]]\nlabel = "a"\nkey = "{KEY}"')
        check(host=host, api_keys=KEY)
        check(host=host, api_keys_file=str(path))
        check(host=host, insecure_no_auth=True)

    def test_file_without_a_key_is_no_key(self, tmp_path: Path) -> None:
        path = tmp_path / "keys.toml"
        path.write_text("")
        with pytest.raises(SettingsError, match=r"holds no \[\[keys\]\] table"):
            check(host=ANYWHERE, api_keys_file=str(path), insecure_no_auth=True)

    @pytest.mark.parametrize("server", [{"api_keys": "short"}, {"api_keys_file": "/nowhere/keys.toml"}])
    def test_keys_that_cannot_be_used_are_refused_on_loopback_too(self, server: dict[str, str]) -> None:
        with pytest.raises(SettingsError):
            check(**server)


@pytest.mark.parametrize("server", [{"allowed_hosts": "*"}, {"cors_origins": "*"}])
def test_patterns_are_refused_at_the_start(server: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"--(allowed-hosts|cors-origins) holds"):
        check(**server)


def test_debugging_is_refused() -> None:
    with pytest.raises(SettingsError, match="LITESTAR_DEBUG is set"):
        check_exposure(Settings(), {"LITESTAR_DEBUG": "1"})
    check_exposure(Settings(), {"LITESTAR_DEBUG": ""})


class TestCertificate:
    def test_certificate_and_its_key_are_accepted(self, certificate: Certificate) -> None:
        check(ssl_certfile=certificate.certfile, ssl_keyfile=certificate.keyfile)

    @pytest.mark.parametrize(("given", "missing"), [("certfile", "keyfile"), ("keyfile", "certfile")])
    def test_one_without_the_other_is_refused(self, certificate: Certificate, given: str, missing: str) -> None:
        with pytest.raises(SettingsError, match=f"^--ssl-{given} is given without --ssl-{missing}"):
            check(**{f"ssl_{given}": getattr(certificate, given)})

    def test_files_that_do_not_fit_are_refused(self, certificate: Certificate, tmp_path: Path) -> None:
        other = make_certificate(tmp_path)
        with pytest.raises(SettingsError, match="cannot be used: key values mismatch"):
            check(ssl_certfile=certificate.certfile, ssl_keyfile=other.keyfile)

    @pytest.mark.parametrize("broken", ["certfile", "keyfile"])
    @pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n", b"\xff\x00"])
    def test_files_that_do_not_parse_are_refused(
        self, certificate: Certificate, tmp_path: Path, broken: str, content: bytes
    ) -> None:
        path = tmp_path / "broken.pem"
        path.write_bytes(content)
        files = {"ssl_certfile": certificate.certfile, "ssl_keyfile": certificate.keyfile, f"ssl_{broken}": str(path)}
        with pytest.raises(SettingsError, match="cannot be used: "):
            check(**files)

    @pytest.mark.parametrize("missing", ["certfile", "keyfile"])
    def test_files_that_cannot_be_read_are_named(self, certificate: Certificate, tmp_path: Path, missing: str) -> None:
        names = {"ssl_certfile": certificate.certfile, "ssl_keyfile": certificate.keyfile}
        for path in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(SettingsError, match=f"^--ssl-{missing} is .* which cannot be read: "):
                check(**{**names, f"ssl_{missing}": str(path)})

    def test_encrypted_key_is_refused_without_asking_for_its_password(
        self, certificate: Certificate, tmp_path: Path
    ) -> None:
        encrypted = encrypt_key(certificate.keyfile, tmp_path / "encrypted.pem")
        with pytest.raises(SettingsError, match="is encrypted"):
            check(ssl_certfile=certificate.certfile, ssl_keyfile=encrypted)


class TestCommand:
    @pytest.fixture
    def runner(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
        monkeypatch.chdir(tmp_path)
        return CliRunner()

    @pytest.mark.parametrize(
        ("arguments", "environ", "message"),
        [
            (["--host", ANYWHERE], {}, "Error: --host is '0.0.0.0', which others can reach"),
            (["--ssl-certfile", "c.pem"], {}, "Error: --ssl-certfile is given without --ssl-keyfile."),
            (["--allowed-hosts", "*.org"], {}, "Error: --allowed-hosts holds '*.org'"),
            ([], {"LITESTAR_DEBUG": "1"}, "Error: LITESTAR_DEBUG is set"),
            ([], {"LLM_API_KEYS": "canary"}, "Error: LLM_API_KEYS, entry 1: the key has 6 characters"),
            ([], {"LLM_API_KEYS_FILE": "nowhere.toml"}, "Error: The file of API keys nowhere.toml cannot be read"),
        ],
    )
    def test_refusal_is_one_line_before_anything_starts(
        self, runner: CliRunner, arguments: list[str], environ: dict[str, str], message: str
    ) -> None:
        result = runner.invoke(main, ["serve", "./nowhere", *arguments], env=environ)
        assert result.exit_code == 2
        assert result.stderr.startswith(message)
        assert result.stderr.count("\n") == 1
        assert "canary" not in result.output

    @pytest.mark.parametrize("arguments", [[], ["--host", ANYWHERE, "--insecure-no-auth"]])
    def test_what_is_allowed_goes_on_to_the_model(self, runner: CliRunner, arguments: list[str]) -> None:
        result = runner.invoke(main, ["serve", "./nowhere", *arguments])
        assert result.exit_code == 3
