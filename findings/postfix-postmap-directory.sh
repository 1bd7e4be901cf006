#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): `postmap hash:DIRECTORY` ends with status 0, without a word, and writes an empty
# DIRECTORY.db.
#
# Opening a directory for reading succeeds on Linux, and the error of the first read counts as the end of the text. So the
# guess that a wrong path gives an error, as a missing file does, is wrong: after `postmap hash:/etc/postfix/maps` (a folder of
# maps) the old index beside it is replaced by an empty one, and every lookup says "not found".
#
# Exit status 0 while the index is written, empty, with status 0, and a missing file is still an error.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
dpkg -x postfix_*.deb tree
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"
mkdir etc maps
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
postmap="tree/usr/sbin/postmap -c $folder/etc"
status=0
said=$($postmap "hash:$folder/maps" 2>&1) || status=$?
entries=$($postmap -s "hash:$folder/maps" | wc -l)
echo "postmap hash:maps: status $status, said '$said', $entries entries in $(ls ./*.db)"
missing=0
$postmap "hash:$folder/none" > missing.txt 2>&1 || missing=$?
echo "postmap hash:none: status $missing, said '$(cat missing.txt)'"
[ "$status" = 0 ] && [ -z "$said" ] && [ "$entries" = 0 ] && [ "$missing" != 0 ]
