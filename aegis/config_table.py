"""Check tables of TOML field by field against the structs of config.py, noting every problem.

msgspec.convert stops at the first error, so each field is converted on its own. What comes back is
the valid part, by TOML key, with defaults filled in: a field that is absent or wrong is not in it.
config_checks.py can therefore compare fields although others are wrong.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, inspect

from aegis.config_problems import Problems, key_path, one_of, suggestion

# Valid values by TOML key; in an array UNSET stands for an element that is wrong, {} for a table.
Table: TypeAlias = dict[str, Any]


def read_table(kind: type[msgspec.Struct], raw: Table, path: str, problems: Problems) -> Table:
    """Return the valid fields of the table at `path` and note what is wrong with the others."""
    fields = inspect.type_info(kind).fields  # type: ignore[attr-defined]
    annotations = get_type_hints(kind, include_extras=True)
    known = [field.encode_name for field in fields]
    for key in raw:
        if key not in known:
            problems.about_key(
                key_path(path, key),
                f"unknown key{suggestion(key, known) or ';'} known keys: {', '.join(known)}",
            )
    valid: Table = {}
    for field in fields:
        key, annotation = field.encode_name, annotations[field.name]
        if key in raw:
            value = _read(annotation, raw[key], key_path(path, key), problems)
            if value is not UNSET:
                valid[key] = value
        elif field.required:
            problems.about_key(key_path(path, key), f"missing; {allowed(annotation, key)}")
        else:
            valid[key] = msgspec.to_builtins(field.default)
    return valid


def _read(annotation: Any, raw: object, path: str, problems: Problems) -> Any:
    info, extra = _split(annotation)
    words = allowed(annotation, path)
    if isinstance(info, inspect.UnionType) and (table := _table_of(info)) is not None:
        if isinstance(raw, dict):
            return read_table(table, raw, path, problems)
        others = [part for part in get_args(_bare(annotation)) if not _is_table(part)]
        annotation = others[0]
        info, extra = _split(annotation)
    match info, raw:
        case inspect.StructType(), dict():
            return read_table(info.cls, raw, path, problems)
        case inspect.VarTupleType(), list() if len(raw) >= _least(info, extra):
            item = get_args(_bare(annotation))[0]
            values = [_read(item, v, f"{path}[{i}]", problems) for i, v in enumerate(raw)]
            blank: Any = {} if _is_table(item) else UNSET
            return [blank if value is UNSET else value for value in values]
        case ((inspect.StructType() | inspect.VarTupleType()), _):
            problems.about_value(path, raw, words)
            return UNSET
    try:
        value = msgspec.convert(raw, annotation)
    except msgspec.ValidationError:
        problems.about_value(path, raw, words)
        return UNSET
    parse: Callable[[str], object] | None = extra.get("parse")
    if parse is not None:
        try:
            parse(value)
        except ValueError as error:
            problems.about_value(path, raw, str(error))
            return UNSET
    return value


def allowed(annotation: Any, key: str) -> str:
    """Say what a field of this type may hold, as the end of an error or a cell of the docs."""
    info, extra = _split(annotation)
    if "allowed" in extra:
        return str(extra["allowed"])
    match info:
        case inspect.VarTupleType():
            item = get_args(_bare(annotation))[0]
            if _is_table(item):
                return f"one or more tables, each headed [[{key}]]"
            some = "one or more of " if _least(info, extra) else ""
            return f"an array of {some}{allowed(item, key)}"
        case inspect.StructType():
            return "a table"
        case inspect.UnionType() if _table_of(info) is not None:
            parts = [part for part in get_args(_bare(annotation)) if part is not type(None)]
            return ", or ".join(allowed(part, key) for part in parts)
        case inspect.UnionType():
            return " or ".join(_scalar(part) for part in info.types)
    return _scalar(info)


def _least(info: inspect.VarTupleType, extra: dict[str, Any]) -> int:
    return int(extra.get("min_length", info.min_length or 0))


def _is_table(annotation: Any) -> bool:
    return isinstance(_split(annotation)[0], inspect.StructType)


def _table_of(info: inspect.UnionType) -> type[msgspec.Struct] | None:
    """Return the struct that may stand in place of something else, or of nothing."""
    return next((part.cls for part in info.types if isinstance(part, inspect.StructType)), None)


def _scalar(info: inspect.Type) -> str:
    match info:
        case inspect.LiteralType():
            return one_of(str(value) for value in info.values)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"an integer from {info.ge} to {info.le}"
        case inspect.FloatType(gt=None):
            return f"a number from {info.ge} to {info.le:.0f}"
        case inspect.FloatType():
            return f"a number above {info.gt}, at most {info.le:.0f}"
    return "a string"


def _split(annotation: Any) -> tuple[inspect.Type, dict[str, Any]]:
    info = inspect.type_info(annotation)
    if isinstance(info, inspect.Metadata):
        return info.type, info.extra or {}
    return info, {}


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
