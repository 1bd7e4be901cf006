#!/bin/sh
# setproctitle 1.3.8 on Linux: a process with few and short arguments and a small environment keeps its command line.
#
# setproctitle writes the title over the memory of the process's own arguments and environment, and cuts it to that size
# without an error. The guess is wrong because the same program shows its whole title when a shell starts it: an ordinary
# environment has room for it. A supervisor that gives its programs a clean environment loses the end of their titles.
#
# Exit status 0 while the command line of the first process lacks the end of its title, and that of the second has it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/v"
"$folder/v/bin/pip" install --quiet setproctitle==1.3.8
cat > "$folder/t" <<'PYTHON'
import setproctitle
title = "qmgr -n qmgr -t unix -u -c /etc/postfix -o syslog_name=postfix/a-long-name -v THE-END " + "x" * 400 + " LAST"
setproctitle.setproctitle(title)
told = setproctitle.getproctitle().endswith("LAST")
shown = open("/proc/self/cmdline").read().rstrip("\0").endswith("LAST")
print(f"getproctitle() has the whole title: {told}; /proc/self/cmdline has it: {shown}")
raise SystemExit(0 if shown else 3)
PYTHON
cd "$folder"
echo "empty environment:"
bare=0
env -i "$folder/v/bin/python" t || bare=$?
echo "environment with a variable of 2000 octets:"
full=0
env -i ROOM="$(printf '%2000s' '')" "$folder/v/bin/python" t || full=$?
[ "$bare" -eq 3 ] && [ "$full" -eq 0 ]
