"""The JSON files of analyze: their names, their records as types, and one reader and one writer for each."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

from bert_tweets.common.errors import UserError
from bert_tweets.common.json_records import Record, parse_record
from bert_tweets.common.output_folder import from_json, write_json_atomic
from bert_tweets.config import AnalyzeConfig, Settings
from bert_tweets.words.statistics.mixture_clusters import Criterion
from bert_tweets.words.store.folder import EmbedRecord

CHANGE, CONTROLS, REGRESSION, SENSES = "change.json", "controls.json", "regression.json", "senses.json"
SETTINGS = "analyze.json"
SENSE_TABLE, SENSE_VECTORS = "senses.parquet", "sense_vectors.txt"

# Settings that name folders of this machine; analyze.json does not keep them.
_PATHS = ("output", "words", "control_words")


class Contrast(StrEnum):
    """Which groups of a word are compared: all at once, or a pair, and how the pairs are chosen."""

    OMNIBUS = "omnibus"
    ADJACENT = "adjacent"
    FIRST = "first"
    ALL = "all"


class Measure(StrEnum):
    """The measure of a difference; `prototype` is described, not tested."""

    ENERGY = "energy"
    PROTOTYPE = "prototype"


class Verdict(StrEnum):
    """The answers to both questions: does the use differ, and by more than that of ordinary words?"""

    CHANGED = "changed"
    DIFFERS_AS_ORDINARY = "differs as ordinary"
    NOT_COMPARABLE = "not comparable"
    NO_DIFFERENCE = "no difference"
    TOO_FEW = "too few"


class ExchangeUnit(StrEnum):
    """The units that a permutation test exchanges as wholes."""

    AUTHORS = "authors"
    CLUSTERS = "near-duplicate clusters"
    AUTHORS_OR_CLUSTERS = "authors or near-duplicate clusters"


class MatchedOn(StrEnum):
    """A property in which control words match a word."""

    FREQUENCY = "frequency"
    SUBWORDS = "subwords"
    PART_OF_SPEECH = "part of speech"


class Reason(StrEnum):
    """Why a term of a regression has no test or no estimate."""

    TOO_FEW = "too few"
    TOO_FEW_UNITS = "too few units"
    CONSTANT = "constant"
    COLLINEAR = "collinear"
    SINGLE_UNIT = "single unit"


class AssociationMeasure(StrEnum):
    """The measure of an association between a sense and a column of the occurrences."""

    RANK_BISERIAL = "rank-biserial correlation"
    CRAMERS_V = "Cramér's V"


class ChangeRow(TypedDict):
    """A row of change.json: one comparison of groups of a word's occurrences, by one measure.

    `difference` is None where there are too few occurrences; `beyond_ordinary` is None where there is no difference,
    or too few control words. Rows of the measure `prototype` have no p, q, detectable effect, rank or statement.
    """

    word: str
    contrast: Contrast
    group_a: str | None
    group_b: str | None
    groups: list[str]
    measure: Measure
    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None
    q_value: float | None
    min_attainable_p: float | None
    detectable_effect: float | None
    rank_among_controls: int | None
    controls: int
    matched_on: list[MatchedOn]
    difference: bool | None
    beyond_ordinary: bool | None
    verdict: Verdict
    n: int
    n_a: int | None
    n_b: int | None
    clusters: int
    authors: int | None
    cross_group_duplicates: int
    exchange_unit: ExchangeUnit
    statement: str | None


class ControlRow(TypedDict):
    """A row of controls.json: the energy distance of one control word between some groups.

    `clusters` counts those in these groups, `frequency` all that were embedded.
    """

    word: str
    groups: list[str]
    estimate: float
    clusters: int
    subwords: int
    frequency: int


class TermColumn(TypedDict):
    """A column of a term of a regression: its name, and the change in the covariate that its coefficient is for."""

    name: str
    per: str


class Coefficient(TermColumn):
    """The debiased squared length of a vector of coefficients."""

    squared_norm: float


class LeftOut(TypedDict):
    """Near-duplicate clusters that do not enter a regression, by reason."""

    unknown: int
    rare_level: int
    author_surplus: int


class RegressionRow(TypedDict):
    """A row of regression.json: one covariate in the regression of one word's vectors."""

    word: str
    term: str
    adjusted_for: list[str]
    statistic: Literal["partial R²"]
    estimate: float | None
    raw: float | None
    coefficients: list[Coefficient] | None
    p_value: float | None
    q_value: float | None
    min_attainable_p: float | None
    permutations: int
    reason: Reason | None
    rank_among_controls: int | None
    controls: int
    n: int
    clusters: int
    authors: int | None
    exchange_unit: ExchangeUnit
    left_out: LeftOut
    statement: str


