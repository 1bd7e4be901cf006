#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): of two entries with one key, an inline: table keeps the last, a texthash: table the
# first.
#
# Both tables are read whole at the start of a program, and every file-based type keeps the first entry with a warning. The
# guess that inline: does the same is wrong, and inline: gives no warning: the same two lines moved from a file into
# main.cf give another answer.
#
# Exit status 0 while texthash: answers with the first value and inline: with the last.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
dpkg -x postfix_*.deb tree
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"
mkdir etc
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
printf 'key first\nkey last\n' > table

ask() {
    tree/usr/sbin/postmap -c "$folder/etc" -q key "$1" 2> warnings
}

file=$(ask "texthash:$folder/table")
echo "texthash: $file; $(wc -l < warnings) warning(s)"
inline=$(ask 'inline:{ key=first key=last }')
echo "inline: $inline; $(wc -l < warnings) warning(s)"
[ "$file" = first ] && [ "$inline" = last ]
