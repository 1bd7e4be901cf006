#!/bin/sh
# Postfix 3.7.11 (Debian 12's packages postfix and postfix-pcre): in a regexp: table, `/a/!/b/ text` is a rule of two
# patterns. The first one must match, and the second one not. In a pcre: table the same line is skipped with a warning.
#
# regexp_table(5) and pcre_table(5) describe the same rules, with one pattern each, and neither page has this form. The
# guesses are: both types read it alike, `!/b/` are unknown flags and the line is skipped, or `!/b/ text` is the result.
# A table that moves from regexp: to pcre: loses such a rule, so a REJECT that it gave.
#
# Exit status 0 while regexp: has a result for a key with the first pattern alone, and pcre: for none.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 postfix-pcre=3.7.11-0+deb12u1 > /dev/null 2>&1
for package in *.deb; do dpkg -x "$package" tree; done
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"
mkdir etc
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
# Plug-in tables are found by a file beside main.cf.
echo "pcre $folder/tree/usr/lib/postfix/postfix-pcre.so dict_pcre_open" > etc/dynamicmaps.cf
echo "shlib_directory = $folder/tree/usr/lib/postfix" >> etc/main.cf
echo '/^Subject:/!/^Subject: \[list\]/ REJECT no list' > table

ask() {
    tree/usr/sbin/postmap -c "$folder/etc" -q "$2" "$1:$folder/table" 2>> warnings || true
}

for kind in regexp pcre; do
    : > warnings
    other=$(ask "$kind" 'Subject: hello')
    list=$(ask "$kind" 'Subject: [list] hello')
    echo "$kind: 'Subject: hello': ${other:-no result}; 'Subject: [list] hello': ${list:-no result}"
    sed 's/^/  /; s|'"$folder"'/||g' warnings | sort -u
    echo "$kind:$other:$list" >> results
done
printf 'regexp:REJECT no list:\npcre::\n' | cmp -s - results && ! grep -q 'open shared\|unsupported' warnings
