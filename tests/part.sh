#!/usr/bin/env bash
# A part of the tests on a backend, in a process of its own: engines keep memory for every program
# that they ran, and give it back when their process ends. Every line of output says whose it is.
#
#     tests/part.sh PYTHON MARKS BACKEND PART
set -uo pipefail
python=$1 marks=$2 backend=$3 part=$4
others=(tests keras_taskrobust --ignore=tests/{recipes,training,downstream})

case $part in
    all) paths=() ;;
    others) paths=("${others[@]}") ;;
    *) paths=("tests/$part") ;;
esac
case $backend in
    backend-free) export KERAS_BACKEND=jax; marks="backend_free and $marks" ;;
    *) export KERAS_BACKEND=$backend; marks="not backend_free and $marks" ;;
esac

"$python" -m pytest -m "$marks" --cpu-seconds "${paths[@]}" 2>&1 | sed -u "s/^/$backend $part: /"
status=$?
[ $status -eq 5 ] || exit $status  # 5: the part has no such test
