"""YAML files as mappings, before anything is validated.

A file may inherit with `base:` (a path beside it, at any depth), and single values may be overridden by dotted name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import ConfigError
from pipelines.config.networks import DEFAULT_KIND


def read_yaml(path: Path, seen: tuple[Path, ...] = ()) -> dict:
    """A YAML mapping with every `base:` merged in. Raises `ConfigError` naming the file."""
    path = Path(path)
    if path.resolve() in seen:
        raise ConfigError(f"Expected `base:` files without a cycle, got {path} again")
    try:
        raw = _parsed(path.read_text(), str(path))
    except OSError as error:
        raise ConfigError(f"Expected a readable configuration file, got {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"Expected valid YAML in {path}, got: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"Expected a mapping at the top of {path}, got {type(raw).__name__}")
    return _merge_bases(raw, path, (*seen, path.resolve()))


class _Loader(yaml.SafeLoader):
    """Leaves days that the standard calendar has not as text: 30 February is one of years of 360 days."""

    def construct_yaml_timestamp(self, node):
        try:
            return super().construct_yaml_timestamp(node)
        except ValueError:
            return self.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_timestamp)


def _parsed(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"Expected valid YAML in {where}, got: {' '.join(str(error).split())}") from None


def _merge_bases(node: Any, path: Path, seen: tuple[Path, ...]) -> Any:
    if isinstance(node, list):
        return [_merge_bases(item, path, seen) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: _merge_bases(value, path, seen) for key, value in node.items() if key != "base"}
    if "base" not in node:
        return own
    if not isinstance(node["base"], str):
        raise ConfigError(f"Expected the path of a file after `base:` in {path}, got {node['base']!r}")
    return _merge(read_yaml(path.parent / node["base"], seen), own)


def _merge(base: dict, own: dict) -> dict:
    merged = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        if both and key == "network":  # a network of another kind takes nothing from the base's
            kind = merged[key].get("kind", DEFAULT_KIND)
            both = value.get("kind", kind) == kind
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def apply_overrides(raw: dict, overrides: Sequence[str]) -> dict:
    """The mapping with single values replaced; a network of another kind takes nothing from the one before."""
    for override in sorted(overrides, key=lambda override: not override.partition("=")[0].endswith("network.kind")):
        name, equals, text = override.partition("=")
        if not equals or not name:
            raise ConfigError(f"Expected overrides of the form dotted.name=value, got {override!r}")
        node: Any = raw
        *parents, last = name.split(".")
        for depth, parent in enumerate(parents):
            if isinstance(node, list):
                node = node[_index(parent, node, override)]
                continue
            node[parent] = {} if node.get(parent) is None else node[parent]
            node = node[parent]
            if not isinstance(node, dict | list):
                section = ".".join(parents[: depth + 1])
                raise ConfigError(f"Expected a section at {section} for {override!r}, got {node!r}")
        value = _value(text, override)
        if parents[-1:] == ["network"] and last == "kind" and node.get("kind", DEFAULT_KIND) != value:
            node.clear()
        node[_index(last, node, override) if isinstance(node, list) else last] = value
    return raw


def _value(text: str, override: str) -> Any:
    value = _parsed(text, f"the override {override!r} (text with ': ' needs quotes inside)") if text else None
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 2e-4 as text
    except ValueError:
        return value


def _index(text: str, items: list, override: str) -> int:
    if not text.isdigit() or int(text) >= len(items):
        raise ConfigError(f"Expected an index below {len(items)} in {override!r}, got {text!r}")
    return int(text)
