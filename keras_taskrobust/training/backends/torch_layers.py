"""Products with their bias, and attention with its dropout, as one operation each on PyTorch."""

from keras import ops
from torch.nn import functional


def linear(x, kernel, bias):
    kernel = ops.convert_to_tensor(kernel)
    bias = None if bias is None else ops.convert_to_tensor(bias)
    return functional.linear(x, kernel.T, bias)


def attend(query, key, value, mask=None, dropout=None, training=False):
    mixed = functional.scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=None if mask is None else mask[:, None, None],
        dropout_p=dropout.rate if dropout and training else 0.0,
    )
    return mixed.transpose(1, 2)
