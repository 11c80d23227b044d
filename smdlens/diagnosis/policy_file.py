"""A policy from the table `[check]` of `smdlens.toml`, or `[tool.smdlens.check]`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from smdlens.config import read_table
from smdlens.diagnosis.policy import (
    ALL_STATES,
    BUILT_IN,
    DEFAULT,
    RULE_ID,
    STAGE_WORDS,
    Demand,
    Override,
    Policy,
    StageSelector,
)
from smdlens.errors import InputError
from smdlens.vocabulary import NOT_HELD_STATES, Outcome, State

# Words that stand for several states.
_STATE_WORDS: Mapping[str, frozenset[State]] = {"any": ALL_STATES, "not_held": NOT_HELD_STATES}
_LEVELS: Mapping[str, Outcome | None] = {
    "fail": Outcome.FAIL,
    "warn": Outcome.WARN,
    "ignore": None,
}

COMMENTED = """# What `smdlens check` asks of a run, with the defaults; keep what you change.
# Options of the analysis may stand up here too: tolerance, optimizer, weight_decay, include ...
# tolerance = 0.1               # ratios within 10% of 1 hold equilibrium

[check]
policy = "default"              # start from: strict, default, report-only
# States: equilibrium lagging approaching_from_above approaching_from_below leaving periodic
# diverging epsilon_limited fixed_norm no_decay pure_decay frozen undetermined; "not_held" and
# "any" stand for several. What is neither allowed nor warned about fails; undetermined is
# inconclusive (exit code 4, unless --allow-inconclusive).
allow = ["equilibrium", "lagging"]
warn = ["epsilon_limited", "fixed_norm", "no_decay", "pure_decay", "frozen"]
share = 1.0                     # how much of each stage must end in an allowed state
iterations = "warn"             # a cut with too few iterations after it: fail, warn, ignore
unreadable = "error"            # a snapshot that cannot be read: error (exit code 3), warn
# ratio = [0.9, 1.1]            # a band that measured/expected must lie in
# baseline = "last.json"        # an earlier report that nothing may be worse than

[check.findings]                # fail, warn or ignore, by rule; "*" for all others
# SMD007 = "fail"               # epsilon of the normalisation acts like weight decay

