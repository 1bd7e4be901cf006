#!/bin/sh
# Postfix 3.7.11: `postconf -e` glues a new parameter to a last line without a newline.
#
# An editor or a template that writes no newline at the end of main.cf is enough: `postconf -e biff=no` then appends to the
# value of the last parameter, and biff keeps its default. The exit status is 0. Later releases end the line first.
# `postconf -Fh` prints no space behind a command of four letters: `pipeflags=x` for a line of pipe.
#
# Exit status 0 while postconf behaves so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo 'a unix - n n - - pipe flags=x' > "$folder/master.cf"
printf 'relayhost = a.example' > "$folder/main.cf"
postconf -c "$folder" -e biff=no
cat "$folder/main.cf"
glued=$(postconf -c "$folder" -h relayhost)
command=$(postconf -c "$folder" -Fh a/unix/command)
echo "relayhost: $glued"
echo "command: $command"
[ "$glued" = "a.examplebiff = no" ] && [ "$command" = "pipeflags=x" ]
