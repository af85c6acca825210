# shellcheck shell=sh
# Sourced by the scripts beside it: goes to the repository's root and, by
# `need`, makes or reuses .venv with greend installed in place.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
cd "$root" || exit
stamp=.venv/greend-stamp # three lines: where and on which Python; checksum; extras

say() { printf 'greend: %s\n' "$*" >&2; }

die() {
    say "$@"
    exit 1
}

# Hundredths of a second since the machine started.
clock() {
    read -r uptime _ </proc/uptime
    printf %s "${uptime%.*}${uptime#*.}"
}

# Names the Python that $1 really is (not the shim, not the venv around it) as
# "version|prefix|executable". Fails if it does not run or is older than 3.11.
python_id() {
    "$1" -I -S -c 'import sys
sys.version_info >= (3, 11) or sys.exit(1)
print("%d.%d" % sys.version_info[:2], sys.base_prefix, sys._base_executable, sep="|")' \
        2>/dev/null </dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        python_id "$PYTHON" || die "PYTHON=$PYTHON does not run or is older than Python 3.11"
        return
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        python_id "$name" && return
    done
    die "needs Python 3.11 or newer and found none. On Debian or Ubuntu: apt-get install" \
        "python3 python3-venv. One that is not on PATH: PYTHON=/path/to/python3 sh $0"
}

# True if .venv is here, works and has all the extras. Sets made, sum, have (from
# the stamp) and home, now (as they are).
ready() {
    made='' sum='' have=''
    if [ -f "$stamp" ]; then
        { read -r made && read -r sum && read -r have; } <"$stamp" || :
    fi
    id=$(python_id .venv/bin/python) || id=''
    home="$root ${id%|*}"
    now=$(cksum <pyproject.toml)
    [ -n "$id" ] && [ "$made" = "$home" ] && [ "$sum" = "$now" ] || return 1
    if [ -n "${PYTHON:-}" ]; then
        wanted=$(find_python) || exit
        [ "${wanted%|*}" = "${id%|*}" ] || { made='another Python' && return 1; }
    fi
    for extra; do
        case " $have " in *" $extra "*) ;; *) return 1 ;; esac
    done
}

# make_venv PYTHON DIRECTORY: a new virtual environment with pip. Debian and Ubuntu keep
# pip and ensurepip out of python3. Then pip comes from the system's pip, or from
# Debian's package of it, which is only unpacked, not installed.
make_venv() {
    rm -rf "$2"
    if "$1" -c 'import ensurepip' 2>/dev/null && "$1" -m venv "$2"; then
        return
    fi
    "$1" -m venv --clear --without-pip "$2" || die "$1 has no working venv. As root: apt-get install python3-venv; then run this again"
    "$1" -m pip --python "$root/$2/bin/python" install pip >"$2/install.log" 2>&1 && return
    mkdir "$2/deb"
    (
        cd "$2/deb" && apt-get download python3-pip-whl && dpkg-deb -x ./*.deb . || exit
        wheel=$(echo usr/share/python-wheels/pip-*.whl)
        ../bin/python "$wheel/pip" install pip
    ) >>"$2/install.log" 2>&1 && rm -r "$2/deb" && return
    rm -rf "$2"
    die "Python's venv with pip is missing here." \
        "As root: apt-get update && apt-get install python3-venv; then run this again"
}

# Makes .venv hold greend with these extras, and those it held before. One process
# at a time; does nothing, and needs no network, when all is there.
need() {
    ready "$@" && return
    if command -v flock >/dev/null; then
        exec 9<>pyproject.toml
        flock -n 9 || { say "waiting for another install into .venv" && flock 9; }
    fi
    ready "$@" || install "$@"
    exec 9>&-
}

install() {
    if { [ -n "$made" ] && [ "$made" != "$home" ]; } || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        found=$(find_python)
        say "making .venv with Python ${found%%|*}"
        make_venv "${found##*|}" .venv
    fi
    id=$(python_id .venv/bin/python) || die "the Python of the new .venv does not run"
    # shellcheck disable=SC2086 # the extras are words
    extras=$(printf '%s\n' $have "$@" | sort -u | tr '\n' ' ')
    extras=${extras% } extras=${extras# }
    printf '%s\n' "$root ${id%|*}" unfinished "$have" >"$stamp"
    say "installing greend${extras:+ with extras $extras} into .venv; the first time takes a minute"
    what=.${extras:+[$(printf %s "$extras" | tr ' ' ,)]}
    if ! .venv/bin/python -m pip install --disable-pip-version-check --no-input \
        -e "$what" >.venv/install.log 2>&1 </dev/null; then
        cat .venv/install.log >&2
        die "the install failed; what pip said is above"
    fi
    printf '%s\n' "$root ${id%|*}" "$now" "$extras" >"$stamp"
}
