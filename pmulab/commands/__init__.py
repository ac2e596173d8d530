"""One module per command of `pmulab`, each with `main(arguments) -> exit status`."""
