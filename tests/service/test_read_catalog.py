"""MODEL, the models file, --models and the embedded model become one catalog, or a sentence that says what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.errors import ModelNotUsable, SettingsError
from contracts.model_catalog import ModelCatalog, ModelProfile, ProfileSampling
from contracts.settings import CatalogSettings, EngineSettings, Settings
from service.model_catalog import check_models, read_catalog
from service.ready_models import READY_MODELS

EMBEDDED = ModelProfile(alias="quire-pico", model="quire-pico")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a model in `llama` and a directory that is none in `empty`."""
    monkeypatch.chdir(tmp_path)
    for name in ("llama", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "llama" / "config.json").write_text("{}")
    return tmp_path


def settings_of(models: str = "", file: str | None = None, **fields: Any) -> Settings:
    """Settings with a models file of this text; `default_model` belongs to the catalog, other fields to the engine."""
    catalog = CatalogSettings(models=models, default_model=fields.pop("default_model", None))
    if file is not None:
        Path("models.toml").write_text(file)
        catalog = msgspec.structs.replace(catalog, models_file="models.toml")
    return Settings(engine=EngineSettings(**fields), catalog=catalog)


def catalog_of(models: str = "", file: str | None = None, **fields: Any) -> ModelCatalog:
    return read_catalog(settings_of(models, file, **fields))


