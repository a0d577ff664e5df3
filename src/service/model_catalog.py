"""From flags and the models file to the catalog of declared models: MODEL, the file's, those of --models, the embedded.

Owns what an alias may look like and which source a word names. Reads the file and looks whether directories and
templates are there; never asks the hub, never reads weights.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from contracts.errors import ModelNotUsable, SettingsError, clip
from contracts.model_catalog import ModelCatalog, ModelProfile
from contracts.settings import EMBEDDED_MODEL, EngineSettings, Settings
from contracts.sizes import parse_bytes
from service.base_templates import BASE_TEMPLATES
from service.model_check import check_model_exists
from service.models_file import DeclaredTable, read_models_file
from service.older_names import refuse_misleading
from service.ready_models import READY_MODELS, find_ready

MAX_ALIAS_LEN = 128
ALIAS_RULE = (
    f"letters, digits and . _ - : @, with single slashes between parts that begin with a letter or digit, at most "
    f"{MAX_ALIAS_LEN} characters"
)
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*(?:/[A-Za-z0-9][A-Za-z0-9._:@-]*)*")
_FLAG = "--models"


def read_catalog(settings: Settings) -> ModelCatalog:
    """Every declared model, MODEL first; raises SettingsError, naming file or flag, key, value and remedy."""
    declared = [*_from_file(settings.catalog.models_file), *_from_flag(settings.catalog.models)]
    profiles: dict[str, ModelProfile] = {}
    for place, profile in declared:
        if profile.alias in profiles:
            raise SettingsError(f"{place} declares '{profile.alias}', but so does another. Aliases must be distinct.")
        profiles[profile.alias] = profile
    first = _from_argument(settings.engine, profiles)
    profiles = {first.alias: first, **{alias: profile for alias, profile in profiles.items() if alias != first.alias}}
    if EMBEDDED_MODEL not in profiles and not any(profile.is_embedded for profile in profiles.values()):
        profiles[EMBEDDED_MODEL] = ModelProfile(alias=EMBEDDED_MODEL, model=EMBEDDED_MODEL)
    wanted = settings.catalog.default_model
    if wanted is not None and wanted not in profiles:
        known = f"Declared are {', '.join(profiles)}."
        raise SettingsError(
            f"--default-model is '{clip(wanted)}', which is not declared. {_hint(wanted, profiles, known)}"
        )
    return ModelCatalog(profiles=tuple(profiles.values()), default_alias=wanted or first.alias)


def check_models(catalog: ModelCatalog, settings: Settings) -> None:
    """Raise ModelNotUsable for a declared model that cannot exist: no such directory, or offline and not fetched."""
    argument, *others = catalog.profiles
    check_model_exists(argument.engine_settings(settings.engine))
    for profile in others:
        try:
            check_model_exists(profile.engine_settings(settings.engine))
        except ModelNotUsable as error:
            raise ModelNotUsable(f"The declared model '{profile.alias}': {error.message}") from error


def _from_argument(engine: EngineSettings, declared: dict[str, ModelProfile]) -> ModelProfile:
    """The profile of MODEL: a declared alias, a ready entry, or as it is given. Its flags win over what is declared."""
    own = declared.get(engine.model) if not Path(engine.model).is_dir() else None
    if own is not None and engine.served_model_name not in (None, own.alias):
        raise SettingsError(
            f"--served-model-name renames MODEL, but '{own.alias}' is declared under that name. Declare it as "
            f"'{clip(str(engine.served_model_name))}' instead."
        )
    if own is None and not Path(engine.model).is_dir():
        refuse_misleading(engine.model)
    profile = own or _profile_of(engine.model, _default_alias(engine.model), Path())
    profile = msgspec.structs.replace(
        profile,
        alias=engine.served_model_name or profile.alias,
        max_model_len=engine.max_model_len or profile.max_model_len,
    )
    other = declared.get(profile.alias)
    if other is not None and own is None:
        raise SettingsError(
            f"MODEL would be served as '{clip(profile.alias)}', but that alias is declared for {clip(other.model)}. "
            "Give MODEL another name with --served-model-name."
        )
    return profile


def _from_file(name: str | None) -> Iterator[tuple[str, ModelProfile]]:
    path = Path(name or "").expanduser()
    for declared in read_models_file(path) if name is not None else []:
        yield declared.place, _from_table(declared, path.parent)


def _from_table(declared: DeclaredTable, directory: Path) -> ModelProfile:
    table, place = declared.table, declared.place
    _check_alias(table.alias, f"{place}, alias")
    if table.model is None:
        start = _ready(table.alias, f"{place} has no 'model', and")
    else:
        start = _located(table.model, table.alias, directory, f"{place}, model")
    own = {name: getattr(table, name) for name in table.__struct_fields__}
    for name in ("alias", "model", "memory", "template"):
        del own[name]
    given = {name: value for name, value in own.items() if value is not None}
    if table.template is not None:
        given["template"] = _template(table.template, directory, f"{place}, template")
    if table.memory is not None:
        given["memory_bytes"] = parse_bytes(table.memory)
    profile = msgspec.structs.replace(start, **given)
    if profile.is_chat is False and table.template is not None:
        raise SettingsError(f"{place} gives a template and says is_chat = false. Leave one of them out.")
    return profile


def _from_flag(text: str) -> Iterator[tuple[str, ModelProfile]]:
    """`alias=directory`, `alias=hub/name` or the name of a ready entry, with commas between them."""
    for word in filter(None, (part.strip() for part in text.split(","))):
        alias, equals, model = (part.strip() for part in word.partition("="))
        place = f"{_FLAG} '{clip(word)}'"
        if not equals:
            yield place, _ready(alias, _FLAG)
            continue
        _check_alias(alias, place)
        if not model:
            raise SettingsError(f"{place} names no model. Write {clip(alias)}=directory or {clip(alias)}=hub/name.")
        yield place, _located(model, alias, Path(), place)


def _ready(alias: str, subject: str) -> ModelProfile:
    """The ready entry of the name; a SettingsError that begins with `subject` where there is none."""
    if alias == EMBEDDED_MODEL:
        return ModelProfile(alias=alias, model=alias)
    profile = find_ready(alias)
    if profile is not None:
        return profile
    if "/" in alias or Path(alias).is_dir():
        remedy = f"Give it an alias: {clip(alias.rstrip('/').rpartition('/')[2] or 'alias')}={clip(alias)}."
    else:
        remedy = _hint(alias, READY_MODELS, f"There are {', '.join(READY_MODELS)}. Write alias=hub/name for others.")
    raise SettingsError(f"{subject} '{clip(alias)}' is no ready entry. {remedy}")


def _located(model: str, alias: str, directory: Path, place: str) -> ModelProfile:
    """The profile of a model that was written down; a path that is not there is refused with the place."""
    profile = _profile_of(model, alias, directory)
    if alias == EMBEDDED_MODEL and not profile.is_embedded:
        raise SettingsError(f"{place}: '{EMBEDDED_MODEL}' is the embedded model's name. Take another alias.")
    try:
        check_model_exists(EngineSettings(model=profile.model))
    except ModelNotUsable as error:
        raise SettingsError(f"{place}: {error.message}") from error
    return profile


def _profile_of(model: str, alias: str, directory: Path) -> ModelProfile:
    """What `model` names: the embedded model, a directory (from `directory` on), a ready entry, else a hub name."""
    path = directory / Path(model).expanduser()
    if model and model != EMBEDDED_MODEL and path.is_dir():
        return ModelProfile(alias=alias, model=str(path.resolve()))
    ready = find_ready(model)
    if ready is not None:
        return msgspec.structs.replace(ready, alias=alias)
    return ModelProfile(alias=alias, model=model)


def _default_alias(model: str) -> str:
    """As batching.model_loader names a model: a directory by its last part, anything else as it is."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _template(text: str, directory: Path, place: str) -> str:
    """A built-in name as it is, a file by its absolute path; SettingsError for what is neither."""
    if text in BASE_TEMPLATES:
        return text
    path = directory / Path(text).expanduser()
    if text.endswith(".jinja") and path.is_file():
        return str(path.resolve())
    if text.endswith(".jinja"):
        raise SettingsError(f"{place}: there is no file {path}.")
    known = f"Take one of {', '.join(BASE_TEMPLATES)}, or a file that ends in .jinja."
    raise SettingsError(f"{place} is '{clip(text)}', which is no template. {_hint(text, BASE_TEMPLATES, known)}")


def _check_alias(alias: str, place: str) -> None:
    if len(alias) > MAX_ALIAS_LEN or not _ALIAS.fullmatch(alias):
        raise SettingsError(f"{place}: {clip(repr(alias), 60)} cannot be an alias. It needs {ALIAS_RULE}.")


def _hint(word: str, known: object, otherwise: str) -> str:
    near = difflib.get_close_matches(word[:64], list(known), n=3)  # type: ignore[call-overload]
    names = " or ".join(f"'{name}'" for name in near)
    return f"Did you mean {names}?" if near else otherwise
