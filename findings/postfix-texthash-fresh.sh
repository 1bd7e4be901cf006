#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): a texthash: file that was written in the same second is read again and again until
# the second is over; each reading warns about the same lines once more, and the program does not start before.
#
# The table cannot change any more once the program has read it, so the guess is one reading and one warning for each bad
# line, as with every other type. A script that writes a file and queries it at once is slower by up to a second or two, and
# counts its warnings several times; a test that compares them passes or fails by the clock.
#
# Exit status 0 while a fresh file gives more warnings than the same file with an old modification time.
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

warnings() {
    tree/usr/sbin/postmap -c "$folder/etc" -q key "texthash:$folder/table" 2>&1 > /dev/null | grep -c 'duplicate entry'
}

# Shortly after the start of a second, so that most of it is left.
python3 -c 'import time; time.sleep(1.1 - time.time() % 1)'
printf 'key first\nkey last\n' > table
fresh=$(warnings)
touch -d '-1 hour' table
old=$(warnings)
echo "written just now: $fresh warnings; an hour ago: $old"
[ "$old" = 1 ] && [ "$fresh" -gt 1 ]
