"""Turns the JSON of `pytest bench`, of one run or of several of one build, into a speed report: Markdown, the same as
HTML, plots, and a CSV.

pytest --junitxml=tests.xml
pytest bench --benchmark-json=speed.json
python bench/report.py speed.json --tests tests.xml --out bench/results/MACHINE
bench/measure.sh --quick FOLDER   # operators and step in bf16, build and tests included
"""

import argparse
import statistics
import sys
from pathlib import Path

import report_plots
import speed_csv
import yaml
from markdown_it import MarkdownIt
from measurements import Error, Measurement, Run, errors, read_runs, tested, unvouched

REASONS = Path(__file__).with_name("where_we_lose.yaml")
TARGETS, TARGETED = Path(__file__).with_name("targets_h200.yaml"), "H200"
METHOD = """How: ours and all rivals run in one process on the same inputs, in another random order every round;
everybody is called before the first round, and a function of a few milliseconds once more before each of
its own. On a CPU caches are as that call left them. On a GPU, inputs of operators rotate through three
times the L2 cache (rows with less say so), and their time is that of a CUDA graph of 20 calls or more
between two events, or by events around plain calls where it says `events`; `call` is the host's time
until a call returns. Whole steps take wall time until the device is idle. Every result is held by the
tests of the build to at most twice (gradients: three times) the error of plain PyTorch in the same
type.""".splitlines()
_PAGE = """<!doctype html><meta charset="utf-8"><title>memofast: speed</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse;display:block;overflow-x:auto}}
td,th{{border-bottom:1px solid #ccc;padding:.3rem .7rem;text-align:left;vertical-align:top}}
img{{max-width:100%}}code{{background:#f3f3f3}}</style>
{body}"""


def time(seconds: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "us")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def spread(summary: dict, show) -> str:
    return f"{show(summary['median'])} [{show(summary['p20'])}, {show(summary['p80'])}]"


