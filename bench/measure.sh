#!/bin/sh
# Build, test and measure on this machine: bench/measure.sh [--quick] FOLDER [more options of pytest, as -k attention]
# FOLDER gets tests.xml, speed.json, speed.md, speed.html and plots. With a GPU only what is marked `gpu` is measured, and tested beside the losses,
# which have no test of their own there. A file that lacks a package of its own (lmdb, av, lz4, msgpack) is left out.
# --quick: the operators and the step in bf16 on MEmoBERT's lengths alone, in three rounds, and the tests that vouch for them; about five minutes.
set -e
quick=""
if [ "$1" = --quick ]; then
    quick=yes
    shift
fi
folder=${1:?usage: bench/measure.sh [--quick] FOLDER [options of pytest]}
shift
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
rm -f "$folder/tests.xml" "$folder/speed.json"  # of an earlier run, which this one must not report as its own
pip install --no-build-isolation --no-deps .
mark="" tests="" checks="" rows="" failed=""
if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    mark="gpu" checks="(gpu or test_losses)"
fi
if [ "$quick" ]; then
    export MEMOFAST_BENCH_ROUNDS=3
    tests="python_tests/ops python_tests/train/test_captured_step.py python_tests/objectives/test_losses.py"
    checks="${checks:+$checks and }not compile"
    rows="ceilings or test_call or whole_word and bf16"
    for operator in attention bias_gelu dropout_add_norm embed; do
        rows="$rows or test_$operator and bf16 and not uniform and not all32 and not all160 and not 64-"
    done
    [ "$mark" ] && rows="$rows or all_masks or gpu_ladder"
fi
# shellcheck disable=SC2086
python -m pytest $tests -k "$checks" --continue-on-collection-errors --junitxml="$folder/tests.xml" || echo "tests failed: their rows will be withheld"
python -m pytest bench -m "$mark" -k "$rows" --continue-on-collection-errors --benchmark-json="$folder/speed.json" "$@" || failed=yes
[ -s "$folder/speed.json" ] || { echo "nothing was measured" >&2; exit 1; }
python bench/report.py "$folder/speed.json" --tests "$folder/tests.xml" --out "$folder"
[ -z "$failed" ] || { echo "benchmarks failed: their rows are missing" >&2; exit 1; }
