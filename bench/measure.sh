#!/bin/sh
# Build, test and measure on this machine: bench/measure.sh FOLDER [more options of pytest, as -k attention]
# FOLDER gets tests.xml, speed.json, speed.md, speed.html and plots. With a GPU only what is marked `gpu` is tested and measured.
set -e
folder=${1:?usage: bench/measure.sh FOLDER [options of pytest]}
shift
cd "$(dirname "$0")/.."
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
pip install --no-build-isolation --no-deps .
mark=""
python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" && mark="gpu"
python -m pytest -m "$mark" --junitxml="$folder/tests.xml" || echo "tests failed: their rows will be withheld"
python -m pytest bench -m "$mark" --benchmark-json="$folder/speed.json" "$@"
python bench/report.py "$folder/speed.json" --tests "$folder/tests.xml" --out "$folder"
