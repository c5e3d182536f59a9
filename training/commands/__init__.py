"""The subcommands: their options, and what they print.

They import TensorFlow where they need it, so that `--help` is quick.
"""
