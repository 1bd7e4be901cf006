#!/bin/sh
# mkdocs 1.6.1: `mkdocs build --strict --quiet` exits 0 for a page with a broken link.
#
# `--strict` counts the warnings that reach the logger, and `--quiet` lets only errors reach it, so none is counted. The
# guess is wrong because `--quiet` sounds like an option for the output alone: a build in CI with both options accepts
# every broken link.
#
# Exit status 0 while both builds behave so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mkdocs==1.6.1
mkdir "$folder/docs"
printf 'site_name: x\n' > "$folder/mkdocs.yml"
printf '# Page\n\n[a link](missing.md)\n' > "$folder/docs/index.md"
cd "$folder"

status() {
    "$folder/venv/bin/mkdocs" build --site-dir "$folder/site" "$@" > "$folder/out" 2>&1 && echo 0 || echo $?
}

strict=$(status --strict)
quiet=$(status --strict --quiet)
echo "mkdocs build --strict:         exit status $strict"
echo "mkdocs build --strict --quiet: exit status $quiet"
[ "$strict" -ne 0 ] && [ "$quiet" -eq 0 ]
