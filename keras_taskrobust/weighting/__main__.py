"""`python -m keras_taskrobust.weighting` prints the table of methods of `docs/weightings.md`."""

from keras_taskrobust.weighting._table import methods_table

print(methods_table())
