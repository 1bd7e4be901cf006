#!/bin/sh
# Postfix 3.7.11 (Debian 12's package), posttls-finger: the exit status is 0 when the server cannot be reached, when it has no
# TLS, and when its certificate is the wrong one.
#
# posttls-finger(1) names no exit status. The guess is that `posttls-finger -l secure host && echo good` tests a server, in a
# monitor or before a policy changes to `secure`. It always prints `good`: only the words `Verified TLS connection established` in
# the output tell a good server from others.
#
# Exit status 0 while a closed port, a server without TLS and one with an unknown certificate all give status 0.
set -eu
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
for package in *.deb; do dpkg -x "$package" tree; done
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix" MAIL_CONFIG="$folder/etc"
mkdir etc
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
echo "shlib_directory = $folder/tree/usr/lib/postfix" >> etc/main.cf
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=unknown -keyout key.pem -out cert.pem \
    2> /dev/null

cat > server.py << 'PY'
"""An SMTP server: to the first client inside TLS, to the second without TLS."""
import pathlib
import socket
import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", 0))
pathlib.Path("port.new").write_text(str(listener.getsockname()[1]))
pathlib.Path("port.new").rename("port")
for wrap in (lambda client: context.wrap_socket(client, server_side=True), lambda client: client):
    client, _ = listener.accept()
    with wrap(client) as wrapped, wrapped.makefile("rwb", buffering=0) as lines:
        lines.write(b"220 server\r\n")
        while lines.readline():
            lines.write(b"250 server\r\n")
PY
python3 server.py &
server=$!
tries=0
while [ ! -e port ] && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done

probe() {
    status=0
    words=$1
    shift
    tree/usr/sbin/posttls-finger -l secure "$@" "[127.0.0.1]:$(cat port)" mx.example.org > out 2>&1 || status=$?
    echo "status $status: $(grep -m 1 "$words" out)"
    echo "$status" >> results
}
probe 'Untrusted TLS connection' -w
probe '< 250 server'
if grep -q "TLS connection" out; then exit 1; fi
wait "$server"
server=
probe 'Connection refused'
printf '%s\n' 0 0 0 | cmp -s - results
