"""Stages that several systems share; a system gives them their names, labels and sizes."""
