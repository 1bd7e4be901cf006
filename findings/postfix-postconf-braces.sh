#!/bin/sh
# Postfix 3.7.11: `postconf -F` and `-P` damage arguments in master.cf while they change something else.
#
# An argument in braces is one word. postconf prints the first argument behind the options without its braces, so a line
# of pipe with `{flags x}` gets two arguments more after a change of the chroot field. `-oname=value` is split at each
# letter o inside it: `-omydomain=x.example` stays whole, `-osmtpd_proxy=x` becomes `-o smtpd_pr -o xy=x`. The guess is
# wrong because an edit of one field looks safe for the others.
#
# Exit status 0 while postconf behaves so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo 'compatibility_level = 3.6' > "$folder/main.cf"
cat > "$folder/master.cf" <<'END'
a unix - n n - - pipe
  {first argument} {second argument}
b unix - - n - - smtp
  -osmtpd_proxy=x
END
postconf -c "$folder" -F '*/unix/chroot=y'
cat "$folder/master.cf"
grep -q 'pipe first argument$' "$folder/master.cf"
grep -q -- '-o smtpd_pr' "$folder/master.cf"
