# Sourced by the scripts: where things are, and how to say what happens.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
TOOLS="$ROOT/.tools"
DIST="$ROOT/dist"
PYTHON="$TOOLS/venv/bin/python"

# Prints a script's own header, up to the first line that is no comment.
usage() {
  sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p}' "$0"
}

say() {
  printf '▸ %s\n' "$*" >&2
}

# Ends the script: what is wrong, and what to do about it.
fail() {
  printf '✗ %s\n' "$*" >&2
  exit 1
}

# need COMMAND WHAT-TO-DO
need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: $2"
}

# The version of a crate in Cargo.lock; nothing where it is not there.
locked_version() {
  awk -v name="\"$1\"" '$1 == "name" && $3 == name { found = 1 }
    found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' "$ROOT/Cargo.lock"
}
