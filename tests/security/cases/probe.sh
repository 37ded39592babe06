# What the cases in shell stand on; see probe.py, which is the same for Python.
mode=$1
tried=0

wrong() { printf 'WRONG %s\n' "$1"; }

# refused WHAT COMMAND...: it must fail.
refused() {
    what=$1
    shift
    tried=$((tried + 1))
    if "$@" 2> /dev/null; then wrong "$what"; fi
}

# works WHAT COMMAND...: it must succeed.
works() {
    what=$1
    shift
    tried=$((tried + 1))
    "$@" || wrong "$what"
}

# same WHAT ACTUAL EXPECTED
same() {
    tried=$((tried + 1))
    [ "$2" = "$3" ] || wrong "$1: $2"
}

begun() { printf 'TRIED %s\n' $((tried + 1)); }

# A fact that is text, by its name.
fact() { printf '%s' "$facts" | sed "s/.*\"$1\": \"\([^\"]*\)\".*/\1/"; }

facts=$2

finish() {
    "$mode"
    printf 'TRIED %s\n' "$tried"
}
