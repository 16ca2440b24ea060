"""The command line: a thin edge over the gateway's HTTP routes and ``remora.operations``."""
