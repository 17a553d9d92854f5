#!/usr/bin/env bash
# The runs that are too long for CI. Prints the minutes of each part, runs all of them even if one
# fails, and fails at the end if one did.
#
#   bash tests/support/long.sh            all parts
#   bash tests/support/long.sh django     the parts whose name contains this word
#   SOAK_MINUTES=2 bash tests/support/long.sh soak
set -uo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-.venv/bin/python}
only=${1:-}
timings=()
failed=()

part() { # part NAME COMMAND...
    local name=$1 began=$SECONDS outcome=passed
    shift
    [[ $name == *"$only"* ]] || return 0
    printf '\n=== %s\n' "$name"
    "$@" || { outcome=FAILED; failed+=("$name"); }
    timings+=("$(awk -v s=$((SECONDS - began)) -v n="$name" -v o=$outcome \
        'BEGIN { printf "%6.1f min  %s: %s", s / 60, n, o }')")
}

capture_on_postgres() { # capture_on_postgres VERSION
    if [ "$1" = 16 ] && ! "$python" -c "import pgserver" 2>/dev/null; then
        echo "PostgreSQL 16 comes from pgserver, which this Python does not have: left out."
        return 0
    fi
    POSTGRES_VERSION=$1 TEST_DATABASE=postgres "$python" -m pytest -q -n 3 \
        tests/capture tests/log tests/delivery/test_oracle.py
}

newest_django() { # newest_django DATABASE
    local newer
    newer=$(. tests/support/find_python.sh; find_python 3.13)
    if [ -z "$newer" ]; then
        echo "Python 3.13 is not installed: left out."
        return 0
    fi
    [ -d .venv-3.13 ] || "$newer" -m venv .venv-3.13
    .venv-3.13/bin/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
    .venv-3.13/bin/python -m pip install --quiet --disable-pip-version-check \
        -e ".[daphne,uvicorn,postgres,drf]" --group test --group django-suite "django~=6.1.0"
    HISTORIES=20 TEST_DATABASE=$1 .venv-3.13/bin/python -m pytest -q -n 2 \
        tests/relations/test_oracle.py || return 1
    .venv-3.13/bin/python -m tests.django_suite --folders all --bare --database "$1"
}

numbering() {
    STRESS_SECONDS=300 TEST_DATABASE=postgres "$python" -m pytest -q -n 0 \
        tests/log/test_numbering_stress.py
}

soak() { # soak DATABASE
    "$python" -m benchmarks.soak --minutes "${SOAK_MINUTES:-30}" --database "$1"
}

faults() { # faults DATABASE [OPTION]
    "$python" -m benchmarks.fault_injection --changes "${CHANGES:-100000}" --database "$@"
}

key_queries() { # key_queries DATABASE
    HISTORIES=50 TEST_DATABASE=$1 "$python" -m pytest -q -n 2 tests/relations/test_oracle.py
}

rights_over_sockets() { # rights_over_sockets DATABASE
    RIGHTS_SOCKET_HISTORIES=300 TEST_DATABASE=$1 "$python" -m pytest -q -n 0 -o timeout=0 \
        tests/e2e/test_rights_sockets.py
}

client_model() {
    HISTORIES=10000 "$python" -m pytest -q -n 2 tests/clients/model
}

client_lists() { # client_lists DATABASE
    WRITES=10000 TEST_DATABASE=$1 "$python" -m pytest -q -n 2 tests/clients/test_lists.py
}

client_applications() {
    REQUIRE_APPLICATIONS=1 REQUIRE_BROWSER=1 "$python" -m pytest -q -n 0 \
        tests/clients/platforms/test_applications.py
}

part "capture on PostgreSQL 16" capture_on_postgres 16
part "capture on PostgreSQL 18" capture_on_postgres 18
for database in sqlite postgres; do
    suite=("$python" -m tests.django_suite --database "$database")
    part "django, all folders, $database" "${suite[@]}" --folders all --bare
    part "django, by triggers, $database" "${suite[@]}" --capture triggers
    part "django, another manager, $database" "${suite[@]}" --mode manager
    part "django, number of queries, $database" "${suite[@]}" --mode queries
    part "django 6.1, all folders, $database" newest_django "$database"
done
for database in sqlite postgres; do
    part "querysets in filters, 50 random histories, $database" key_queries "$database"
done
for database in sqlite postgres; do
    part "rights over sockets, 300 random histories, $database" rights_over_sockets "$database"
done
part "clients, 10,000 random histories" client_model
part "clients, lists under 10,000 writes, sqlite" client_lists sqlite
part "clients, lists under 10,000 writes, postgres" client_lists postgres
part "clients, Next.js, Nuxt and SvelteKit" client_applications
for database in sqlite postgres; do
    part "faults, $database" faults "$database"
    part "faults, $database, without Redis" faults "$database" --no-redis
done
part "processes that number at the same time" numbering
part "soak, sqlite" soak sqlite
part "soak, postgres" soak postgres

printf '\n=== minutes per part\n'
printf '%s\n' "${timings[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    printf '\nFailed: %s\n' "${failed[@]}"
    exit 1
fi