# Other demands for some tensors (globs) in some stages (numbers, -1 is the last, or first, last,
# warm-up, all). Later rules win over earlier ones and over [check].
# [[check.rules]]
# tensors = ["layer4.*"]
# stages = ["last"]
# allow = ["equilibrium", "lagging", "approaching_from_below"]
# ratio = [0.5, 1.1]
"""


def resolve_policy(name: str | None, config: Path | None) -> Policy:
    """The policy `name` (built in, or a file); without one `[check]` of `config`, else default.

    Raises:
        InputError: No such policy, or a table that cannot be used.
    """
    if name in BUILT_IN:
        return BUILT_IN[str(name)]
    if name is not None:
        path = Path(name)
        if not path.is_file():
            raise InputError(
                "no such policy",
                subject=f"option --policy {name}",
                expected=f"{', '.join(BUILT_IN)} or a file with a table [check]",
            )
        return read_policy(path, required=True)
    return DEFAULT if config is None else read_policy(config)


def read_policy(path: Path, *, required: bool = False) -> Policy:
    """The policy of the table `[check]` in `path`; the default one where there is no such table.

    Raises:
        InputError: The file cannot be read, the table holds an unknown key or an unusable value,
            or there is none and it is `required`.
    """
    content = read_table(path)
    if "check" not in content:
        if required:
            raise InputError(
                "holds no policy",
                subject=str(path),
                expected="a table [check]",
                remedy="`smdlens check --init` writes a commented one.",
            )
        return DEFAULT
    return _Reader(path).policy(content["check"])


class _Reader:
    """Turns TOML values into a policy; every complaint names the file and the key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def policy(self, table: Any) -> Policy:
        readers: dict[str, Callable[[Any, str], Any]] = {
            "policy": self._base,
            "allow": self._states,
            "warn": self._states,
            "ratio": self._band,
            "tolerance": self._fraction,
            "share": self._share,
            "iterations": self._level,
            "unreadable": self._unreadable,
            "baseline": self._path,
            "findings": self._findings,
            "rules": self._rules,
        }
        values = self._table(table, "check", readers)
        base: Policy = values.pop("policy", DEFAULT)
        demand = Demand(
            values.pop("allow", base.demand.allow),
            values.pop("warn", base.demand.warn),
            values.pop("ratio", base.demand.ratio),
        )
        overrides = base.overrides + values.pop("rules", ())
        findings = {**base.findings, **values.pop("findings", {})}
        return dataclasses.replace(
            base,
            name=str(self.path),
            demand=demand,
            overrides=overrides,
            findings=findings,
            **values,
        )

    def _bad(self, key: str, expected: str, found: Any) -> NoReturn:
        raise InputError(
            "this value cannot be used",
            subject=f"{self.path}, key {key}",
            expected=expected,
            found=repr(found),
        )

    def _table(
        self, table: Any, key: str, readers: Mapping[str, Callable[[Any, str], Any]]
    ) -> dict[str, Any]:
        if not isinstance(table, dict):
            self._bad(key, "a table", table)
        values = {}
        for name, value in table.items():
            plain = name.replace("-", "_")
            if plain not in readers:
                close = difflib.get_close_matches(plain, readers, n=1)
                raise InputError(
                    "unknown key",
                    subject=f"{self.path}, key {key}.{name}",
                    remedy=f"Did you mean {close[0]}?"
                    if close
                    else f"Known keys: {', '.join(readers)}.",
                )
            values[plain] = readers[plain](value, f"{key}.{name}")
        return values

    def _base(self, value: Any, key: str) -> Policy:
        if not isinstance(value, str) or value not in BUILT_IN:
            self._bad(key, f"one of {', '.join(BUILT_IN)}", value)
        return BUILT_IN[value]

    def _texts(self, value: Any, key: str) -> list[str]:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(i, str) for i in items):
            self._bad(key, "a text in quotes or a list of them", value)
        return items

    def _states(self, value: Any, key: str) -> frozenset[State]:
        found: frozenset[State] = frozenset()
        for word in self._texts(value, key):
            if word in _STATE_WORDS:
                found |= _STATE_WORDS[word]
            elif word in set(State):
                found |= {State(word)}
            else:
                self._bad(key, f"states ({', '.join([*State, *_STATE_WORDS])})", word)
        return found

    def _number(self, value: Any, key: str, expected: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._bad(key, expected, value)
        return float(value)

    def _band(self, value: Any, key: str) -> tuple[float, float]:
        expected = "two numbers, such as [0.9, 1.1]"
        if not isinstance(value, list) or len(value) != 2:
            self._bad(key, expected, value)
        low, high = (self._number(v, key, expected) for v in value)
        if not 0.0 <= low < high:
            self._bad(key, "0 <= low < high", value)
        return low, high

    def _fraction(self, value: Any, key: str) -> float:
        number = self._number(value, key, "a fraction between 0 and 1")
        if not 0.0 < number < 1.0:
            self._bad(key, "a fraction between 0 and 1", value)
        return number

    def _share(self, value: Any, key: str) -> float:
        number = self._number(value, key, "a fraction from 0 to 1")
        if not 0.0 <= number <= 1.0:
            self._bad(key, "a fraction from 0 to 1", value)
        return number

    def _level(self, value: Any, key: str) -> Outcome | None:
        if not isinstance(value, str) or value not in _LEVELS:
            self._bad(key, f"one of {', '.join(_LEVELS)}", value)
        return _LEVELS[value]

    def _unreadable(self, value: Any, key: str) -> Outcome:
        words = {"error": Outcome.ERROR, "warn": Outcome.WARN}
        if not isinstance(value, str) or value not in words:
            self._bad(key, f"one of {', '.join(words)}", value)
        return words[value]

    def _path(self, value: Any, key: str) -> str:
        if not isinstance(value, str):
            self._bad(key, "a text in quotes", value)
        return str(self.path.parent / value)

    def _findings(self, value: Any, key: str) -> dict[str, Outcome | None]:
        if not isinstance(value, dict):
            self._bad(key, 'a table of rules, such as SMD007 = "fail"', value)
        for rule in value:
            if not RULE_ID.fullmatch(rule):
                self._bad(key, 'rules of findings, such as SMD007, or "*"', rule)
        return {rule: self._level(level, f"{key}.{rule}") for rule, level in value.items()}

    def _rules(self, value: Any, key: str) -> tuple[Override, ...]:
        if not isinstance(value, list):
            self._bad(key, "tables [[check.rules]]", value)
        readers: dict[str, Callable[[Any, str], Any]] = {
            "tensors": lambda v, k: tuple(self._texts(v, k)),
            "stages": self._stages,
            "allow": self._states,
            "warn": self._states,
            "ratio": self._band,
        }
        return tuple(
            Override(**self._table(table, f"{key}[{number}]", readers))
            for number, table in enumerate(value)
        )

    def _stages(self, value: Any, key: str) -> tuple[StageSelector, ...]:
        items = value if isinstance(value, list) else [value]
        for item in items:
            whole = isinstance(item, int) and not isinstance(item, bool) and item != 0
            if not whole and item not in STAGE_WORDS:
                self._bad(
                    key, f"stage numbers (from 1; -1 is the last) or {', '.join(STAGE_WORDS)}", item
                )
        return tuple(items)
