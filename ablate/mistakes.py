"""What a user got wrong in a command line: a sentence each, with what to type, before anything trains."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import get_args

import yaml
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import OverrideType
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from ablate.compose import parsed
from ablate.find_task import is_function
from ablate.knobs import KnobError, fields_of, nested_records
from ablate.launch import Launch
from ablate.protocol import Task
from ablate.registry import suggest
from ablate.study.designs import LISTS
from ablate.study.records import unknown_name

ONE_CELL = "shows the knobs of one cell; leave out -m, give every knob one value (plan=true lists the cells of a study)"
TRAINS_NOTHING = "flags of Hydra's show what there is; without them the study is trained"
ONE_STUDY = (
    "all cells of a command are one study, which trains them in processes of its own: workers=2 says in how many"
)
_FOLDER = "a study's folder is called after it, in the folder that runs=… names"
# What Hydra can do and a study cannot: by an override's key, or what it begins with.
_NOT_HERE = {
    "hydra/launcher": ONE_STUDY,
    "hydra/sweeper": ONE_STUDY,
    "hydra.launcher": ONE_STUDY,
    "hydra.mode": ONE_STUDY,
    "hydra.sweep": _FOLDER,
    "hydra.run": _FOLDER,
    "hydra.searchpath": "it has ablate's own presets; name a folder with yours by --config-dir FOLDER",
}
_PROGRAMS = ("report", "track")
_OTHER_CONFIG = ("--config-name", "-cn", "--config-path", "-cp")
_FLAGS_ALONE = (
    "-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version", "--resolve", "-sc",
    "--shell-completion",
)  # fmt: skip


def is_override(argument: str) -> bool:
    """Whether an argument sets a knob."""
    return "=" in argument and not argument.startswith("-")


def refuse_mistakes(task: Task, arguments: Sequence[str]) -> None:
    """Raise KnobError for words that are no overrides, and overrides that cannot be read or name no knob."""
    problems = _of_words(task, arguments) or [*_of_overrides(task, arguments), *_given_twice(arguments)]
    if problems:
        raise KnobError(*problems)


def _of_words(task: Task, arguments: Sequence[str]) -> list[str]:
    """What is wrong with the first word that sets nothing; [] where there is none."""
    if (flag := next((word for word in arguments if word.partition("=")[0] in _OTHER_CONFIG), None)) is not None:
        return [
            f"{flag}: not in use here; presets of your own are files GROUP/NAME.yaml: --config-dir FOLDER +GROUP=NAME"
        ]
    if (flag := next((word for word in arguments if word.startswith("-") and not _is_flag(word)), None)) is not None:
        return [f"{flag}: no such flag; a knob is set with =, NAME=VALUE, and --help shows them"]
    for number, word in enumerate(arguments):
        before = arguments[number - 1] if number else ""
        is_set = "=" in word and not word.startswith("=")
        if is_set or word.startswith(("-", "~")) or (before.startswith("-") and before not in _FLAGS_ALONE):
            continue
        first = number - 1 if _go_together(before, word) else number
        together = list(arguments[first : first + 1])
        for after in arguments[first + 1 :]:
            if not _go_together(together[-1], after):
                break
            together.append(after)
        if len(together) > 1:
            return [f"{' '.join(together)}: a space separates arguments; leave it out, {''.join(together)}"]
        return [_alone(task, word, *arguments[number + 1 : number + 2])]
    return []


def _is_flag(word: str) -> bool:
    """Whether Hydra's parser may know it: a flag, the beginning of a long one, a short one with its value."""
    name = word.partition("=")[0]
    known = get_args_parser()._option_string_actions
    return any(flag.startswith(name) if name.startswith("--") else name.startswith(flag) for flag in known)


def _go_together(before: str, word: str) -> bool:
    """Whether a space stands within an override: `depth=1, 2`, `depth = 2`."""
    return not before.startswith("-") and bool(before) and (before.endswith((",", "=")) or word.startswith((",", "=")))


def _alone(task: Task, word: str, after: str = "…") -> str:
    if word not in _PROGRAMS and word in (*fields_of(task.Config), *fields_of(Launch)):
        value = "…" if is_override(after) or after.startswith("-") else after
        return f"{word}: a knob is set with =, {word}={value}"
    return f"{word}: a knob is set with =, NAME=VALUE{_meant(task, word)}"


def _meant(task: Task, word: str) -> str:
    if word in _PROGRAMS:
        return f"; did you mean python -m ablate.{word}?"
    groups = {**fields_of(task.Config), "design": None, "study": None}
    for folder in filter(None, (Path(str(files("ablate") / "conf")), task.presets)):
        for group in groups:
            if (folder / group / f"{word}.yaml").is_file():
                # The presets of a function's task are in no list of defaults.
                plus = "+" if group == "study" or (folder == task.presets and is_function(task.reference)) else ""
                return f"; did you mean {plus}{group}={word}?"
    return suggest(word, [*fields_of(task.Config), *fields_of(Launch)])


