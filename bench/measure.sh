#!/bin/sh
# Build, test and measure on this machine: bench/measure.sh [--quick] [--only PART] FOLDER [more options of pytest, as -k attention]
# FOLDER gets tests.xml, operators.json, steps.json, speed.md, speed.html, speed.csv and plots. With a GPU only what is marked `gpu` is measured, and
# tested beside the losses, which have no test of their own there. A file that lacks a package of its own (lmdb, av, lz4, msgpack) is left out.
# --quick: the operators and the step in bf16 on MEmoBERT's lengths alone, in three rounds, and the tests that vouch for them; about five minutes.
# --only: build, tests, operators, steps or report, where a machine is lent for a few minutes at a time: what was measured before stays.
set -e
quick="" only=""
while :; do
    case "$1" in
        --quick) quick=yes ;;
        --only) only=${2:?--only build, tests, operators, steps or report}; shift ;;
        *) break ;;
    esac
    shift
done
case "$only" in
    "" | build | tests | operators | steps | report) ;;
    *) echo "--only is build, tests, operators, steps or report, not $only" >&2; exit 2 ;;
esac
folder=${1:?usage: bench/measure.sh [--quick] [--only PART] FOLDER [options of pytest]}
shift
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
python=$(command -v python || command -v python3)
mark="" tests="" checks="" rows="" failed=""
if "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    mark="gpu" checks="(gpu or test_losses) and not for_a_gpu"  # what compiles for a GPU needs none
fi
if [ "$quick" ]; then
    export MEMOFAST_BENCH_ROUNDS=3
    tests="python_tests/ops python_tests/train/test_captured_step.py python_tests/objectives/test_losses.py"
    checks="${checks:+$checks and }not compile"
    rows="ceilings or test_call or whole_word and bf16"
    for operator in attention bias_gelu dropout_add_norm embed; do
        rows="$rows or test_$operator and bf16 and not uniform and not all32 and not all160 and not 64-"
    done
    [ "$mark" ] && rows="$rows or all_masks or gpu_ladder or gpu_fed_step or gpu_learning"
fi
steps=$(ls bench/test_step.py bench/test_objectives.py bench/test_autoencoding.py bench/test_ladder.py bench/test_fed_step.py bench/test_l[eo]*.py bench/test_pre*.py)
operators=$(ls bench/test_*.py | grep -vxF "$steps" | grep -v test_ceilings)

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }

measure() { # NAME, FILES, options of pytest: into NAME.json, which must not be of an earlier run
    name=$1 files=$2
    shift 2
    rm -f "$folder/$name.json"
    # shellcheck disable=SC2086
    "$python" -m pytest bench/test_ceilings.py $files -m "$mark" -k "$rows" --continue-on-collection-errors \
        --benchmark-json="$folder/$name.json" "$@" || failed=yes
}

wanted build && "$python" -m pip install --no-build-isolation --no-deps .
if wanted tests; then
    rm -f "$folder/tests.xml"
    # shellcheck disable=SC2086
    "$python" -m pytest $tests -k "$checks" --continue-on-collection-errors --junitxml="$folder/tests.xml" ||
        echo "tests failed: their rows will be withheld"
fi
if wanted operators; then measure operators "$operators" "$@"; fi
if wanted steps; then measure steps "$steps" "$@"; fi
if wanted report; then
    found=""
    for name in operators steps; do
        [ -s "$folder/$name.json" ] && found="$found $folder/$name.json"
    done
    [ "$found" ] || { echo "nothing was measured" >&2; exit 1; }
    [ -s "$folder/tests.xml" ] && found="$found --tests $folder/tests.xml"
    # shellcheck disable=SC2086
    "$python" bench/report.py $found --out "$folder"
fi
[ -z "$failed" ] || { echo "benchmarks failed: their rows are missing" >&2; exit 1; }
