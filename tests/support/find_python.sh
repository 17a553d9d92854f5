# Sourced by other scripts: defines find_python.

find_python() { # find_python VERSION: prints the path of a Python of this version, if installed
    for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python "python$1"; do
        if "$candidate" -c "" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}
