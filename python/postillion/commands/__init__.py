"""The commands of postfix(1) and its companions: one file a command, `main(argv)` returns the exit status."""
