#!/bin/sh
# The tests on SQLite, without a browser, on each supported pair of Python and Django whose Python
# is installed: as python3.12 and so on, or under pyenv.
set -eu
. "$(dirname "$0")/find_python.sh"
for pair in ${PAIRS:-3.11:5.2 3.12:6.0 3.13:6.1}; do
    version=${pair%:*} django=${pair#*:}
    python=$(find_python "$version")
    if [ -z "$python" ]; then
        echo "Python $version is not installed: left out."
        continue
    fi
    venv=.venv-$version
    [ -d "$venv" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
        -e ".[daphne,uvicorn,postgres,drf]" --group test "django~=$django.0"
    echo "Python $version, Django $django"
    "$venv/bin/python" -m pytest -q -n 2 -m "not browser" tests
done
