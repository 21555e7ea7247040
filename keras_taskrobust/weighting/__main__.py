"""`python -m keras_taskrobust.weighting` prints the README's table of methods."""

from keras_taskrobust.weighting._table import methods_table

print(methods_table())
