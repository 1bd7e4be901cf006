"""`postillion bench`: how much mail a server takes and passes on, and how fast it answers.

options   what the command line asks for
run       source and sink at work, and what they counted, second by second
server    a server on this machine: its CPU time and its syncs
report    the figures as a table, as JSON, and as a plot
"""
