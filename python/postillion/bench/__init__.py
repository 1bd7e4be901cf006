"""`postillion bench`: the throughput of a mail server, and its reply times.

options   the command line
run       the load source and the sink, and their counts over time
tls       TLS of source and sink
server    CPU time and syncs of a server on this machine
report    the results as a table, as JSON and as a plot
"""
