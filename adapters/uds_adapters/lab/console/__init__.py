"""The command line's options, configuration files and terminal output."""
