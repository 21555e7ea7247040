"""One decoder a task: cross-attention to the visible tokens, then self-attention blocks."""

import keras
from keras import ops

from keras_taskrobust.training.fused_layers import attend
from keras_taskrobust.vision.embeddings import add_table, small_normal

_EPSILON = 1e-6
_MLP_RATIO = 4


class Attention(keras.layers.Layer):
    """Multi-head attention with merged projections: `proj(softmax(q k^T / sqrt(d)) v)`.

    Args:
        num_heads: int.
        cross: bool. If False, one product gives queries, keys and values.

    Call arguments:
        x: `(B, N, D)`.
        context: `(B, M, D)` for cross-attention, else `None`.

    Returns:
        `(B, N, D)`.
    """

    def __init__(self, num_heads, cross=False, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.cross = cross

    def build(self, input_shape):
        dim = input_shape[-1]
        # The range for each of the merged matrices is that of a matrix of its own.
        limit = (3.0 / dim) ** 0.5
        initializer = keras.initializers.RandomUniform(-limit, limit)
        widths = {"q": 1, "kv": 2} if self.cross else {"qkv": 3}
        self.inputs = {
            name: keras.layers.Dense(
                width * dim, kernel_initializer=initializer, dtype=self.dtype_policy, name=name
            )
            for name, width in widths.items()
        }
        self.projection = keras.layers.Dense(dim, dtype=self.dtype_policy, name="projection")
        for layer in (*self.inputs.values(), self.projection):
            layer.build(input_shape)

    def call(self, x, context=None):
        if self.cross:
            (query,) = self._heads(by_row(self.inputs["q"], x))
            key, value = self._heads(by_row(self.inputs["kv"], context))
        else:
            query, key, value = self._heads(by_row(self.inputs["qkv"], x))
        mixed = attend(query, key, value)
        return by_row(self.projection, ops.reshape(mixed, (-1, x.shape[1], x.shape[2])))

    def _heads(self, merged):
        """Splits `(B, N, k * D)` into k tensors `(B, N, heads, D / heads)`."""
        dim = self.projection.units
        shape = (-1, merged.shape[1], self.num_heads, dim // self.num_heads)
        return [
            ops.reshape(part, shape) for part in ops.split(merged, merged.shape[-1] // dim, axis=-1)
        ]


class Mlp(keras.layers.Layer):
    """`fc2(gelu(fc1(x)))`, four times as wide inside."""

    def build(self, input_shape):
        dim = input_shape[-1]
        self.fc1 = keras.layers.Dense(
            _MLP_RATIO * dim, activation="gelu", dtype=self.dtype_policy, name="fc1"
        )
        self.fc2 = keras.layers.Dense(dim, dtype=self.dtype_policy, name="fc2")
        self.fc1.build(input_shape)
        self.fc2.build((*input_shape[:-1], _MLP_RATIO * dim))

    def call(self, x):
        return by_row(lambda rows: self.fc2(self.fc1(rows)), x)


class Block(keras.layers.Layer):
    """A pre-norm transformer block: `x += attention(norm1(x)); x += mlp(norm2(x))`."""

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.norm1 = layer_norm("norm1", self.dtype_policy)
        self.attention = Attention(num_heads, dtype=self.dtype_policy, name="attention")
        self.norm2 = layer_norm("norm2", self.dtype_policy)
        self.mlp = Mlp(dtype=self.dtype_policy, name="mlp")

    def build(self, input_shape):
        for layer in (self.norm1, self.attention, self.norm2, self.mlp):
            layer.build(input_shape)

    def call(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TaskDecoder(keras.layers.Layer):
    """Predicts all patches of one task from the encoded visible tokens.

    The queries are the patches of the task's own modality: the projected token where it is
    visible, the mask token elsewhere. The context is the projected visible tokens. Both carry
    the modality's embedding and fixed positions; a global token joins the context without. Then

        x = cross_attention(query_norm(queries), context_norm(context))
        x = x + mlp(out_norm(x))
        x = out_projection(blocks(x))

    without a residual path around the cross-attention.

    Args:
        modality_index: int or `None`: which of the input modalities the task belongs to. `None`
            for one that is not among them, whose queries are the mask token and positions.
        num_modalities: int, M.
        positions: `(N, D)` array, the initial position table.
        depth: int, the self-attention blocks.
        num_heads: int.
        output_dim: int, F, the numbers predicted for a patch.

    Call arguments:
        encoded: `(B, V, E)` visible tokens, or `(B, V + 1, E)`, a global token last.
        ids: `(B, V)` int32, the tokens' positions in the sequence of all modalities.
        slots: `(B, M, N)` int32, each token's place among the visible ones, V if masked.

    Returns:
        `(B, N, F)`.

    Reference:
        [MultiMAE: Multi-modal Multi-task Masked Autoencoders](https://arxiv.org/abs/2204.01678).
    """

    def __init__(
        self, modality_index, num_modalities, positions, depth, num_heads, output_dim, **kwargs
    ):
        super().__init__(**kwargs)
        self.modality_index = modality_index
        self.num_modalities = num_modalities
        self._initial_positions = positions
        policy = self.dtype_policy
        dim = positions.shape[1]
        self.context_projection = keras.layers.Dense(dim, dtype=policy, name="context_projection")
        self.query_norm = layer_norm("query_norm", policy)
        self.context_norm = layer_norm("context_norm", policy)
        self.cross_attention = Attention(
            num_heads, cross=True, dtype=policy, name="cross_attention"
        )
        self.out_norm = layer_norm("out_norm", policy)
        self.mlp = Mlp(dtype=policy, name="mlp")
        self.blocks = [
            Block(num_heads, dtype=policy, name=f"block_{index}") for index in range(depth)
        ]
        self.out_projection = keras.layers.Dense(output_dim, dtype=policy, name="out_projection")

    def build(self, input_shape):
        tokens, dim = self._initial_positions.shape
        self.positions = add_table(self, self._initial_positions)
        self.mask_token = self._add_token("mask_token", dim)
        self.modality_embeddings = [
            self._add_token(f"modality_embedding_{index}", dim)
            for index in range(self.num_modalities)
        ]
        self.context_projection.build(input_shape)
        shape = (None, tokens, dim)
        for layer in (
            self.query_norm,
            self.context_norm,
            self.cross_attention,
            self.out_norm,
            self.mlp,
            *self.blocks,
            self.out_projection,
        ):
            layer.build(shape)

    def call(self, encoded, ids, slots):
        return by_row(self.out_projection, self.transform(self.attend(encoded, ids, slots)))

    def attend(self, encoded, ids, slots):
        """The cross-attention's output, `(B, N, D)`."""
        visible = ids.shape[1]
        projected = self.context_projection(encoded)
        queries = self._queries(projected[:, :visible], slots)
        context = projected[:, :visible] + self._embeddings_of(ids)
        context = ops.concatenate([context, projected[:, visible:]], axis=1)
        return self.cross_attention(self.query_norm(queries), self.context_norm(context))

    def transform(self, x):
        """MLP and self-attention blocks, `(B, N, D)` to `(B, N, D)`."""
        x = x + self.mlp(self.out_norm(x))
        for block in self.blocks:
            x = block(x)
        return x

    def _queries(self, projected, slots):
        mask_token = ops.broadcast_to(
            self.mask_token, (ops.shape(projected)[0], 1, projected.shape[-1])
        )
        positions = ops.expand_dims(self.positions, 0)
        if self.modality_index is None:
            return mask_token + positions
        places = slots[:, self.modality_index]
        candidates = ops.concatenate([projected, mask_token], axis=1)
        queries = gather_tokens(candidates, places)
        return queries + (positions + self.modality_embeddings[self.modality_index])

    def _embeddings_of(self, ids):
        """`(B, V, D)`: modality embedding plus position of each visible token."""
        tokens = self._initial_positions.shape[0]
        positions = ops.take(ops.convert_to_tensor(self.positions), ids % tokens, axis=0)
        table = ops.concatenate(self.modality_embeddings, axis=1)
        member = ops.one_hot(ids // tokens, self.num_modalities, dtype=self.compute_dtype)
        return ops.cast(positions, self.compute_dtype) + ops.matmul(member, table[0])

    def _add_token(self, name, dim):
        return self.add_weight(name=name, shape=(1, 1, dim), initializer=small_normal())


def by_row(layer, x):
    """Applies `layer` to the rows of `(B, N, D)` as to one matrix, which XLA multiplies faster."""
    rows = layer(ops.reshape(x, (-1, x.shape[-1])))
    return ops.reshape(rows, (-1, x.shape[1], rows.shape[-1]))


def gather_tokens(tokens, index):
    """Picks rows: `(B, T, D)` tokens and `(B, V)` integers give `(B, V, D)`.

    Rows of one matrix: with PyTorch `ops.take_along_axis` picks number by number, and adds up its
    gradient so.
    """
    _, number, dim = tokens.shape
    first = ops.arange(ops.shape(tokens)[0], dtype="int32") * number
    rows = ops.reshape(ops.cast(index, "int32") + ops.expand_dims(first, 1), (-1,))
    picked = ops.take(ops.reshape(tokens, (-1, dim)), rows, axis=0)
    return ops.reshape(picked, (-1, index.shape[1], dim))


def layer_norm(name, policy):
    """A LayerNormalization as in the reference."""
    return keras.layers.LayerNormalization(epsilon=_EPSILON, dtype=policy, name=name)