def refusal_of(models: str = "", file: str | None = None, **fields: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        catalog_of(models, file, **fields)
    assert caught.value.exit_code == 2
    return caught.value.message


class TestWhatIsDeclared:
    def test_without_a_word_only_the_embedded_model(self) -> None:
        assert catalog_of() == ModelCatalog(profiles=(EMBEDDED,), default_alias="quire-pico")

    def test_argument_is_first_and_default_and_the_embedded_model_last(self, directory: Path) -> None:
        catalog = catalog_of("other=org/other", model="llama", max_model_len=64)
        argument = ModelProfile(alias="llama", model=str(directory / "llama"), max_model_len=64)
        other = ModelProfile(alias="other", model="org/other")
        assert catalog == ModelCatalog(profiles=(argument, other, EMBEDDED), default_alias="llama")

    def test_served_name_is_the_alias_of_the_argument(self) -> None:
        assert catalog_of(model="org/model", served_model_name="My Model").aliases == ("My Model", "quire-pico")

    def test_embedded_model_under_another_name_is_not_declared_twice(self) -> None:
        assert catalog_of(served_model_name="tiny").aliases == ("tiny",)

    def test_ready_entry_is_declared_by_its_name_alone(self) -> None:
        catalog = catalog_of(" gpt2 ,, llama-3.2-1b,")
        assert catalog.aliases == ("quire-pico", "gpt2", "llama-3.2-1b")
        assert catalog.get("gpt2") == READY_MODELS["gpt2"].profile

    def test_ready_entry_under_another_name(self) -> None:
        profile = catalog_of("base=gpt2").find("base")
        assert (profile.model, profile.template, profile.shown_name) == ("openai-community/gpt2", "gpt2", "GPT-2")

    def test_ready_entry_as_the_argument_keeps_the_operators_window(self) -> None:
        profile = catalog_of(model="gpt2", max_model_len=512).default
        assert (profile.alias, profile.template, profile.max_model_len) == ("gpt2", "gpt2", 512)

    def test_directory_wins_over_a_ready_entry_of_its_name(self, directory: Path) -> None:
        (directory / "llama").rename(directory / "gpt2")
        assert catalog_of("a=gpt2").find("a").model == str(directory / "gpt2")

    def test_table_changes_what_it_names_of_a_ready_entry(self) -> None:
        file = '[[models]]\nalias = "gpt2"\nmax_model_len = 256\nmemory = "1GiB"\nsampling = {top_k = 5}'
        expected = msgspec.structs.replace(
            READY_MODELS["gpt2"].profile,
            max_model_len=256,
            memory_bytes=2**30,
            sampling=ProfileSampling(top_k=5),
        )
        assert catalog_of(file=file).get("gpt2") == expected

    def test_paths_in_the_file_are_relative_to_it(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (directory / "my.jinja").write_text("{{ messages }}")
        file = '[[models]]\nalias = "a"\nmodel = "llama"\ntemplate = "my.jinja"'
        settings = settings_of(file=file)
        monkeypatch.chdir("empty")
        catalog = msgspec.structs.replace(settings.catalog, models_file=str(directory / "models.toml"))
        profile = read_catalog(msgspec.structs.replace(settings, catalog=catalog)).find("a")
        assert profile.model == str(directory / "llama")
        assert profile.template == str(directory / "my.jinja")

    def test_declared_alias_can_be_the_argument(self) -> None:
        file = '[[models]]\nalias = "b"\nmodel = "org/b"\nmax_model_len = 9'
        catalog = catalog_of("a=org/a", file, model="b", max_model_len=8)
        assert (catalog.aliases, catalog.default_alias) == (("b", "a", "quire-pico"), "b")
        assert catalog.default.max_model_len == 8

    def test_default_may_be_any_declared_model(self) -> None:
        assert catalog_of("gpt2", default_model="gpt2").default_alias == "gpt2"
        assert catalog_of("gpt2", model="llama", default_model="quire-pico").default == EMBEDDED

    def test_embedded_model_may_be_declared_with_other_defaults(self) -> None:
        file = '[[models]]\nalias = "quire-pico"\nsampling = {temperature = 0.5}'
        assert catalog_of(file=file).default.sampling == ProfileSampling(temperature=0.5)

    @pytest.mark.parametrize("alias", ["a", "Org/Model-7B.v2", "a:b@c", "0", "a" * 128])
    def test_alias_may_hold_what_model_names_hold(self, alias: str) -> None:
        assert alias in catalog_of(f"{alias}=org/x").aliases


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        "alias", ["a b", "/a", "a/", "a//b", "../a", "a/../b", ".a", "-a", "é", "a\n", "a?b", "a#b", "a%20", "a" * 129]
    )
    def test_alias_with_odd_characters(self, alias: str) -> None:
        message = refusal_of(file=f'[[models]]\nalias = {msgspec.json.encode(alias).decode()}\nmodel = "org/x"')
        assert "cannot be an alias. It needs letters, digits and . _ - : @" in message

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            ("=org/x", "--models '=org/x': '' cannot be an alias."),
            ("a=", "--models 'a=' names no model. Write a=directory or a=hub/name."),
            ("gtp2", "--models 'gtp2' is no ready entry. Did you mean 'gpt2'"),
            ("zzz", "--models 'zzz' is no ready entry. There are gpt2, gpt2-medium,"),
            ("org/zzz", "--models 'org/zzz' is no ready entry. Give it an alias: zzz=org/zzz."),
            ("./llama", "--models './llama' is no ready entry. Give it an alias: llama=./llama."),
            ("a=./nope", "--models 'a=./nope': There is no model directory './nope'."),
            ("a=empty", "holds no config.json."),
            ("a=b=c", "--models 'a=b=c': There is no model directory 'b=c'."),
            ("a=org/x,a=org/y", "--models 'a=org/y' declares 'a', but so does another."),
            ("quire-pico=org/x", "--models 'quire-pico=org/x': 'quire-pico' is the embedded model's name."),
        ],
    )
    def test_word_of_the_flag(self, models: str, message: str) -> None:
        assert message in refusal_of(models)

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            ('alias = "a"', "models.toml, model 1 ('a') has no 'model', and 'a' is no ready entry."),
            ('alias = "a"\nmodel = ""', "models.toml, model 1 ('a'), model: There is no model directory ''."),
            ('alias = "a"\nmodel = "empty"', "holds no config.json."),
            (
                'alias = "a"\nmodel = "org/x"\ntemplate = "lama3"',
                "models.toml, model 1 ('a'), template is 'lama3', which is no template. Did you mean 'llama3'?",
            ),
            (
                'alias = "a"\nmodel = "org/x"\ntemplate = "q"',
                "Take one of llama3, chatml, gemma, dialogpt, gpt2, default, or a file that ends in .jinja.",
            ),
            ('alias = "a"\nmodel = "org/x"\ntemplate = "no.jinja"', "template: there is no file no.jinja."),
            (
                'alias = "a"\nmodel = "org/x"\ntemplate = "gpt2"\nis_chat = false',
                "models.toml, model 1 ('a') gives a template and says is_chat = false.",
            ),
        ],
    )
    def test_table_of_the_file(self, table: str, message: str) -> None:
        assert message in refusal_of(file=f"[[models]]\n{table}")

    def test_alias_in_file_and_flag(self) -> None:
        message = refusal_of("a=org/y", '[[models]]\nalias = "a"\nmodel = "org/x"')
        assert message.startswith("--models 'a=org/y' declares 'a'")

    def test_alias_that_the_argument_takes(self) -> None:
        message = refusal_of("llama=org/x", model="llama")
        assert "declared for org/x. Give MODEL another name with --served-model-name." in message

    def test_new_name_for_a_declared_alias(self) -> None:
        assert "--served-model-name renames MODEL" in refusal_of("a=org/a", model="a", served_model_name="b")

    def test_default_that_is_not_declared(self) -> None:
        message = refusal_of("gpt2", default_model="gpt2-xl")
        assert message == "--default-model is 'gpt2-xl', which is not declared. Did you mean 'gpt2'?"


class TestWhatCannotExist:
    def test_hub_name_that_is_not_here_is_refused_offline(self) -> None:
        settings = settings_of("a=org/quire-test-of-a-missing-model", offline=True)
        with pytest.raises(ModelNotUsable, match=r"The declared model 'a': .*the hub may not be asked"):
            check_models(read_catalog(settings), settings)

    def test_hub_names_pass_where_the_hub_may_be_asked(self) -> None:
        settings = settings_of("gpt2,a=org/x")
        check_models(read_catalog(settings), settings)

    def test_argument_is_refused_as_it_stands(self) -> None:
        settings = settings_of(model="./nope")
        with pytest.raises(ModelNotUsable, match=r"^There is no model directory './nope'"):
            check_models(read_catalog(settings), settings)
