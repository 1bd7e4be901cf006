#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): `postmap btree:m` writes the same file as `postmap hash:m`, m.db, and a program that
# reads hash:m fails from then on.
#
# cdb and lmdb indexes are named after their type, and both commands end with status 0, so the guess that the two types can
# stand beside each other is wrong. A site whose scripts make `hash:` where one parameter says `btree:` (or the other way)
# gets a fatal error of the library at the next open, not "not found".
#
# Exit status 0 while the second command replaces the first one's index and the first table can no longer be read.
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
echo 'key value' > m
postmap="tree/usr/sbin/postmap -c $folder/etc"
$postmap "hash:$folder/m"
echo "hash:m after postmap hash:m: $($postmap -q key "hash:$folder/m")"
$postmap "btree:$folder/m"
echo "indexes after postmap btree:m: $(ls ./*.db)"
status=0
after=$($postmap -q key "hash:$folder/m" 2>&1) || status=$?
echo "hash:m after postmap btree:m: status $status, '$after'"
[ "$status" != 0 ] && [ "$after" != value ] && [ "$(ls ./*.db | wc -l)" = 1 ]
