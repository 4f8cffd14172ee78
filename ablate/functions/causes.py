"""What the check found, as sentences: what differs, why that probably is, and what to do."""

from __future__ import annotations

from ablate.functions.watch import Seen

OF_DATA = (
    "the data's digest differs between two processes: the data function depends on time, on the order of a set, or on "
    "the working directory; return ablate.digest(path), of a path relative to the script"
)
OF_SEED = (
    "another seed logs the same numbers: the function seeds its generators with a constant, or draws nothing; "
    "remove that, or use run.seed and run.number(…)"
)
OF_PERSISTENT_WORKERS = (
    "a DataLoader has persistent_workers=True: if its workers draw random numbers a resume differs; "
    "persistent_workers=False is safe"
)


def difference(base: Seen, seen: Seen, step: str) -> str | None:
    """What differs first between two trainings that should be equal; None: nothing."""
    if seen.error:
        return f"it fails with {seen.error}"
    for (at, before), (now_at, now) in zip(base.logs, seen.logs, strict=False):
        if at != now_at:
            return f"what is logged at {step} {at} comes at {step} {now_at}"
        for name in [*before, *now]:
            if before.get(name) != now.get(name):
                return f"{name} at {step} {at} is {now.get(name)}, and was {before.get(name)}"
    if len(base.logs) != len(seen.logs):
        return f"it logs {len(seen.logs)} times, and did {len(base.logs)} times"
    for name in [*base.result, *seen.result]:
        if base.result.get(name) != seen.result.get(name):
            return f"{name} of the result is {seen.result.get(name)}, and was {base.result.get(name)}"
    for name in [*base.each, *seen.each]:
        if base.each.get(name) != seen.each.get(name):
            return f"{name} of the result differs"
    return "the kept objects end in another state" if base.kept != seen.kept else None


def of_failure(seen: Seen) -> str:
    """A hint, for a training that failed."""
    if seen.refused:
        return f" (a checkpoint could not be used: {seen.refused[0]})"
    return ""


def of_warning(line: str) -> str:
    """What a warning of a trial becomes."""
    if "changed its config" in line:
        return f"{line}; copy what you change into a variable of your own"
    return line


def of_sources(base: Seen, again: Seen) -> str:
    """Where two processes see other code."""
    names = [name for name in {**base.sources, **again.sources} if base.sources.get(name) != again.sources.get(name)]
    return (
        f"the digests of the code differ between two processes ({', '.join(names[:3])}): modules are found in the "
        "working directory; put them beside the script"
    )


def of_repetition(difference: str, again: Seen, by_hash: bool) -> str:
    """The same seed does not repeat in a fresh process."""
    if by_hash:
        cause = "the order of a set or hash() of a text, which each process has its own of; sort it"
    else:
        cause = (
            "a generator without a seed (np.random.default_rng(), secrets, time), or arithmetic that is "
            "not deterministic; use run.stream(…) or run.number(…)"
        )
    return f"the same seed does not repeat in a fresh process: {difference}; the probable cause is {cause}"


def of_used_process(difference: str) -> str:
    """It differs after another trial."""
    return (
        f"a trial differs after another one in the same process: {difference}; the probable cause is a global "
        "variable, a cache or a default argument that the first trial changed; make it anew inside of the function"
    )


def no_checkpoints(base: Seen) -> str:
    """Nothing to resume from."""
    if base.unsaved:
        return f"a killed trial starts from the beginning, because {', '.join(base.unsaved)} cannot be saved"
    return "a killed trial starts from the beginning, because the function uses neither run.epochs nor run.steps"


def of_resume(seen: Seen, place: int, step: str) -> str:
    """A resume that failed, or did not resume."""
    if seen.error:
        return f"stopped after {step} {place} and resumed it fails: {seen.error}{of_failure(seen)}"
    why = f": {seen.refused[0]}" if seen.refused else ""
    at = "from the beginning" if not seen.resumed_at else f"at {step} {seen.resumed_at}"
    return f"stopped after {step} {place} it is resumed {at}{why}; keep only what a checkpoint can hold"


def of_resumed(difference: str, base: Seen) -> str:
    """A resume that ended elsewhere."""
    return f"stopped and resumed it differs: {difference}; the probable cause is {_suspected(base)}"


def of_kill(difference: str, seen: Seen, base: Seen) -> str:
    """The same after SIGKILL."""
    at = f"resumed at {seen.resumed_at}" if seen.resumed_at else "restarted"
    return f"killed at a random moment and {at} it differs: {difference}; the probable cause is {_suspected(base)}"


def _suspected(base: Seen) -> str:
    if base.loaders:
        return f"{base.loaders[0]}, whose workers cannot be restored; set persistent_workers=False"
    if base.suspects:
        names = " or ".join(base.suspects[:4])
        return (
            f"{names}, which changes in the loop and is not kept; keep it, run.keep(name=object), numbers and texts "
            "inside of a dict"
        )
    return (
        "state that changes in the loop and is not kept: a scheduler, a generator, a counter, a file in another folder "
        "than run.folder"
    )


def of_inert(name: str, off: str) -> str:
    """A component whose off level changes nothing."""
    return (
        f"{name} is inert: with {off} every logged number and the result stay equal; the function does not read the "
        "knob, or it matters only in a longer configuration than this"
    )


def order(name: str, off: str, base: Seen, seen: Seen) -> str | None:
    """Where a cell reads its data in another order; None: it does not, or nothing was seen of it."""
    for epoch in sorted(base.orders.keys() & seen.orders.keys()):
        before, now = base.orders[epoch], seen.orders[epoch]
        shuffles = [each for each in before if not each.endswith("randint")] or list(before)
        if any(each in now and before[each][0] == now[each][0] and before[each] != now[each] for each in shuffles):
            return (
                f"without {name} ({off}) the data comes in another order from epoch {epoch} on, so that cells differ "
                'by chance too; shuffle first in an epoch, or with a generator of its own, run.stream("order")'
            )
    return None


def shared_initial_values(name: str, base: Seen, seen: Seen) -> str | None:
    """How many tensors of the same name and shape start equal; None: all do, or there are none."""
    both = [each for each in base.initial if each in seen.initial and base.initial[each][0] == seen.initial[each][0]]
    equal = sum(base.initial[each] == seen.initial[each] for each in both)
    if equal == len(both):
        return None
    return (
        f"without {name} {equal} of {len(both)} tensors of the same name and shape start with the same values; "
        "run.initial_values(model) makes them equal, but for those whose scale depends on what the part changes "
        "(a wider layer before them)"
    )
