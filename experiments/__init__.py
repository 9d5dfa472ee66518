"""Where algorithms meet tasks: the command line, published settings, run folders."""
