"""What the fields of the settings Structs say about themselves: flag, variable, allowed values, default and help.

Everything derives from `contracts.settings`; a setting is added there and nowhere else. Knows nothing of where values
come from: that is settings_loader.
"""

from __future__ import annotations

from typing import Literal, get_args, get_type_hints

import msgspec
from msgspec import inspect

from contracts.settings import CatalogSettings, EngineSettings, ServerSettings

VARIABLE_PREFIX = "LLM_"

GroupName = Literal["engine", "catalog", "server"]


class SettingField(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as people meet it."""

    name: str
    group: GroupName
    annotation: object
    """The type as declared, constraints included: msgspec.convert checks a value against it."""
    default: object
    help: str
    allowed: str
    """What a value may be, in words that follow "needs"."""
    metavar: str
    choices: tuple[str, ...]
    """The words that it may be, where there are only some; their case does not matter."""
    is_bool: bool
    is_size: bool
    """The value is text such as 512MiB that parse_bytes reads."""
    is_secret: bool
    """The value comes from a variable only, never from the command line, and is never shown."""

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def flag_declaration(self) -> str:
        """The flag as click declares it: booleans have an opposite."""
        return f"{self.flag}/--no-{self.flag[2:]}" if self.is_bool else self.flag


def setting_fields() -> list[SettingField]:
    """Every setting in the order of declaration, the engine's first."""
    return [
        *_fields_of(EngineSettings, "engine"),
        *_fields_of(CatalogSettings, "catalog"),
        *_fields_of(ServerSettings, "server"),
    ]


def _fields_of(struct: type[msgspec.Struct], group: GroupName) -> list[SettingField]:
    hints = get_type_hints(struct, include_extras=True)
    return [_describe(name, group, hints[name], getattr(struct(), name)) for name in struct.__struct_fields__]


def _describe(name: str, group: GroupName, annotation: object, default: object) -> SettingField:
    kind = inspect.type_info(annotation)
    metas = [meta for meta in get_args(annotation) if isinstance(meta, msgspec.Meta)]
    extra = {key: value for meta in metas for key, value in (meta.extra or {}).items()}
    is_size = extra.get("unit") == "bytes"
    plain = _plain_type(kind)
    return SettingField(
        name=name,
        group=group,
        annotation=annotation,
        default=default,
        help=next((meta.description for meta in metas if meta.description), ""),
        allowed="a size such as 512MiB or 4GiB" if is_size else _allowed(plain, get_args(annotation)[0]),
        metavar="SIZE" if is_size else _metavar(plain, get_args(annotation)[0]),
        choices=tuple(map(str, plain.values)) if isinstance(plain, inspect.LiteralType) else (),
        is_bool=isinstance(plain, inspect.BoolType),
        is_size=is_size,
        is_secret=bool(extra.get("is_secret")),
    )


def _plain_type(kind: inspect.Type) -> inspect.Type:
    """The type under its metadata and without None."""
    while isinstance(kind, inspect.Metadata):
        kind = kind.type
    if isinstance(kind, inspect.UnionType):
        return _plain_type(next(part for part in kind.types if not isinstance(part, inspect.NoneType)))
    return kind


def _allowed(kind: inspect.Type, declared: object) -> str:
    if isinstance(kind, inspect.LiteralType):
        return "one of " + ", ".join(_values(declared))
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if not isinstance(kind, inspect.IntType | inspect.FloatType):
        return "text"
    noun = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    if kind.ge is not None and kind.le is not None:
        return f"{noun} from {kind.ge} to {kind.le}"
    bounds = [
        f"{words} {bound}"
        for words, bound in (("of at least", kind.ge), ("above", kind.gt), ("at most", kind.le))
        if bound is not None
    ]
    return " ".join([noun, " and ".join(bounds)]).rstrip()


def _metavar(kind: inspect.Type, declared: object) -> str:
    if isinstance(kind, inspect.LiteralType):
        return "[" + "|".join(_values(declared)) + "]"
    if isinstance(kind, inspect.IntType):
        return "INTEGER"
    return "NUMBER" if isinstance(kind, inspect.FloatType) else "TEXT"


def _values(declared: object) -> list[str]:
    """What a Literal allows, or one beside None, in the order of declaration."""
    parts = get_args(declared)
    literal = next((get_args(part) for part in parts if get_args(part)), parts)
    return [str(value) for value in literal]