def ratio(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def header(run: Run) -> list[str]:
    facts = run.machine
    return [
        f"- machine: {facts.get('cpu')}, {facts.get('threads')} threads; GPU: {facts.get('gpu')}; "
        f"kernels: {facts.get('isa')}",
        f"- memofast {facts.get('memofast')} at {facts.get('commit')}, torch {facts.get('torch')}, "
        f"Python {facts.get('python')}, date: {run.date}",
        "- beside it: "
        + (", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items()) or "not told"),
        f"- measured by: `{facts.get('command', '')}`",
        "- every row: median [20th, 80th percentile]; ratio: the rival's time over ours, taken round by round; floor: "
        "the time that the bytes (at",
        "  the measured copy rate) or the operations (at the measured matrix rate) of the work need at least, "
        "whichever is longer, as a share of ours",
        "",
        *METHOD,
    ]


def ceilings(run: Run) -> list[str]:
    if not run.ceilings:
        return ["Ceilings: not measured, so no floors are given."]
    lines = ["| ceiling, measured in the same process | rate |", "| --- | --- |"]
    lines += [f"| {name} | {rate:,.0f} {unit} |" for name, (rate, unit) in run.ceilings.items()]
    told = [f"{spread(summary, ratio)} ({name})" for name, summary in run.noise.items()]
    return lines + (["", f"Noise, the ratio of one product to itself: {', '.join(told)}."] if told else [])


def claims(run: Run, passed: set[str]) -> list[str]:
    """Every row against the fastest of its rivals, whoever that is."""
    lines = [
        "| what | ours | fastest rival | its time | ratio | floor | targets |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for measured in filter(lambda m: not _is_call(m), run.measurements):
        rival, ours = measured.fastest_rival, _taken(measured, "ours")
        withheld = unvouched(measured.tests, passed)
        if withheld:
            told = ["", "", withheld]
        elif rival is None:
            told = ["none", "", ""]
        else:
            told = [rival, _taken(measured, rival), spread(measured.ratios[rival], ratio)]
        met = [_verdict(measured, name) for name in measured.target] if not withheld else []
        lines.append("| " + " | ".join([measured.name, ours, *told, _share(run, measured), ", ".join(met)]) + " |")
    return lines


def contestants(run: Run, passed: set[str]) -> list[str]:
    """The time of everybody, and why somebody could not take part."""
    lines = ["| what | who | time | ratio |", "| --- | --- | --- | --- |"]
    for measured in run.measurements:
        if unvouched(measured.tests, passed) or _is_call(measured):
            continue
        for name, summary in measured.ratios.items():
            who = f"{name} (beside)" if name in measured.beside else name
            lines.append(f"| {measured.name} | {who} | {_taken(measured, name)} | {spread(summary, ratio)} |")
        for name, reason in measured.refused.items():
            lines.append(f"| {measured.name} | {name} | not measured: {reason} | |")
    return lines


def calls(run: Run, passed: set[str]) -> list[str]:
    """What calls cost above their bodies."""
    lines = [
        "Forward on the smallest operands: `body` allocates results and calls the kernel; `Function` is what "
        "PyTorch's `autograd.Function` takes of a",
        "call with gradients; `custom_op` is the same body behind `torch.library.custom_op`.",
        "",
        "| call | takes | body | above its body | aimed at | Function | custom_op |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for measured in filter(_is_call, run.measurements):
        if withheld := unvouched(measured.tests, passed):
            lines.append(f"| {measured.name} | {withheld} | | | | | |")
            continue
        body, at_most = measured.seconds["body"], measured.facts["at_most_us"]
        above = _above(measured)
        aimed = f"at most {at_most} us, {'met' if above * 1e6 <= at_most else '**not met**'}"
        others = [
            spread(measured.seconds[who], time) if who in measured.seconds else ""
            for who in ("empty Function", "custom_op")
        ]
        cells = [measured.name, spread(measured.seconds["ours"], time), spread(body, time), time(above), aimed, *others]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def exactness(found: dict[tuple[str, str], Error]) -> list[str]:
    """How far results are from fp64, beside plain PyTorch."""
    if not found:
        return ["Not measured."]
    lines = [
        "Largest errors against fp64, ours and plain PyTorch's in the same type, in that test of each operator which "
        "came nearest to what ours may be: twice",
        "plain PyTorch's, of gradients three times.",
        "",
        "| operator | type | pass | ours | plain PyTorch | of what is allowed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (name, kind), error in sorted(found.items()):
        stage, dtype = kind.split()
        lines.append(
            f"| {name} | {dtype} | {stage} | {error.ours:.2g} | {error.plain:.2g} | {100 * error.share:.0f} % |"
        )
    return lines


def _is_call(measured: Measurement) -> bool:
    return "at_most_us" in measured.facts


def _above(measured: Measurement) -> float:
    """Seconds that a call takes beyond its body."""
    return measured.seconds["ours"]["median"] - measured.seconds["body"]["median"]


def _verdict(measured: Measurement, rival: str) -> str:
    wanted, found = f"{measured.target[rival]:g}x {rival}", measured.ratio_to(rival)
    if found is None:
        return f"{wanted}: not measured"
    return f"{wanted} {'met' if found['median'] >= measured.target[rival] else '**not met**'}"


def _share(run: Run, measured: Measurement) -> str:
    floor = run.floor(measured)
    return "" if floor is None else f"{100 * floor / measured.seconds['ours']['median']:.0f} %"


def _taken(measured: Measurement, who: str) -> str:
    """A contestant's time; on a GPU that of the device, by events where it could not be captured, and that of the
    call."""
    told = spread(measured.seconds[who], time)
    if measured.method.get(who) == "events":
        told += " (events)"
    if who in measured.call_seconds:
        told += f", call {spread(measured.call_seconds[who], time)}"
    return told


def losses(run: Run, reasons: dict[str, str], passed: set[str]) -> list[str]:
    """Every row that misses its target or is slower than its rival, with the reason where one is known."""
    lines = []
    for measured in run.measurements:
        if unvouched(measured.tests, passed):
            continue
        why = next((text for name, text in reasons.items() if measured.name.startswith(name)), "Reason not known.")
        if _is_call(measured):
            if _above(measured) > measured.facts["at_most_us"] / 1e6:
                lines.append(f"- {measured.name}: {time(_above(measured))} above its body. {why}")
            continue
        for rival, summary in measured.ratios.items():
            if summary["median"] < max(1, measured.wanted(rival)):
                lines.append(f"- {measured.name} against {rival}: {spread(summary, ratio)}. {why}")
    return lines or ["- in no row of this run"]


def device_targets(run: Run, passed: set[str]) -> list[str]:
    """The times aimed at on the one GPU that there are such targets for, with what this run says about them."""
    rows = {m.name: m for m in run.measurements if not unvouched(m.tests, passed)}
    lines = [
        f"Aimed at on an {TARGETED}, in bf16 with dropout 0.1 on 256 samples of MEmoBERT's lengths; a target is of no "
        "other GPU.",
        "",
        "| what | target | measured | |",
        "| --- | --- | --- | --- |",
    ]
    for what, target in yaml.safe_load(TARGETS.read_text()).items():
        found = [rows.get(target[part]) for part in ("row", "less") if part in target]
        here = None not in found and TARGETED in str(run.machine.get("gpu"))
        value = _reached(target, found) if here else None
        limit = target["at_most"] / 1e6 if "at_most" in target else target["at_least"]
        if value is None:
            measured, verdict = "not measured", ""
        else:
            met = value <= limit if "at_most" in target else value >= limit
            measured, verdict = _amount(target, value), "met" if met else "**not met**"
        wanted = f"{'at most' if 'at_most' in target else 'at least'} {_amount(target, limit)}"
        lines.append(f"| {what} | {wanted} | {measured} | {verdict} |")
    return lines


def _amount(target: dict, value: float) -> str:
    """A time, a ratio to a rival, or a plain number."""
    if "at_most" in target:
        return time(value)
    return f"{value:,.4g}{'x' if 'rival' in target else ''}"


def _reached(target: dict, found: list[Measurement]) -> float | None:
    """What was measured of a target, see targets_h200.yaml; None where its rival did not take part."""
    first, *less = (row.seconds["ours"]["median"] for row in found)
    if "at_most" in target:
        return first - sum(less)
    if "rival" in target:
        return (found[0].ratio_to(target["rival"]) or {}).get("median")
    facts = found[0].facts
    return facts[target["fact"]] if "fact" in target else facts[target["per_second"]] / first / target.get("of", 1)


def ladders(run: Run, passed: set[str]) -> list[str]:
    """Every rung of a whole step: what it takes, what it gives, and how much of the machine it uses."""
    lines = []
    for measured in run.measurements:
        if "rungs" not in measured.facts:
            continue
        if withheld := unvouched(measured.tests, passed):
            lines += [f"{measured.name}: {withheld}.", ""]
            continue
        facts, rate = measured.facts, run.matrix_rate(measured.on_gpu, "bf16")
        lines += [
            f"{measured.name}: {facts['samples']} samples of {facts['rows']} rows in all, "
            f"{facts['flop'] / 1e12:.3g} TFLOP of the model. Used: these operations",
            "at the rung's time, as a share of the highest matrix rate measured in bf16. Memory: what a step "
            "allocates at its most, gradients included.",
            "",
            "| rung | time of a step | samples/s | rows/s | TFLOP/s | used | memory | launches |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        for rung in facts["ladder"]:
            seconds, own = measured.seconds[rung]["median"], facts["rungs"][rung]
            used = "not measured" if rate is None else f"{100 * facts['flop'] / 1e9 / rate / seconds:.0f} %"
            cells = [facts["last"] if rung == "ours" else rung, _taken(measured, rung)]
            cells += [count(facts[unit] / seconds) for unit in ("samples", "rows")]
            cells += [
                f"{facts['flop'] / 1e12 / seconds:.3g}",
                used,
                f"{own['peak_bytes'] / 1e9:.2f} GB",
                str(own.get("launches", "")),
            ]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines or ["Not measured.", ""]


_LAST = 10


def learned(run: Run, passed: set[str]) -> list[str]:
    """Both contestants' losses at the end, averaged over the last updates of each objective."""
    if not run.learning:
        return ["Not measured."]
    lines = [
        f"Mean loss and, in brackets, deviation over the last {_LAST} updates of each objective; the same batches and "
        "masks, dropout apart.",
        "",
        "| what | objective | first loss, padded | padded | memofast |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one in run.learning:
        if withheld := unvouched(one.tests, passed):
            lines.append(f"| {one.name} | {withheld} | | | |")
            continue
        for objective in one.objectives:
            ends = [one.of(objective, who)[-_LAST:] for who in ("padded", "memofast")]
            cells = [f"{statistics.mean(end):.4g} ({statistics.stdev(end):.2g})" for end in ends]
            first = f"{one.of(objective, 'padded')[0]:.4g}"
            lines.append("| " + " | ".join([one.name, objective, first, *cells]) + " |")
    return lines


def facts(measured: Measurement) -> str:
    told = ", ".join(f"{name} {value}" for name, value in measured.facts.items() if name not in ("ladder", "rungs"))
    return f"- {measured.name}: {told}" if told else ""


def report(run: Run, passed: set[str], found: dict[tuple[str, str], Error], plots: list[str]) -> str:
    """The report of one run as Markdown. passed: operators whose tests passed on this build; found: the errors they
    told."""
    reasons = yaml.safe_load(REASONS.read_text()) or {}
    lines = ["# Speed", "", *header(run), ""]
    if not passed:
        lines += [
            "No test of this build was looked at or passed (`--tests`), so nothing is claimed against a rival.",
            "",
        ]
    lines += [*ceilings(run), "", "## Against the fastest rival", "", *claims(run, passed), ""]
    lines += [f"![{name}]({name})" for name in plots]
    lines += [
        "",
        "## How exact",
        "",
        *exactness(found),
        "",
        "## The whole step, rung by rung",
        "",
        *ladders(run, passed),
    ]
    lines += [f"## Targets on an {TARGETED}", "", *device_targets(run, passed), ""]
    lines += ["## What a call costs", "", *calls(run, passed), ""]
    lines += ["## Does the fast step learn the same?", "", *learned(run, passed)]
    lines += ["", "## Where we lose", "", *losses(run, reasons, passed), "", "## How to repeat", ""]
    lines += [f"    {line}" for line in __doc__.strip().splitlines()[2:]]
    lines += ["", "## Every contestant", "", "Beside: code of ours, or what does less.", "", *contestants(run, passed)]
    lines += ["", "## What was measured", "", *filter(None, map(facts, run.measurements))]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "file", type=Path, nargs="+", help="JSON of pytest bench --benchmark-json; several of one build"
    )
    parser.add_argument("--tests", type=Path, help="JUnit XML of the operators' tests on the same build")
    parser.add_argument(
        "--out", type=Path, help="folder for speed.md, speed.html, speed.csv and plots; without it Markdown is printed"
    )
    options = parser.parse_args()
    try:
        run = read_runs(options.file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    passed = set() if options.tests is None else tested(options.tests, run)
    found = errors(options.tests, passed, any(row.on_gpu for row in run.measurements)) if passed else {}
    if options.out is None:
        sys.stdout.write(report(run, passed, found, []))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    text = report(run, passed, found, report_plots.draw(run, passed, options.out))
    (options.out / "speed.md").write_text(text)
    speed_csv.write(run, passed, options.out / "speed.csv")
    body = MarkdownIt("commonmark").enable("table").render(text)
    (options.out / "speed.html").write_text(_PAGE.format(body=body))
    print(f"wrote {options.out / 'speed.md'}, speed.html and speed.csv")


if __name__ == "__main__":
    main()
