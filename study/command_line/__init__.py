"""The command line: its commands, options in groups, settings in a file, what can be named, and completion."""