def _of_overrides(task: Task, arguments: Sequence[str]) -> Iterator[str]:
    for text in filter(is_override, arguments):
        try:
            override = parsed(text)
        except HydraException as error:
            if text.endswith(","):
                yield f"{text}: ends with a comma; levels are listed without spaces, {text}…"
                continue
            if re.search(r"=,|,,", text) and not _GRAMMAR.search(text):
                yield f"{text}: a comma without a level before it; leave it out, or the empty text is ''"
                continue
            if re.search(r"\s\+*[\w./]+=", text) and not _GRAMMAR.search(text):
                yield f"{text}: cannot be read; each knob is an argument of its own"
                continue
            yield f"{text}: cannot be read, {str(error).splitlines()[0]}; {_how_to_quote(text)}"
            continue
        if (reason := _not_here(str(override.key_or_group))) is not None:
            yield f"{text}: not in use here; {reason}"
            continue
        if override.type is not OverrideType.CHANGE:
            continue  # what is added may be a group of the user's own; an added knob is refused when it is read
        if (refusal := unknown_name(task, str(override.key_or_group))) is not None:
            yield f"{override.input_line}: {refusal}"


def _given_twice(arguments: Sequence[str]) -> Iterator[str]:
    """Factors that a later argument takes back: the last one counts, and the grid would be gone without a word."""
    typed: dict[str, str] = {}
    for text in filter(is_override, arguments):
        name = text.partition("=")[0]
        before = typed.get(name, "")
        if before != text and _is_list_of_levels(before):
            yield f"{before} and {text}: one knob given twice; keep one of them"
        typed[name] = text


def _is_list_of_levels(text: str) -> bool:
    value = text.partition("=")[2]
    return "," in value and not _GRAMMAR.search(value)


_GRAMMAR = re.compile(r"""[][(){}'"]""")  # brackets and quotes of Hydra's


def _not_here(key: str) -> str | None:
    return next((why for name, why in _NOT_HERE.items() if key == name or key.startswith(f"{name}.")), None)


def _how_to_quote(text: str) -> str:
    """A condition, a cell or a component without quotes of its own, and with them."""
    key, _, value = text.partition("=")
    if key.startswith("+components."):
        return f"""quote it twice, '{key}="{value}"'"""
    if key not in LISTS:
        # Where the value has neither quotes nor anything that is grammar, it is its letters that need them.
        helps = value and not re.search(r"""[][(){}'",]|^=""", value)
        several = """a level with brackets or letters other than a to z goes into quotes, 'label="ä [1]",b'"""
        return f"""quote it twice, '{key}="{value}"'""" if helps else several
    items = ",".join(f'"{item.strip()}"' for item in value.strip("[]").split(","))
    return f"quote it twice, '{key}=[{items}]'"


@contextmanager
def composing(task: Task) -> Iterator[None]:
    """In this block what Hydra, OmegaConf or YAML raises becomes a KnobError that a user of ablate understands."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise KnobError(in_one_line(error, task)) from error
    except yaml.YAMLError as error:
        raise KnobError(f"a preset is no YAML: {' '.join(str(error).split())}") from error


def in_one_line(error: Exception, task: Task) -> str:
    """What Hydra or OmegaConf says of a command line, as a user of ablate would put it."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        near = f"; several go without quotes, -m {group}={name}" if "," in name else suggest(name, error.options)
        return f"{group}={name}: no such preset{near}; choose from {', '.join(error.options)}"
    if of_kind := re.match(r"Could not override '(\w+)\.(\w+)'", str(error)):
        group, name = of_kind.groups()
        if kinds := _kinds_with(task, group, name):
            having = ", ".join(f"{group}={kind}" for kind in kinds)
            remedy = _how_to_choose(task, group, kinds[0], name, str(error))
            return f"{group}.{name}: a knob of {having}, not of the {group} chosen here; {remedy}"
    if twice := re.match(r"Multiple values for (\S+?)\.", str(error)):
        return f"{twice[1]}: it has a value by default, which a plus adds to; leave out the plus, {twice[1]}=…"
    if "Ambiguous value for argument" in str(error) and {"--cfg", "-c"} & {*sys.argv}:
        return f"--cfg: {ONE_CELL}"
    if plus := re.search(r"use \+((\w+)=\S+)", str(error)):
        return f"{plus[1]}: no default chooses {plus[2]}; add a plus, +{plus[1]}"
    if missing := re.search(r"Environment variable '(\w+)' not found", str(error)):
        value, other = ("http://127.0.0.1:5000", ", or name the server: tracking.uri=http://127.0.0.1:5000")
        if missing[1] != "MLFLOW_TRACKING_URI":
            value, other = "…", ""
        return f"{missing[1]}: this environment variable is asked for and not set; export {missing[1]}={value}{other}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and str(cause).splitlines()[0] not in lines:
        lines.append(str(cause).splitlines()[0])
    return "; ".join(line for line in lines if not line.startswith(("full_key", "object_type", "reference_type")))


def _kinds_with(task: Task, group: str, name: str) -> list[str]:
    """The kinds of a nested record that have a knob: of data.vocab_size, kjv and text."""
    field = {**fields_of(Launch), **fields_of(task.Config)}.get(group)
    kinds = [] if field is None else [fields_of(kind) for kind in nested_records(field)]
    return [str(get_args(own["name"].annotation)[0]) for own in kinds if name in own and "name" in own]


def _how_to_choose(task: Task, group: str, kind: str, name: str, error: str) -> str:
    """What to type for another kind of a nested record: its preset, or where it has none, the whole record."""
    if group in fields_of(Launch):
        return f"add {group}={kind}"
    if task.presets is not None and (task.presets / group / f"{kind}.yaml").is_file():
        sign = "+" if is_function(task.reference) else ""  # which has the group in no list of defaults
        return f"add {sign}{group}={kind}"
    typed = re.search(rf"\+{group}\.{name}=(.+)", error)
    return f"use ~{group} '+{group}={{name:{kind},{name}:{typed[1] if typed else '…'}}}'"
