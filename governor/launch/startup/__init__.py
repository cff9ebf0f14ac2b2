"""The folder that a governed program's interpreter is pointed to."""
