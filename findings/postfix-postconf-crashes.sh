#!/bin/sh
# Postfix 3.7.11: postconf ends with SIGSEGV for a loop through a comparison, and for `-X name name`.
#
# `a = $b`, `b = $a` is found after 100 levels. A comparison starts to count anew, so `a = ${{$a} == {1}}` recurses until
# the stack ends; smtpd and the others read main.cf in the same way. A name that `-X` or `-#` has twice is freed twice.
# The guess is wrong because the limit of nesting is documented for all references.
#
# Exit status 0 while postconf behaves so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
: > "$folder/master.cf"
status() {
    "$@" > "$folder/out" 2>&1 && echo 0 || echo $?
}
printf 'a = $b\nb = $a\nmyorigin = $a\n' > "$folder/main.cf"
plain=$(status postconf -c "$folder" -x myorigin)
printf 'a = ${{$a} == {1}}\nmyorigin = $a\n' > "$folder/main.cf"
compared=$(status postconf -c "$folder" -x myorigin)
twice=$(status postconf -c "$folder" -X a b a)
echo "a = \$b, b = \$a:          exit status $plain"
echo "a = \${{\$a} == {1}}:       exit status $compared"
echo "postconf -X a b a:        exit status $twice"
[ "$plain" -eq 1 ] && [ "$compared" -eq 139 ] && [ "$twice" -eq 139 ]
