"""What `check` and `diff` find in an export: for people, for machines and for notebooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from atlaswriter.errors import FormatError, Problem
from atlaswriter.report import html_table
from atlaswriter.units import format_bytes

Severity = Literal["error", "strict", "warning"]
SEVERITIES = ("error", "strict", "warning")

EXPORT_AGAIN = "export again"
_COPY_AGAIN = "export again, or copy the folder again from where it was complete"

# Findings of one rule that are printed; `to_dict` has them all.
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One broken rule.

    Attributes
    ----------
    severity
        ``"error"``: the viewer breaks or shows wrong data; ``"strict"``: only the stricter viewer
        that followed minds; ``"warning"``: worth a look.
    rule
        Stable short name of the rule.
    file
        File, relative to the folder.
    found
        What was found.
    remedy
        What to do about it.
    """

    severity: Severity
    rule: str
    file: str
    found: str
    remedy: str = EXPORT_AGAIN

    def __str__(self) -> str:
        return f"{self.severity} [{self.rule}] {self.file}: {self.found} → {self.remedy}"


class ReadError(FormatError):
    """Something that keeps a file, or an entry of a manifest, from being read.

    Attributes
    ----------
    rule
        Stable short name of the rule that is broken.
    problem
        File, finding and remedy.
    """

    def __init__(self, rule: str, where: str, found: str, remedy: str = _COPY_AGAIN) -> None:
        self.rule = rule
        self.problem = Problem(where, found, remedy)
        super().__init__(str(self.problem))

    def finding(self) -> Finding:
        """The same for `check`."""
        return Finding("error", self.rule, self.problem.where, self.problem.found, self.problem.remedy)


class Findings(list[Finding]):
    """Findings in the order in which they were made."""

    def error(self, rule: str, file: str, found: str, remedy: str = EXPORT_AGAIN) -> None:
        """Note that the viewer breaks or shows wrong data."""
        self.append(Finding("error", rule, file, found, remedy))

    def strict(self, rule: str, file: str, found: str, remedy: str = EXPORT_AGAIN) -> None:
        """Note that the strict viewer refuses this."""
        self.append(Finding("strict", rule, file, found, remedy))

    def warning(self, rule: str, file: str, found: str, remedy: str = EXPORT_AGAIN) -> None:
        """Note something worth a look."""
        self.append(Finding("warning", rule, file, found, remedy))

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Turn a `ReadError` into a finding."""
        try:
            yield
        except ReadError as error:
            self.append(error.finding())


@dataclass
class CheckResult:
    """What `check` found.

    Attributes
    ----------
    path
        The folder or file.
    strict
        Whether findings of severity ``"strict"`` count.
    findings
        Broken rules, the severest first.
    files, bytes
        Files, or members of a zip, that belong to the export, and their bytes on disk.
    """

    path: str
    strict: bool = False
    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """No errors, and when `strict` nothing that only the strict viewer minds; warnings never count."""
        bad = {"error", "strict"} if self.strict else {"error"}
        return not any(finding.severity in bad for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"ok": self.ok, **asdict(self)}

    def _summary(self) -> str:
        counts: Counter[str] = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{counts[name]} {name}" for name in SEVERITIES if counts[name]) or "nothing found"
        verdict = "ok" if self.ok else "NOT OK"
        return f"{verdict}: {self.path}: {self.files:,} files, {format_bytes(self.bytes)}: {found}"

    def _shown(self) -> Iterator[tuple[str, str]]:
        seen: Counter[tuple[str, str]] = Counter()
        for finding in self.findings:
            group = (finding.severity, finding.rule)
            seen[group] += 1
            if seen[group] <= _SHOWN:
                yield f"{finding.severity} {finding.rule}", f"{finding.file}: {finding.found} → {finding.remedy}"
        for (severity, rule), n_found in seen.items():
            if n_found > _SHOWN:
                yield f"{severity} {rule}", f"and {n_found - _SHOWN:,} more"

    def __str__(self) -> str:
        return "\n".join([self._summary(), *(f"  {rule}: {text}" for rule, text in self._shown())])

    def _repr_html_(self) -> str:
        return html_table([("check", self._summary()), *self._shown()])


@dataclass
class Part:
    """Comparison of one part.

    Attributes
    ----------
    name
        Such as ``"points 2d"`` or ``"obs 'score'"``.
    equal
        Whether it is the same within the tolerances.
    max_difference
        Largest absolute difference of finite values; None where nothing is numeric.
    n_different
        Number of values beyond the tolerances.
    note
        More for people.
    """

    name: str
    equal: bool = True
    max_difference: float | None = None
    n_different: int = 0
    note: str = ""

    def include(self, piece: Part) -> None:
        """Count what was found in a piece of this part."""
        self.equal = self.equal and piece.equal
        self.max_difference = max(self.max_difference or 0.0, piece.max_difference or 0.0)
        self.n_different += piece.n_different

    def __str__(self) -> str:
        parts = ["same" if self.equal else "DIFFERENT"]
        if self.n_different:
            parts.append(f"{self.n_different:,} values beyond the tolerance")
        if self.max_difference:
            parts.append(f"largest difference {self.max_difference:g}")
        return ", ".join(parts + ([self.note] if self.note else []))


@dataclass
class DiffResult:
    """Comparison of two exports.

    Attributes
    ----------
    a, b
        The folders or files.
    parts
        One entry for everything that both have.
    only_a, only_b
        What only one has, such as ``"gene 'CD3E'"``.
    """

    a: str
    b: str
    parts: list[Part] = field(default_factory=list)
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)

    def new(self, name: str) -> Part:
        """A further part, in which nothing differs yet."""
        self.parts.append(Part(name))
        return self.parts[-1]

    def facts(self, name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
        """A further part that tells which facts, of the same names, differ."""
        different = [key for key in a if a[key] != b[key]]
        note = "; ".join(f"{key}: {a[key]!r} and {b[key]!r}" for key in different)
        self.parts.append(Part(name, equal=not different, note=note))

    def both(self, kind: str, a: Iterable[Any], b: Iterable[Any]) -> list[Any]:
        """Names in both, after noting those in one only."""
        in_a, in_b = dict.fromkeys(a), dict.fromkeys(b)
        self.only_a += [f"{kind} {name!r}" for name in in_a if name not in in_b]
        self.only_b += [f"{kind} {name!r}" for name in in_b if name not in in_a]
        return [name for name in in_a if name in in_b]

    @property
    def equal(self) -> bool:
        """Whether both hold the same within the tolerances."""
        return not self.only_a and not self.only_b and all(part.equal for part in self.parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"equal": self.equal, **asdict(self)}

    def _rows(self) -> list[tuple[str, str]]:
        only = [("only in a", self.only_a), ("only in b", self.only_b)]
        rows = [(name, f"{len(found):,}: {', '.join(found[:20])}") for name, found in only if found]
        return rows + [(part.name, str(part)) for part in self.parts]

    def __str__(self) -> str:
        verdict = "same content" if self.equal else "DIFFERENT"
        lines = [f"{verdict}: {self.a} and {self.b}", *(f"  {name}: {text}" for name, text in self._rows())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return html_table([("a", self.a), ("b", self.b), *self._rows()])
