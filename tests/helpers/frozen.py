"""Imported last by the server that processes are forked from: their collector, which is called after every trial and
whenever a sharded model is put back, does not look through what was imported before."""

import gc

gc.collect()
gc.freeze()
