"""What a newcomer types wrong is one line that says what to type, and nothing is written."""

from __future__ import annotations

import pytest
from conftest import TINY
from program import inside

ONE_CELL = (
    "--cfg shows the knobs of one cell; leave out -m, give every knob one value (plan=true lists the cells of a study)"
)
NO_SERVER = (
    "MLFLOW_TRACKING_URI: this environment variable is asked for and not set; "
    "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000, or name the server: tracking.uri=http://127.0.0.1:5000"
)
NAME = (
    "must be a name of at most 100 letters, digits, '.', '_' and '-', for example my-study; a number or a truth value "
    "goes into quotes, for example 'name=\"2024\"', or null"
)
QUOTED = """a level with brackets or letters other than a to z goes into quotes, 'label="ä [1]",b'"""
COMPONENTS = "gating, depth, dropout, tying, residual, forget_bias, projection"
PLAN = [*TINY, "tracking=off", "report=false", "plan=true"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "report: a knob is set with =, NAME=VALUE; did you mean python -m ablate.report?"),
        (["lstm"], "lstm: a knob is set with =, NAME=VALUE; did you mean model=lstm?"),
        (["noise"], "noise: a knob is set with =, NAME=VALUE; did you mean +study=noise?"),
        (["-m", "depht"], "depht: a knob is set with =, NAME=VALUE; did you mean 'depth'?"),
        (["leave_one_out"], "leave_one_out: a knob is set with =, NAME=VALUE; did you mean design=leave_one_out?"),
        (["depth", "2"], "depth: a knob is set with =, depth=2"),
        (["lr"], "lr: a knob is set with =, lr=…"),
        (["report", "depth"], "report: a knob is set with =, NAME=VALUE; did you mean python -m ablate.report?"),
        (["depth", "=", "2"], "depth = 2: a space separates arguments; leave it out, depth=2"),
        (["-m", "depth=1,", "2"], "depth=1, 2: a space separates arguments; leave it out, depth=1,2"),
        (["-m", "depth=1,", "2,", "3"], "depth=1, 2, 3: a space separates arguments; leave it out, depth=1,2,3"),
        (["-m", "depth=1", ",2"], "depth=1 ,2: a space separates arguments; leave it out, depth=1,2"),
        (["-m", "depth=1,"], "depth=1,: ends with a comma; levels are listed without spaces, depth=1,…"),
        (["--halp"], "--halp: no such flag; a knob is set with =, NAME=VALUE, and --help shows them"),
        (["-depth=2"], "-depth=2: no such flag; a knob is set with =, NAME=VALUE, and --help shows them"),
        (["-m", "seeds=1,2"], "seeds=1,2: is how many seeds each cell has; seed=1,2 names the seeds themselves"),
        (["design=leave_one_out", "design.components=[]"],
         f"design.components=[]: names none; declared are {COMPONENTS}, null: all of them"),
        (["-m", "depth=,1"], "depth=,1: a comma without a level before it; leave it out, or the empty text is ''"),
        (["-m", "depth=1,,2"], "depth=1,,2: a comma without a level before it; leave it out, or the empty text is ''"),
        (["-m", "depth=glob(*)"], "depth=glob(*): names no level; list them with commas"),
        (["runs=a=b"],
         "runs=a=b: cannot be read, mismatched input '=' expecting <EOF>; quote it twice, 'runs=\"a=b\"'"),
        (["-m", 'runs="a b",ñ'], f"runs=\"a b\",ñ: cannot be read, token recognition error at: 'ñ'; {QUOTED}"),
        (["study=three_models"], "study=three_models: no default chooses study; add a plus, +study=three_models"),
        (["runs=añb"], "runs=añb: cannot be read, token recognition error at: 'ñ'; quote it twice, 'runs=\"añb\"'"),
        (["design.components=dropout,tying"],
         "design.components=dropout,tying: a list goes into brackets, 'design.components=[dropout,tying]'"),
        (["tracking=server"], NO_SERVER),
        (["-m", "depth=1,2", "--cfg", "job"], f"one of --run, --multirun, --cfg and --info at a time; {ONE_CELL}"),
        (["-m", "depth=1", "--cfg=job"], f"one of --run, --multirun, --cfg and --info at a time; {ONE_CELL}"),
        (["depth=1,2", "--cfg", "job"], ONE_CELL.replace("--cfg", "--cfg:", 1)),
        (["runs=file"], "runs=file: file is a file, not a folder; name another place"),
        (["reports=file/of", "report=true"], "reports=file/of: file is a file, not a folder; name another place"),
        (["name=" + 101 * "x"], f"name={101 * 'x'}: {NAME}"),
        (["name=true"], f"name=true: {NAME}"),
        (["name=2024_01"], f"name=202401: {NAME}"),
    ],
)  # fmt: skip
def test_a_newcomers_mistake_is_one_line_that_says_what_to_type(arguments, message, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "file").write_text("")
    of_no_trial = {"tracking=server", "--cfg", "--cfg=job"} & {*arguments}
    rest = [] if of_no_trial else [*TINY, *(["report=false"] if "report=true" not in arguments else [])]
    code, out, err = inside(*arguments, *rest, folder=tmp_path)
    assert (code, out, err) == (2, "", f"ablate: {message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_script_that_is_named_without_its_ending_is_suggested(tmp_path):
    (tmp_path / "mine.py").write_text("")
    code, _, err = inside("task=mine", folder=tmp_path)
    assert (code, err.partition(";")[0]) == (2, "ablate: task=mine: no such task")
    assert "did you mean task=mine.py?" in err


@pytest.mark.parametrize("place", ["runs", "reports"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_trained(place, tmp_path):
    code, out, err = inside(*TINY, "tracking=off", f"{place}=/proc/ablate", folder=tmp_path)
    assert (code, out) == (2, "")
    assert err == f"ablate: {place}=/proc/ablate: cannot be written (No such file or directory); name another folder\n"
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_study_may_be_called_by_a_number_in_quotes(tmp_path):
    code, out, err = inside(*PLAN, 'name="2024"', folder=tmp_path)
    assert (code, err) == (0, "")
    assert "study 2024: 1 cell," in out


def test_what_is_no_mistake_is_taken(tmp_path):
    (tmp_path / "reports").write_text("a file, where no report is written")
    code, _, err = inside(*PLAN, "runs=a\\,", folder=tmp_path)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("place", ["runs=a b", "runs='añb'", 'runs="r/ü 2"'])
def test_a_place_may_have_spaces_and_any_letters(place, tmp_path):
    code, _, err = inside(*TINY, "windows=2", "valid_every=2", "tracking=off", "report=false", place, folder=tmp_path)
    assert (code, err) == (0, "")
    assert list((tmp_path / place.partition("=")[2].strip("\"'")).glob("trials/*"))


@pytest.mark.parametrize("flag", [["--cfg", "job"], ["-c", "job", "--package", "design"], ["--info", "defaults"]])
def test_a_flag_of_hydras_keeps_its_word(flag, tmp_path):
    code, _, err = inside("depth=2", *flag, folder=tmp_path)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "depth=1,2", "depth=3"], "depth=1,2 and depth=3: one knob given twice; keep one of them"),
        (
            ["-m", "+design=leave_one_out"],
            "design: it has a value by default, which a plus adds to; leave out the plus",
        ),
        (["-m", "depth=1,2 tie=true,false"], "each knob is an argument of its own"),
    ],
)
def test_what_would_be_lost_or_cannot_be_meant_is_refused(arguments, message, tmp_path):
    code, out, err = inside(*arguments, *PLAN, folder=tmp_path)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        ("recipe", "lr: 0.01\n", "recipe=mine: its knobs are read as knobs of 'recipe'; let {file} begin with"),
        ("model", "depth: 3\n", "model=mine: its knobs are read as knobs of 'model'; let {file} begin with"),
        ("recipe", "# @package _global_\nlr: [0.01\n", "a preset is no YAML: while parsing a flow sequence"),
    ],
)
def test_a_preset_of_ones_own_that_is_wrong_is_one_line(group, text, message, tmp_path):
    file = tmp_path / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    code, _, err = inside("-m", f"{group}=mine", "--config-dir", str(tmp_path / "conf"), "plan=true", folder=tmp_path)
    assert code == 2
    assert message.format(file=file) in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("group", "more"), [("study", []), ("study", ["design=leave_one_out"]), ("exp/deep", [])])
def test_a_preset_that_does_not_say_where_its_knobs_belong_is_named_with_its_file_and_the_line_that_it_lacks(
    group, more, tmp_path
):
    file = tmp_path / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("depth: 2\n")
    asked = ["-m", f"+{group}=mine", "--config-dir", str(tmp_path / "conf"), *more, *PLAN]
    message = f"{group}=mine: its knobs are read as knobs of '{group}'; let {file} begin with '# @package _global_'"
    assert inside(*asked, folder=tmp_path) == (2, "", f"ablate: {message}\n")
    file.write_text(f"# @package _global_\n{file.read_text()}")
    code, out, err = inside(*asked, folder=tmp_path)
    assert (code, err) == (0, "")
    assert "nothing was trained" in out
