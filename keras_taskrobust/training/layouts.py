"""How the weights of a model lie on several devices."""

import keras

#: Paths of weights, as regular expressions, and which of their axes is cut.
_CUTS = {
    r".*/(query|key|value)/kernel": (False, True, False),
    r".*/(query|key|value)/bias": (True, False),
    r".*/attention_output/kernel": (True, False, False),
    r".*/(feedforward_intermediate_dense|mlp/dense_1|mlp/fc1)/kernel": (False, True),
    r".*/(feedforward_intermediate_dense|mlp/dense_1|mlp/fc1)/bias": (True,),
    r".*/(feedforward_output_dense|mlp/dense_2|mlp/fc2)/kernel": (True, False),
    r"(.*/)?token_embedding/embeddings": (False, True),
}


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> keras.distribution.LayoutMap:
    """The layouts for `keras.distribution.ModelParallel` of a `PosBert` or a `MultiModalMAE`.

    In each layer of the transformers the first matrix of a pair is cut by what it gives (heads, or
    hidden units), the second by what it takes, so that a pair needs one sum over the devices.
    Embeddings of tokens are cut by their width. All else lies whole on every device: norms, biases
    after a sum, heads, and the attention of the decoders.

    Keras lays weights out when they are made: make the model under the distribution. The numbers of
    heads and the widths must be multiples of the size of the axis.

    Args:
        device_mesh: `keras.distribution.DeviceMesh`.
        axis: str, the axis of the mesh over which a model is cut.

    Returns:
        A `keras.distribution.LayoutMap`, to which layouts of one's own may be added.

    Raises:
        ValueError: if the mesh has no such axis.

    Example:

    ```python
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((len(devices) // 2, 2), ("batch", "model"), devices)
    parallel = keras.distribution.ModelParallel(
        layout_map=ktr.layout_map(mesh), batch_dim_name="batch", auto_shard_dataset=False
    )
    with parallel.scope():
        model = ktr.text.PosBert(make_backbone())
        model.compile("adamw")
        model.fit(batches)
    ```

    Reference:
        [Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism]
        (https://arxiv.org/abs/1909.08053), section 3.
    """
    if axis not in device_mesh.axis_names:
        raise ValueError(
            f"`axis` must be one of the axes {device_mesh.axis_names} of the mesh. "
            f"Received: axis={axis!r}"
        )
    layouts = keras.distribution.LayoutMap(device_mesh)
    for paths, is_cut in _CUTS.items():
        layouts[paths] = tuple(axis if cut else None for cut in is_cut)
    return layouts