class Association(TypedDict):
    """The association of a sense, compared with the word's other senses, with a column of the occurrences."""

    covariate: str
    measure: AssociationMeasure
    statistic: float
    p_value: float
    q_value: float | None


class ShareInterval(TypedDict):
    """The share of a sense with its 95 % interval, None where there is no occurrence; `n` counts occurrences."""

    share: float | None
    low: float | None
    high: float | None
    n: int


class GroupShare(ShareInterval):
    """The share of a sense in one group."""

    group: str


class Sense(TypedDict):
    """One sense of a word: `virus#1`."""

    name: str
    size: int
    authors: int | None
    share: float
    words: list[str]
    substitutes: list[tuple[str, int]]
    typical: list[tuple[str, int, int]]
    associations: list[Association]
    shares: list[GroupShare]


class WordSenses(TypedDict):
    """The senses of a word, as in senses.json; `n` counts the occurrences that they were fitted on."""

    count: int
    criterion: Criterion
    max_senses: int
    p_values: dict[str, float]
    stability: float
    n: int
    authors: int | None
    senses: list[Sense]


class SettingsFile(TypedDict):
    """analyze.json: the settings without paths, and the embed.json of each folder that was compared."""

    settings: Settings
    words: EmbedRecord
    control_words: NotRequired[EmbedRecord]


@dataclass(frozen=True)
class AnalyzeRecord:
    """The settings that findings were made with, and from which folders.

    Attributes:
        settings: settings of analyze; the folders in them are empty.
        words: embed.json of the folder of words.
        control_words: embed.json of the folder of control words; None without such a folder.
    """

    settings: AnalyzeConfig
    words: EmbedRecord
    control_words: EmbedRecord | None = None

    def to_json(self) -> SettingsFile:
        settings = settings_without_paths(self.settings)
        record: SettingsFile = {"settings": settings, "words": self.words}
        return record if self.control_words is None else {**record, "control_words": self.control_words}


def settings_without_paths(settings: AnalyzeConfig) -> Settings:
    """The settings of analyze, as analyze.json keeps them."""
    return {name: value for name, value in asdict(settings).items() if name not in _PATHS}


def read_change(folder: Path) -> list[ChangeRow]:
    return _read(folder / CHANGE, list[ChangeRow])


def write_change(folder: Path, rows: list[ChangeRow]) -> None:
    write_json_atomic(folder / CHANGE, rows)


def read_controls(folder: Path) -> list[ControlRow] | None:
    """The rows of controls.json, None where there is no such file."""
    return _read_if_there(folder / CONTROLS, list[ControlRow])


def write_controls(folder: Path, rows: list[ControlRow]) -> None:
    write_json_atomic(folder / CONTROLS, rows)


def read_regression(folder: Path) -> list[RegressionRow] | None:
    """The rows of regression.json, None where nothing was regressed."""
    return _read_if_there(folder / REGRESSION, list[RegressionRow])


def write_regression(folder: Path, rows: list[RegressionRow]) -> None:
    write_json_atomic(folder / REGRESSION, rows)


def read_senses(folder: Path) -> dict[str, WordSenses] | None:
    """The senses by word, None where they were not looked for."""
    return _read_if_there(folder / SENSES, dict[str, WordSenses])


def write_senses(folder: Path, senses: dict[str, WordSenses]) -> None:
    write_json_atomic(folder / SENSES, senses)


def read_settings(folder: Path) -> AnalyzeRecord | None:
    """The settings of analyze, None where there is no such file."""
    record = _read_if_there(folder / SETTINGS, SettingsFile)
    if record is None:
        return None
    try:
        settings = parse_record(dict.fromkeys(_PATHS, "") | record["settings"], AnalyzeConfig, "settings")
    except ValueError as error:
        raise _damaged(folder / SETTINGS, error) from None
    return AnalyzeRecord(settings, record["words"], record.get("control_words"))


def write_settings(folder: Path, record: AnalyzeRecord) -> None:
    write_json_atomic(folder / SETTINGS, record.to_json())


def _read_if_there(path: Path, declared: type[Record]) -> Record | None:
    return _read(path, declared) if path.is_file() else None


def _read(path: Path, declared: type[Record]) -> Record:
    try:
        return parse_record(from_json(path.read_bytes()), declared, path.name)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: is damaged, or from another version ({error}); run analyze again into a new folder")
